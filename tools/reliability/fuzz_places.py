"""The whole files of which `fuzz_files.py` breaks one: reviews, recipes, registers, models."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from sentifactory.metrics.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.store import SEAL_NAME, get_model
from sentifactory.models.weights import hash_weights
from sentifactory.task.task import BINARY_SENTIMENT
from tools.reliability.fuzz_commands import TABLES

GOOD, UNSEEN = "good.csv", "unseen.csv"
MODELS = ("model", "writer", "adapter")
WORDS = ("很好", "太差", "房间干净", "再也不来", "值得购买", "服务热情", "失望", "早餐很好", "屏幕亮", "糟糕")
ENCODER_RECIPE = """stage: encoder
model_name_or_path: model
dataset: good.csv
eval_dataset: unseen.csv
output_dir: trained
max_steps: 1
use_cpu: true
"""
RECIPE = """model_name_or_path: writer
stage: sft
do_train: true
finetuning_type: freeze
freeze_trainable_layers: 1
dataset: a_train
template: empty
cutoff_len: 512
preprocessing_num_workers: 1
output_dir: trained
overwrite_output_dir: true
max_steps: 1
per_device_train_batch_size: 2
learning_rate: 1.0e-4
report_to: none
use_cpu: true
"""
SPACE = """learning_rate: {low: 5.0e-5, high: 4.0e-4, log: true}
freeze_trainable_layers: [1, 2]
max_steps: {low: 1, high: 5, step: 2}
task: [binary_sentiment, reference_sentiment]
"""
_OTHER_WORDS = "第{at}次，{word}！"
_TASKS = Path(__file__).parents[2] / "examples" / "tasks"


def write_rows(path: Path, words: str = "{word}{at}", number: int = 24) -> None:
    """Write labelled reviews in the form that the file's name asks for."""
    rows = [(words.format(word=WORDS[at % len(WORDS)], at=at), at % 2) for at in range(number)]
    records = [{"text": text, "label": label} for text, label in rows]
    kind = path.suffix[1:]
    if kind in ("csv", "tsv", "txt"):
        mark = "\t" if kind == "tsv" else ","
        path.write_text("".join(f"{text}{mark}{label}\n" for text, label in [("text", "label"), *rows]), "utf-8")
    elif kind == "json":
        path.write_text(json.dumps(records, ensure_ascii=False), "utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    elif kind == "xlsx":
        import openpyxl

        book = openpyxl.Workbook()
        for row in [("text", "label"), *rows]:
            book.active.append(row)
        book.save(path)
    else:
        import pyarrow
        from pyarrow import parquet

        table = {"text": [text for text, _ in rows], "label": [label for _, label in rows]}
        parquet.write_table(pyarrow.table(table), path)


def build_models(folder: Path, run: Callable[[list[str]], object]) -> Path:
    """Write an encoder that classifies, a language model, an adapter of it, prepared reviews, and a report.

    Args:
        folder: new, and the working folder.
        run: runs a command in this process.
    """
    build_encoder(folder / "model")
    build_writer(folder / "writer")
    build_adapter(folder / "writer", folder / "adapter")
    write_rows(folder / GOOD)
    write_rows(folder / UNSEEN, _OTHER_WORDS)
    run(["data", "prepare", GOOD, "--name", "a", "--output_dir", "data"])
    models = ["--base_model", "model", "--finetuned_model", "model", "--engine", "encoder", "--mode", "score"]
    run(["eval", "compare", *models, "--csv_path", UNSEEN, "--output_file", "report.json"])
    return folder


def build_encoder(folder: Path) -> None:
    """Save a random classifier with a vocabulary of characters, a run card and a calibration."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys("".join(WORDS) + "0123456789")]
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=64, id2label={0: "negative", 1: "positive"}, label2id={"negative": 0, "positive": 1},
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    words = {word: at for at, word in enumerate(vocabulary)}
    BertTokenizerFast(vocab=words, model_max_length=64).save_pretrained(folder)
    (folder / "run.json").write_text(json.dumps({"status": "finished", "recipe": {"seed": 1}, "result": {}}))
    prompt = hash_prompt(BINARY_SENTIMENT)
    fitted_on = {"file": "val.csv", "sha256": "0" * 64, "missing": 0, "reviews": 40}
    values = ("temperature", 1.5, (0.0, 0.0), BINARY_SENTIMENT.name, prompt, 0.8, 0.9, fitted_on)
    save_calibration(Calibration(*values, hash_weights(folder)), folder)


def build_writer(folder: Path) -> None:
    """Save a random language model whose tokens are characters, and whose chat template adds nothing."""
    import torch
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    letters = "".join(map(chr, range(32, 127))) + "\n" + "".join(WORDS) + BINARY_SENTIMENT.prompt_template
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "[EOS]", *dict.fromkeys(letters)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r".|\s"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    whole = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024, **special)
    whole.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    whole.save_pretrained(folder)
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=1024, pad_token_id=0, eos_token_id=2, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)


def build_adapter(base: Path, folder: Path) -> None:
    """Save a LoRA adapter, which names its base as `writer`."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, trust_remote_code=False)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder)
    AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": "writer"}))


def make_place(folder: Path, kind: str, models: Path | None, dice: random.Random) -> Path:
    """Fill a folder with whole files of which one will be broken, and return that."""
    write_rows(folder / GOOD)
    write_rows(folder / UNSEEN, _OTHER_WORDS)
    kind = kind.removeprefix("slow_")
    if models is not None:
        for name in (*MODELS, "data"):
            shutil.copytree(models / name, folder / name)
        shutil.copyfile(models / "report.json", folder / "report.json")
    for name, text in (("encoder.yaml", ENCODER_RECIPE), ("recipe.yaml", RECIPE), ("space.yaml", SPACE)):
        (folder / name).write_text(text)
    shutil.copyfile(_TASKS / "binary_sentiment.yaml", folder / "task.yaml")
    named = {"asked_task": "task", "encoder_recipe": "encoder"}.get(kind, kind)
    if kind in TABLES or kind == "reviews":
        file = folder / f"broken.{kind if kind in TABLES else dice.choice(TABLES)}"
        write_rows(file, number=36)
        return file
    for name in (f"{named}.yaml", f"{named}.json"):
        if (folder / name).exists():
            return folder / name
    if kind in MODELS:
        return dice.choice(sorted(path for path in (folder / kind).iterdir() if path.suffix != ".md"))
    return _MAKERS[kind](folder, dice)


def _make_register(folder: Path, _: random.Random) -> Path:
    return _write(folder / "place" / "dataset_info.json", {"other": {"file_name": "other.jsonl"}})


def _choose_prepared(folder: Path, dice: random.Random) -> Path:
    return dice.choice(sorted(path for path in (folder / "data").rglob("*") if path.is_file()))


def _make_journal(folder: Path, _: random.Random) -> Path:
    content = {"labelling": 1, "token": "0" * 32, "settings": {}, "rows": 0, "counts": {}, "bytes": 0, "bad_bytes": 0,
               "complete": False, "replaces": False}  # fmt: skip
    return _write(folder / "out.csv.journal.json", content)


def _make_seal(folder: Path, _: random.Random) -> Path:
    model = get_model("gemma-3-270m")
    place = folder / "place" / model.name
    _write(place / "mine.json", {})  # a stranger's: the model is not built anew around it
    seal = {"name": model.name, "package": model.package, "source_sha256": model.source_sha256,
            "format_version": model.format_version, "dtype": "float32", "files": {}}  # fmt: skip
    return _write(place / SEAL_NAME, seal)


def _make_belongings(folder: Path, dice: random.Random) -> Path:
    job = {"name": "mine", "output_dir": "saves/x", "started_at": "2026-01-01T00:00:00+00:00", "pid": None}
    report = {"schema_version": 3, "warnings": [], "models": {}, "verdict": {"level": "none"}}
    card = {"status": "finished", "recipe": {"seed": 1}, "result": {}}
    files = [
        _write(folder / "place" / "jobs" / "mine" / "job.json", job),
        _write(folder / "saves" / "x" / "run.json", card),
        _write(folder / "saves" / "x" / "config.json", {"architectures": ["LlamaForCausalLM"]}),
        _write(folder / "saves" / "comparison" / "report.json", report),
        _write(folder / "data" / "b" / "manifest.json", {"outputs": {}, "parts": {"train": {"rows": 1}}}),
    ]
    return dice.choice(files)


def _make_soft_labels(folder: Path, _: random.Random) -> Path:
    rows = [{"text": f"{word}0", "probabilities": {"negative": 0.25, "positive": 0.75}} for word in WORDS]
    file = folder / "soft.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return file


def _write(path: Path, content: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


_MAKERS: dict[str, Callable[[Path, random.Random], Path]] = {
    "register": _make_register,
    "manifest": _choose_prepared,
    "taught": _choose_prepared,
    "journal": _make_journal,
    "seal": _make_seal,
    "belongings": _make_belongings,
    "soft": _make_soft_labels,
}
