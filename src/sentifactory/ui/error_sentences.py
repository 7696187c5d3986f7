"""Says the errors of the other packages in the page's words: in both languages, with its controls and no options.

An error's own sentence is English and made for the command line. The page keeps its first part, which names the bad
value, and has a Chinese sentence and a next step of its own for each code (`error_words`). No English sentence is ever
a part of the Chinese one, only the bad values that it quotes.
"""

from __future__ import annotations

import re

from sentifactory.bilingual import Sentence, list_quoted
from sentifactory.errors import ConfigError, DataError, EngineError, LeakError, SentiFactoryError
from sentifactory.redaction import redact_paths
from sentifactory.ui.error_words import ERROR_WORDS, ErrorWords

_LINE = re.compile(r", line (\d+)")
# Words for the command line, which mean nothing on the page.
_OPTION = re.compile(r"--\w|`?sentifactory \w+ ")
_SHOWN_VALUES = 3


class PageError(ConfigError):
    """A mistake that the page itself finds, in both languages.

    Args:
        en: what is wrong and what to do.
        zh: likewise.
        code: stable across changes of wording.
    """

    def __init__(self, en: str, zh: str, *, code: str) -> None:
        super().__init__(en.rstrip("."), code=code)
        self.sentence = Sentence.write(en, zh)


# Errors whose code has no words, by class: none that the page's users can meet.
_OTHERS: dict[type[SentiFactoryError], ErrorWords] = {
    LeakError: ERROR_WORDS["leak"],
    DataError: ErrorWords("文件或数据集无法使用", "Choose another one.", "请选择其他文件或数据集。"),
    EngineError: ErrorWords("模型无法运行", "Choose another model.", "请选择其他模型。"),
    ConfigError: ErrorWords("当前选择无法使用", "Change the choice.", "请修改选项。"),
}


def describe_error(error: SentiFactoryError) -> Sentence:
    """Return what the page says about an error, in both languages and without paths of this machine."""
    if isinstance(error, PageError):
        return Sentence(redact_paths(error.sentence.en), redact_paths(error.sentence.zh))
    what, line = redact_paths(error.what), _LINE.search(error.where)
    words = ERROR_WORDS.get(error.code) or next(one for base, one in _OTHERS.items() if isinstance(error, base))
    values = list_quoted(what)[:_SHOWN_VALUES]
    shown = f"（{'、'.join(values)}）" if values else ""
    if _OPTION.search(what):
        what = f"{what[: _OPTION.search(what).start()].rstrip()} …"  # type: ignore[union-attr]
    return Sentence.write(
        f"{f'Line {line[1]}: ' if line else ''}{what}. {words.next_en}",
        f"{f'第 {line[1]} 行：' if line else ''}{words.zh}{shown}。{words.next_zh}",
    )


def describe_reason(error: SentiFactoryError) -> Sentence:
    """Return what the page says about an error, without the last full stop: as a part of a longer sentence."""
    said = describe_error(error)
    return Sentence(said.en.rstrip("."), said.zh.rstrip("。"))
