"""Broken files for every command that reads files: none may end in a traceback, hang, or leave half of an output.

Purpose:       does a broken file end as a sentence (exit code 0, 2 or 3), whatever is broken in it?
Prerequisites: the train environment; no network, no model beyond those made here.
Command:       PYTHONPATH=src .venv/bin/python tools/reliability/fuzz_files.py [--cases 5000] [--kinds xlsx]
Output:        a line for each failure, with the seed that makes it again, and counts by kind and exit code.

Commands run in this process, for speed. What runs in processes of its own (vLLM, training) is refused before that.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sentifactory.cli import build_app, run_guarded
from sentifactory.engines.calibration import Calibration, hash_prompt, save_calibration
from sentifactory.models.weights import hash_weights
from sentifactory.task import BINARY_SENTIMENT

SOUND_CODES = (0, 2, 3)
PATIENCE_S = 60
GOOD = "good.csv"
WORDS = ("很好", "太差", "房间干净", "再也不来", "值得购买", "服务热情", "失望", "早餐很好", "屏幕亮", "糟糕")
TABLES = ("csv", "tsv", "json", "jsonl", "xlsx", "parquet", "txt")
# The commands for each kind of broken file; {file} is it, {suffix} its ending.
READERS = (
    "data prepare {file} --name a --output_dir data",
    "data check --train {file} --test good.csv",
    "data check --train good.csv --test {file} --unseen unseen.csv",
    "data show {file} --skip_doubt --output_file page.html",
    "label {file} out.{suffix} --model good.csv --engine tfidf --task binary_sentiment",
    "label good.csv out.csv --model {file} --engine tfidf",
)
COMMANDS = {
    **dict.fromkeys(TABLES, READERS),
    "task": (
        "label good.csv out.csv --model good.csv --engine tfidf --task {file}",
        "data prepare good.csv --name a --output_dir data --task {file}",
        "data check --train good.csv --test good.csv --task {file}",
    ),
    "recipe": ("train {file} --dry_run",),
    "register": ("data prepare good.csv --name a --output_dir place",),
    "manifest": (
        "data prepare good.csv --name a --output_dir data",
        "data check --train data/a/train.csv --test data/a/test.csv",
        "data show data/a --skip_doubt --output_file page.html",
    ),
    "journal": ("label good.csv out.csv --model good.csv --engine tfidf --task binary_sentiment",),
    "report": ("publish model --repo_id a/b --report report.json --dry_run",),
    "model": (
        "predict 很好 --model model --engine encoder",
        "label good.csv out.csv --model model --engine encoder",
        "publish model --repo_id a/b --dry_run",
        "distill --teacher model --engine encoder --input_file good.csv --output_file soft.jsonl",
        "label good.csv out.csv --model model",
        "serve model --port 0 --threshold calibrated --engine onnx",
    ),
}
_EXAMPLES = Path(__file__).parents[2] / "examples"
_MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "calibration.json",
    "run.json",
)
_JSON_KINDS = {"register", "manifest", "journal", "report", "json", "jsonl"}


@dataclass(frozen=True, slots=True)
class Failure:
    """A case that ended as none may.

    Attributes:
        seed: of the case.
        kind: of the broken file.
        command: what was run.
        what: what went wrong, with the last words of the command.
    """

    seed: str
    kind: str
    command: str
    what: str


def write_rows(path: Path, number: int = 24) -> None:
    """Write labelled reviews in the form that the file's name asks for."""
    rows = [(f"{WORDS[at % len(WORDS)]}{at}", at % 2) for at in range(number)]
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


def make_place(folder: Path, kind: str, model: Path | None, dice: random.Random) -> Path:
    """Fill a folder with good files of which one will be broken, and return that."""
    write_rows(folder / GOOD)
    file = folder / f"broken.{kind}"
    if kind in TABLES:
        write_rows(file)
    elif kind == "task":
        file = folder / "task.yaml"
        shutil.copyfile(_EXAMPLES / "tasks" / "binary_sentiment.yaml", file)
    elif kind == "recipe":
        file = folder / "recipe.yaml"
        shutil.copyfile(_EXAMPLES / "train_freeze" / "gemma3_270m_freeze_demo.yaml", file)
    elif kind == "register":
        (folder / "place").mkdir()
        file = folder / "place" / "dataset_info.json"
        file.write_text(json.dumps({"other": {"file_name": "other.jsonl"}}))
    elif kind == "manifest":
        run(["data", "prepare", GOOD, "--name", "a", "--output_dir", "data"])
        file = dice.choice(sorted(path for path in (folder / "data").rglob("*") if path.is_file()))
    elif kind == "journal":
        file = folder / "out.csv.journal.json"
        content = {"labelling": 1, "token": "0" * 32, "settings": {}, "rows": 0, "counts": {}, "bytes": 0,
                   "bad_bytes": 0, "complete": False, "replaces": False}  # fmt: skip
        file.write_text(json.dumps(content))
    elif kind == "report":
        file = folder / "report.json"
        file.write_text(json.dumps({"schema_version": 3, "warnings": [], "models": {}, "verdict": {"level": "none"}}))
    if model is not None and kind in ("model", "report", "recipe"):
        shutil.copytree(model, folder / "model")
        if kind == "model":
            names = [name for name in _MODEL_FILES if (folder / "model" / name).exists()]
            file = folder / "model" / dice.choice(names)
    return file


def break_bytes(content: bytes, dice: random.Random) -> bytes:
    """Return bytes with one thing wrong that a disk, a transfer or a program may do to a file."""
    at = dice.randrange(len(content) + 1)
    end = min(len(content), at + dice.choice([1, 4, 64, 1024]))
    noise = dice.randbytes(dice.choice([1, 8, 200]))
    return dice.choice(
        [
            b"",
            content[:at],
            content[at:],
            content[:at] + noise + content[end:],
            content[:at] + noise + content[at:],
            content[:at] + bytes(end - at) + content[end:],
            content[:end] + content[at:],
            content + noise,
            content * 2,
            bytes(len(content)),
            noise * 50,
            content.replace(b"1", b"9" * 40),
            content.replace(b":", b""),
            content.replace(b'"', b"'"),
            content.replace(b",", b'"', 3),
            content.replace(b"\n", b"\r", 4),
            content.replace(b"0", b"-1"),
            content.decode("utf-8", "replace").encode("utf-16"),
            content.decode("utf-8", "replace").encode("gb18030", "replace"),
            b"\xef\xbb\xbf" + content,
            b"\xff\xfe" + content,
            b"PK\x03\x04" + content,
            b"PAR1" + content,
            b"\x80\x04\x95" + content,
            b"<html>" + content,
            b"[" * 5000 + content,
            b'{"a":' * 5000,
        ]
    )


def break_json(content: bytes, dice: random.Random) -> bytes:
    """Return JSON with one value replaced by one that it may not have; bytes that are no JSON get broken otherwise."""
    lines = content.decode("utf-8", "replace").splitlines() or [""]
    at = dice.randrange(len(lines)) if content.count(b"\n") > 1 and content.startswith(b"{") else None
    try:
        value = json.loads(content if at is None else lines[at])
    except (ValueError, RecursionError):
        return break_bytes(content, dice)
    odd = dice.choice([
        "null", "NaN", "Infinity", "-1", "1e999", "9" * 5000, '""', '"../../etc/passwd"', '"\\ud83d"', '"\\u0000"',
        "[]", "{}", "true", "[" * 300 + "]" * 300, '[{"a": NaN}]', '"' + "长" * 3000 + '"', "0.5", '{"text": null}',
    ])  # fmt: skip
    places = list(find_places(value))
    if not places:
        return odd.encode()
    holder, key = dice.choice(places)
    if isinstance(holder, dict) and dice.random() < 0.2:
        del holder[key]
        return json.dumps(value).encode()
    holder[key] = "\0here\0"
    text = json.dumps(value).replace(json.dumps("\0here\0"), odd)
    return (text if at is None else "\n".join([*lines[:at], text, *lines[at + 1 :]])).encode()


def find_places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every container and key of a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        yield value, key
        yield from find_places(value[key])


def break_zip(content: bytes, dice: random.Random) -> bytes:
    """Return a zip file with one of its files broken, missing or there twice."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    name = dice.choice(sorted(files))
    if dice.random() < 0.15:
        del files[name]
    elif dice.random() < 0.3:
        files[name] = files[name].replace(b"<v>", b"<v>" + dice.choice([b"-", b"99999", b"x", b"1e9", b"<"]))
    else:
        files[name] = break_bytes(files[name], dice)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for inner, data in files.items():
            archive.writestr(inner, data)
    return out.getvalue()


def break_file(file: Path, kind: str, dice: random.Random) -> None:
    """Break a file in place, or put a folder, a link or nothing there."""
    content = file.read_bytes()
    chance = dice.random()
    if chance < 0.02:
        file.unlink()
        file.mkdir()
    elif chance < 0.03:
        file.unlink()
        file.symlink_to(file.name)
    elif chance < 0.04:
        file.unlink()
    elif kind == "xlsx" and chance < 0.8:
        file.write_bytes(break_zip(content, dice))
    elif file.suffix == ".safetensors" and chance < 0.5:
        length = int.from_bytes(content[:8], "little")
        header = break_json(content[8 : 8 + length], dice)
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    elif (kind in _JSON_KINDS or file.suffix == ".json") and chance < 0.7:
        file.write_bytes(break_json(content, dice))
    else:
        file.write_bytes(break_bytes(content, dice))


def run(words: list[str]) -> tuple[int | str | None, str]:
    """Run a command in this process; return its exit code and all that it said."""
    said = io.StringIO()
    code: int | str | None = 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            run_guarded(lambda: build_app()(words))
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            said.write(f"{type(error).__name__} came through: {error}")
            code = "none"
    return code, said.getvalue()


def list_files(folder: Path) -> dict[str, int]:
    """Return every file with its size; locks, which stay, are left out."""
    return {
        str(path.relative_to(folder)): path.lstat().st_size
        for path in sorted(folder.rglob("*"))
        if (path.is_symlink() or path.is_file()) and not path.name.endswith(".lock")
    }


@contextlib.contextmanager
def work_in(folder: Path) -> Iterator[None]:
    """Work in a folder, with temporary files in another one of its own."""
    before, temporary = Path.cwd(), tempfile.tempdir
    scratch = tempfile.mkdtemp(prefix="fuzz-tmp-")
    os.chdir(folder)
    tempfile.tempdir = scratch
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.chdir(before)
        shutil.rmtree(scratch, ignore_errors=True)


def run_case(folder: Path, kind: str, seed: str, model: Path | None) -> tuple[int | str | None, Failure | None]:
    """Break a file, run a command on it, and look at what it leaves.

    Args:
        folder: empty.
        kind: of `COMMANDS`.
        seed: decides everything else.
        model: folder of an encoder; needed by the kinds that read one.
    """
    dice = random.Random(seed)  # noqa: S311 - a case that can be made again
    command = dice.choice(COMMANDS[kind])
    with work_in(folder):
        file = make_place(folder, kind, model, dice)
        break_file(file, kind, dice)
        words = command.format(file=file.relative_to(folder), suffix=file.suffix[1:] or "csv").split()
        before = list_files(folder)
        signal.alarm(PATIENCE_S)
        try:
            code, said = run(words)
        finally:
            signal.alarm(0)
        after = list_files(folder)
        changed = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
        if code == 0:  # the second run of the same may replace its own
            changed = [name for name in changed if ".part" in name]
        what = ""
        if code not in SOUND_CODES or "Traceback (most" in said or "came through" in said:
            logs = "".join(log.read_text() for log in Path(tempfile.gettempdir()).glob("sentifactory-error-*"))
            what = f"exit code {code}: {said[-600:]}{logs[-1800:]}"
        elif changed:
            what = f"exit code {code}, and these were left or changed: {', '.join(changed[:5])}"
    return code, Failure(seed, kind, " ".join(words), what) if what else None


def _give_up(*_: object) -> None:
    raise TimeoutError(f"no answer within {PATIENCE_S} s")


def fuzz(
    work: Path, kinds: list[str], seeds: list[str], model: Path | None, tell: Callable[[Failure], None]
) -> tuple[Counter[tuple[str, object]], list[Failure]]:
    """Run one case for each seed, of the kinds in turn.

    Returns:
        Counts by kind and exit code, and the failures.
    """
    before = signal.signal(signal.SIGALRM, _give_up)
    counts: Counter[tuple[str, object]] = Counter()
    failures = []
    try:
        for at, seed in enumerate(seeds):
            kind = kinds[at % len(kinds)]
            folder = Path(tempfile.mkdtemp(dir=work))
            code, failure = run_case(folder, kind, seed, model)
            counts[kind, code] += 1
            if failure is not None:
                failures.append(failure)
                tell(failure)
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        signal.signal(signal.SIGALRM, before)
    return counts, failures


def build_model(folder: Path) -> Path:
    """Save a random classifier with a vocabulary of characters."""
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
    values = ("temperature", 1.5, (0.0, 0.0), BINARY_SENTIMENT.name, prompt, None, 0.9, {})
    save_calibration(Calibration(*values, hash_weights(folder)), folder)
    return folder


def main() -> None:
    """Fuzz, and exit with 1 where anything failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="the seed of a single failure, as it was printed")
    parser.add_argument("--kinds", default=",".join(COMMANDS))
    options = parser.parse_args()
    kinds = options.kinds.split(",")
    out = sys.stdout
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        model = build_model(Path(name) / "model") if {*kinds} & {"model", "report", "recipe"} else None
        seeds = [options.only] if options.only else [f"{options.seed}-{at}" for at in range(options.cases)]
        counts, failures = fuzz(
            Path(name),
            kinds,
            seeds,
            model,
            lambda one: print(
                f"--only {one.seed} --kinds {one.kind}: {one.command}\n  {one.what}", file=out, flush=True
            ),
        )
    for (kind, code), number in sorted(counts.items(), key=str):
        print(f"{kind:10} exit {code}: {number}")
    print(f"{len(seeds)} cases, {len(failures)} failures")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
