"""What may be wrong with a file, for `fuzz_files.py`: bytes, JSON, zip files and safetensors that were whole."""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
    except (ValueError, RecursionError):  # of bytes that may be anything
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


def break_file(file: Path, dice: random.Random) -> None:
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
    elif file.suffix == ".xlsx" and chance < 0.8:
        file.write_bytes(break_zip(content, dice))
    elif file.suffix == ".safetensors" and chance < 0.5:
        length = int.from_bytes(content[:8], "little")
        header = break_json(content[8 : 8 + length], dice)
        file.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + length :])
    elif file.suffix in (".json", ".jsonl") and chance < 0.7:
        file.write_bytes(break_json(content, dice))
    else:
        file.write_bytes(break_bytes(content, dice))
