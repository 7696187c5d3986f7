"""Pretrained models: built from registry packages (no hub, no account), fetched from a hub, loaded from folders.

`store` builds a registry model into its folder; `embedded/` holds one module per model (`gemma`, `e5`) and the readers
of their files. `hub` fetches models, `causal_models` and `classifiers` load them.
"""
