"""LLaMA-Factory's supervised fine-tuning, with our trainer."""
