"""What transformers raises for a folder that it cannot load, in one line."""

from __future__ import annotations

import pickle


def list_load_errors() -> tuple[type[Exception], ...]:
    """Return the errors that mean a folder that cannot be loaded, and no defect of ours."""
    from safetensors import SafetensorError

    plain = (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError)
    return (*plain, pickle.UnpicklingError, SafetensorError)


def describe_load_error(error: Exception) -> str:
    """Return why a folder cannot be loaded, as a clause.

    Torch's own words for a pickle advise to load it all the same, which would run what is in it.
    """
    if isinstance(error, pickle.UnpicklingError):
        return "its weights are a pickle with more than tensors in it, which is not loaded"
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
