"""Training by LLaMA-Factory, with exact accelerations and a run card."""
