"""Does the time that a file takes grow with its size, or with the square of it? Malformed files, found by fuzzing.

Purpose:       for each file, time(2N) is at most 2.3 times time(N) at the large end, and memory stays bounded.
Prerequisites: the train environment; a few hundred MB of disk.
Command:       .venv/bin/python -m tools.reliability.doubling [--mb 4] [--fuzz 20] [--only WORD]
Output:        a table on stdout, one line a file and command; exit code 1 where a ratio was above 2.3 three times.

Each command runs in a process of its own, with 8 GiB of address space. A command that ends in a second is let pass.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

MOST = 2.3
TRIES = 3
QUICK_S = 1.0
MEMORY = 8 << 30
LIMIT_S = 1800
_TOKENS = {
    ".csv": ['"', '""', ",", "\n", "a", "很好", "1", "\r\n", "\r", " ", "\t", '","', '"\n', "\0", "sep=,"],
    ".tsv": ['"', '""', "\t", "\n", "a", "很好", "1", "\r\n", '\t"', '"\t"', ","],
    ".txt": ["评论：", '"', "\n", ",", "{", "[", "很好", "：", "“", "&amp;", "\u200d", "\\u597d"],
    ".jsonl": ["{", "}", "[", "]", '"', ":", ",", '"review"', '"label"', "1", "\n", '{"a":', "\\", "很好"],
    ".json": ["{", "}", "[", "]", '"', ":", ",", '"review"', '"label"', "1", "\n", '{"label":1,"review":"很好"},'],
}
_HEADS = {
    ".csv": "label,review\n",
    ".tsv": "id\tlabel\treview\n",
    ".txt": "label,review\n",
    ".jsonl": "",
    ".json": "[",
}
_SOUND = {
    ".csv": "{l},{w}\n",
    ".tsv": "{n}\t{l}\t{w}\n",
    ".txt": "{l},{w}\n",
    ".jsonl": '{{"label": {l}, "review": "{w}"}}\n',
    ".json": '{{"label": {l}, "review": "{w}"}},\n',
}
# Found by hand or by fuzzing, and kept: ending, unit, and how many sound rows stand beside each one.
_KEPT: list[tuple[str, str, str, int]] = [
    ("quotes that open each other", ".csv", 'a","b\n', 0),
    ("the same among sound rows", ".csv", 'a","b\n', 2),
    ("a quote a line", ".csv", '1,"b\n', 1),
    ("text behind a quote", ".csv", '1,"b"x\n', 1),
    ("cells that do not end", ".tsv", 'a"\t"b\n', 0),
    ("the same among sound rows", ".tsv", 'a"\t"b\n', 2),
    ("an object in another", ".jsonl", '{"label":1,"review":' + "[" * 200 + "]" * 200 + "}\n", 1),
    ("many keys, one twice", ".jsonl", "{" + ",".join(f'"k{n}":1' for n in range(3000)) + ',"k0":1}\n', 1),
    ("entities and joiners", ".csv", '1,"' + "&amp;\u200d\u202a" * 300 + '"\n', 1),
    ("the same beginning", ".csv", "1,这家酒店的服务很好房间也很干净下次还会再来入住的{n}楼\n", 1),
    ("objects that are no list", ".json", '{"label":1,"review":"很好{n}"},', 0),
]


def make_words(number: int) -> str:
    """Return a review that is like no other: near repeats have a search of their own, and no part in this."""
    chance = random.Random(number)  # noqa: S311  # no secret
    return "".join(chr(0x4E00 + chance.randrange(3000)) for _ in range(12))


def write_text(path: Path, n_bytes: int, suffix: str, unit: str, n_sound: int) -> None:
    """Write a file of about so many bytes: one unit again and again, between sound rows that are all different."""
    with path.open("w", encoding="utf-8", newline="", errors="surrogatepass") as stream:
        n_written, number = stream.write(_HEADS[suffix]), 0
        while n_written < n_bytes:
            piece = unit.replace("{n}", str(number))
            for _ in range(n_sound):
                piece += _SOUND[suffix].format(n=number, l=number % 2, w=make_words(number))
                number += 1
            number += 1
            n_written += len(piece.encode("utf-8", "surrogatepass"))
            stream.write(piece)


def write_mixed(path: Path, n_bytes: int) -> None:
    """Write a file whose lines are in UTF-8 and in GBK in turn, none of them for sure."""
    with path.open("wb") as stream:
        stream.write(b"label,review\n")
        lines = ("1,很\n".encode(), "0,差\n".encode("gbk"), b"1,caf\xe9 \x80\n")
        for number in range(n_bytes * len(lines) // sum(map(len, lines))):
            stream.write(lines[number % len(lines)])


def write_long(path: Path, n_bytes: int) -> None:
    """Write one line."""
    with path.open("w", encoding="utf-8") as stream:
        stream.write("label,review\n1,")
        for _ in range(n_bytes >> 10):
            stream.write("x" * 1023 + '"')


def write_workbook(path: Path, n_bytes: int) -> None:
    """Write a workbook with rows that are merged, out of order, empty, and of the wrong width."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(
            "xl/workbook.xml", '<workbook xmlns:r="r"><sheets><sheet name="S" r:id="r1"/></sheets></workbook>'
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            '<Relationships><Relationship Id="r1" Type="x/worksheet" Target="sheet1.xml"/></Relationships>',
        )
        with archive.open("xl/sheet1.xml", "w") as stream:
            cell = '<c r="{}{}" t="inlineStr"><is><t>{}</t></is></c>'
            row = '<row r="{}">{}{}</row><row/>'
            stream.write(b"<worksheet><sheetData>")
            stream.write(row.format(1, cell.format("A", 1, "label"), cell.format("B", 1, "review")).encode())
            n_rows = n_bytes // 200
            for n in range(2, n_rows):
                stream.write(row.format(n, cell.format("A", n, 1), cell.format("B", n, f"很好{n}")).encode())
            stream.write(b"</sheetData><mergeCells>")
            for n in range(2, n_rows, 3):
                stream.write(f'<mergeCell ref="A{n}:A{n_rows}"/>'.encode())
            stream.write(b"</mergeCells></worksheet>")


def list_files(n_fuzz: int) -> Iterator[tuple[str, str, Callable[[Path, int], None]]]:
    """Yield a name, the ending and what writes a file of a given size."""
    for name, suffix, unit, n_sound in _KEPT:
        yield name, suffix, partial(write_text, suffix=suffix, unit=unit, n_sound=n_sound)
    yield "two encodings", ".csv", write_mixed
    yield "one line", ".csv", write_long
    yield "one line", ".jsonl", write_long
    yield "merges", ".xlsx", write_workbook
    for seed in range(n_fuzz):
        chance = random.Random(seed)  # noqa: S311  # no secret
        suffix = chance.choice(sorted(_TOKENS))
        unit = "".join(chance.choices(_TOKENS[suffix], k=chance.randint(2, 12)))
        n_sound = chance.choice((0, 1, 2))
        name = f"fuzz {seed} {json.dumps(unit, ensure_ascii=True)[:40]}"
        yield name, suffix, partial(write_text, suffix=suffix, unit=unit, n_sound=n_sound)


def list_commands(file: Path, small: Path, place: Path) -> dict[str, list[str]]:
    """Return the commands to time, by name."""
    commands = {
        "prepare": ["data", "prepare", str(file), "--name", "d", "--output_dir", str(place / "data")],
        "check": ["data", "check", "--train", str(file), "--test", str(small)],
    }
    if file.suffix in (".csv", ".tsv", ".jsonl", ".txt"):
        out = place / f"out{file.suffix}"
        commands["label"] = ["label", str(file), str(out), "--engine", "tfidf", "--model", str(small)]
    return commands


def time_command(words: list[str]) -> tuple[float, int, int]:
    """Return processor seconds, peak memory in MB, and exit code."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    process = subprocess.Popen(
        [sys.executable, "-m", "sentifactory.cli", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=limit,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    started = time.monotonic()
    while True:
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() - started > LIMIT_S:
            process.kill()
        time.sleep(0.02)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10, process.returncode


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=4.0, help="size of the larger file")
    parser.add_argument("--fuzz", type=int, default=20, help="how many units are made up")
    parser.add_argument("--only", default="", help="only files and commands with this in their name")
    parser.add_argument("--command", default="", help="only this command")
    asked = parser.parse_args()
    n_bytes = int(asked.mb * 2**20)
    n_slow = 0
    print(f"{'file':58} {'command':8} {'N/2 s':>8} {'N s':>8} {'ratio':>6} {'MB':>6} exit", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        small = place / "small.csv"
        small.write_text(
            "label,review\n" + "".join(f"{n % 2},测试评论第{n}条\n" for n in range(200)), encoding="utf-8"
        )
        for name, suffix, write in list_files(asked.fuzz):
            if asked.only not in f"{name} {suffix}":
                continue
            files = [place / f"half{suffix}", place / f"whole{suffix}"]
            for file, size in zip(files, (n_bytes // 2, n_bytes), strict=True):
                write(file, size)
            for command in list_commands(files[0], small, place):
                if asked.command not in command:
                    continue
                for _ in range(TRIES):
                    found = []
                    for file in files:
                        found.append(time_command(list_commands(file, small, place)[command]))
                        for made in (*place.glob("out*"), *place.glob(".out*")):
                            made.unlink()
                        shutil.rmtree(place / "data", ignore_errors=True)
                    ratio = found[1][0] / found[0][0]
                    is_slow = (ratio > MOST and found[1][0] > QUICK_S) or found[1][2] < 0
                    if not is_slow:
                        break
                n_slow += is_slow
                print(
                    f"{name[:50]:50} {suffix:7} {command:8} {found[0][0]:8.2f} {found[1][0]:8.2f} {ratio:6.2f} "
                    f"{found[1][1]:6} {found[1][2]}{'  SLOW' * is_slow}",
                    flush=True,
                )
    return int(n_slow > 0)


if __name__ == "__main__":
    sys.exit(main())
