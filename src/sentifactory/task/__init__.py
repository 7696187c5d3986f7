"""The task: labels, prompt and answer, its YAML file, and its copy in the model folder."""
