"""Makes a stack: TF-IDF and a tuned model combined into one model, in one folder."""
