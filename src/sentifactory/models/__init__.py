"""Pretrained models from registry packages."""
