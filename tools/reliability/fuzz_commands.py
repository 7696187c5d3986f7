"""Which command is given which broken file, for `fuzz_files.py`.

Each kind names what is broken; {file} is that file and {suffix} its ending. What stands beside it is whole. Where a
command would go on for minutes if the file were whole, its other words make it end: reviews to test on that are among
those to train on, an address that is not this machine's.
"""

from __future__ import annotations

TABLES = ("csv", "tsv", "json", "jsonl", "xlsx", "parquet", "txt")
# Broken files that no model is needed for, and those that a whole model stands beside.
READERS = (
    "data prepare {file} --name a --output_dir data",
    "data check --train {file} --test good.csv",
    "data check --train good.csv --test {file} --unseen unseen_rows.csv",
    "data show {file} --skip_doubt --output_file page.html",
    "data doubt {file} --folds 2 --output_file doubt.csv",
    "label {file} out.{suffix} --model good.csv --engine tfidf --task binary_sentiment",
    "label good.csv out.csv --model {file} --engine tfidf",
    "predict --file {file} --engine tfidf --train_csv good.csv",
    "predict 很好 --engine tfidf --train_csv {file}",
    "eval ladder --csv_path {file} --train_csv good.csv --output_file ladder.json",
    "eval ladder --csv_path good.csv --train_csv {file} --output_file ladder.json",
    "eval ladder --csv_path unseen.csv --train_csv good.csv --val_path {file} --adapt_prior --output_file ladder.json",
    "serve {file} --engine tfidf --host 192.0.2.1 --port 8765",
)
_COMPARE = "eval compare --base_model {model} --finetuned_model {model} --engine {engine} --mode score"
_STACK = "model stack model --output_dir stacked"
_ENCODERS = _COMPARE.format(model="model", engine="encoder") + " --output_file r/report.json"
_WRITERS = _COMPARE.format(model="writer", engine="transformers") + " --output_file r/report.json"
_SWEEP = "sweep {recipe} --val_path good.csv --output_dir swept"
REVIEWS = (
    f"{_ENCODERS} --csv_path {{file}}",
    f"{_ENCODERS} --csv_path unseen.csv --val_path {{file}}",
    f"{_ENCODERS} --csv_path unseen.csv --train_csv {{file}}",
    f"{_ENCODERS} --csv_path unseen.csv --train_file {{file}}",
    f"{_WRITERS} --csv_path {{file}}",
    f"{_STACK} --train_csv {{file}} --val_path unseen.csv",
    f"{_STACK} --train_csv good.csv --val_path {{file}}",
    "distill --teacher model --engine encoder --input_file {file} --output_file soft.jsonl",
    "export dtype writer --dtype float32 --val_path {file} --output_dir exported",
    "export merge adapter --dtype float32 --val_path {file} --output_dir exported",
    "model probe writer --csv_path {file} --output_file probe.png",
    "train encoder.yaml dataset={file}",
    "train encoder.yaml eval_dataset={file}",
    "train encoder.yaml --test {file}",
    "sweep recipe.yaml --search learning_rate=[1.0e-4] --val_path {file} --output_dir swept",
)
COMMANDS = {
    **dict.fromkeys(TABLES, READERS),
    "task": (
        "label good.csv out.csv --model good.csv --engine tfidf --task {file}",
        "data prepare good.csv --name a --output_dir data --task {file}",
        "data check --train good.csv --test good.csv --task {file}",
        "data show good.csv --skip_doubt --output_file page.html --task {file}",
        "data doubt good.csv --folds 2 --output_file doubt.csv --task {file}",
        "predict 很好 --engine tfidf --train_csv good.csv --task {file}",
        "serve good.csv --engine tfidf --host 192.0.2.1 --port 8765 --task {file}",
        "eval ladder --csv_path good.csv --train_csv good.csv --output_file ladder.json --task {file}",
    ),
    "register": ("data prepare good.csv --name a --output_dir place",),
    "manifest": (
        "data prepare good.csv --name a --output_dir data",
        "data check --train data/a/train.csv --test data/a/test.csv",
        "data show data/a --skip_doubt --output_file page.html",
        "data show a --skip_doubt --output_file page.html --dataset_dir data",
        "data doubt a --folds 2 --output_file doubt.csv --dataset_dir data",
    ),
    "journal": ("label good.csv out.csv --model good.csv --engine tfidf --task binary_sentiment",),
    "seal": ("model fetch gemma-3-270m --output_dir place",),
    "belongings": ("doctor", "ui --workspace place --models saves --recipes . --host 192.0.2.1 --port 8765"),
    "reviews": REVIEWS,
    "recipe": ("train {file} --dry_run", _SWEEP.format(recipe="{file}") + " --search learning_rate=[1.0e-4]"),
    "encoder_recipe": ("train {file} max_steps=1", "train {file} --dry_run"),
    "space": (_SWEEP.format(recipe="recipe.yaml") + " --space {file}",),
    "taught": (
        "train recipe.yaml --dry_run",
        _SWEEP.format(recipe="recipe.yaml") + " --search learning_rate=[1.0e-4]",
        "train encoder.yaml dataset=data/a/train.jsonl eval_dataset=data/a/val.csv",
        "train encoder.yaml dataset=a_train dataset_dir=data",
    ),
    "soft": ("train encoder.yaml soft_label_path={file}",),
    "asked_task": (
        f"{_ENCODERS} --csv_path unseen.csv --task {{file}}",
        f"{_STACK} --train_csv good.csv --val_path unseen.csv --task {{file}}",
        "train encoder.yaml --task {file}",
        "sweep recipe.yaml --search learning_rate=[1.0e-4] --val_path good.csv --output_dir swept --task {file}",
        "distill --teacher model --engine encoder --input_file good.csv --output_file soft.jsonl --task {file}",
        "model probe writer --csv_path unseen.csv --task {file}",
        "export dtype writer --dtype float32 --val_path unseen.csv --output_dir exported --task {file}",
        "export merge adapter --dtype float32 --val_path unseen.csv --output_dir exported --task {file}",
    ),
    "report": ("publish model --repo_id a/b --report {file} --dry_run",),
    "model": (
        "predict 很好 --model model --engine encoder",
        "label good.csv out.csv --model model --engine encoder",
        "publish model --repo_id a/b --dry_run",
        "distill --teacher model --engine encoder --input_file good.csv --output_file soft.jsonl",
        "label good.csv out.csv --model model",
        "serve model --port 0 --threshold calibrated --engine onnx",
        "serve model --engine encoder --host 192.0.2.1 --port 8765",
        f"{_ENCODERS} --csv_path unseen.csv",
        f"{_STACK} --train_csv good.csv --val_path unseen.csv",
        "train encoder.yaml",
    ),
    "writer": (
        "predict 很好 --model writer --engine transformers",
        "label good.csv out.csv --model writer --engine transformers",
        "publish writer --repo_id a/b --dry_run",
        "train recipe.yaml --dry_run",
        "data prepare good.csv --name b --output_dir data --max_tokens 200 --tokenizer writer",
        "data show good.csv --skip_doubt --output_file page.html --tokenizer writer",
        "export dtype writer --dtype float32 --val_path unseen.csv --output_dir exported",
        "model cut writer --layers 1 --output_dir cut",
        "model probe writer --csv_path unseen.csv",
        f"{_WRITERS} --csv_path unseen.csv",
    ),
    "adapter": (
        "export merge adapter --dtype float32 --val_path unseen.csv --output_dir exported",
        "predict 很好 --model adapter --engine transformers",
    ),
}
# Seconds each, in processes of their own: these are not for the suite.
SLOW = {
    "slow_reviews": (
        "export onnx model --quantise none --val_path {file} --output_dir exported",
        "export gguf writer --val_path {file} --output_dir exported",
        "train recipe.yaml --test {file}",
    ),
    "slow_model": (
        "export onnx model --val_path unseen.csv --output_dir exported",
        "eval ladder --csv_path unseen.csv --train_csv good.csv --encoder_model model --output_file ladder.json",
        "eval ladder --csv_path unseen.csv --train_csv good.csv --stack_model model --output_file ladder.json",
    ),
    "slow_writer": (
        "train recipe.yaml",
        "export gguf writer --val_path unseen.csv --output_dir exported",
        "eval ladder --csv_path unseen.csv --train_csv good.csv --base_model writer --freeze_model writer "
        "--lora_model writer --engine transformers --output_file ladder.json",
    ),
    "slow_task": (
        "export onnx model --quantise none --val_path unseen.csv --output_dir exported --task {file}",
        "export gguf writer --val_path unseen.csv --output_dir exported --task {file}",
        "train recipe.yaml --task {file}",
    ),
}
# They are given no file.
WITHOUT_FILES = {"demo", "eval power"}
