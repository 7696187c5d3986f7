"""Sentences in English and Chinese, and the names of models, labels and parts of a data set in both."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# Not the apostrophe of a genitive.
_QUOTED = re.compile(r"(?<!\w)'([^'\n]{1,60})'(?!\w)")
_HAN_MEETS_LATIN = re.compile(r"(?<=[\u4e00-\u9fff])(?=[A-Za-z0-9+-])|(?<=[A-Za-z0-9%])(?=[\u4e00-\u9fff])")


@dataclass(frozen=True, slots=True)
class Sentence:
    """The same sentence in two languages."""

    en: str
    zh: str

    @classmethod
    def write(cls, en: str, zh: str) -> Sentence:
        """Return the sentence; in the Chinese text a space separates Han characters from Latin letters and digits."""
        return cls(en, _HAN_MEETS_LATIN.sub(" ", zh))


def same_in_both(text: str) -> Sentence:
    """Return a text that is the same in both languages, such as a number."""
    return Sentence(text, text)


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of a table: a value, and below it, in small type, its interval or p-value."""

    text: Sentence
    small: Sentence | None = None

    @classmethod
    def show(cls, text: str, small: str = "") -> Cell:
        """Return a cell whose texts are the same in both languages."""
        return cls(same_in_both(text), same_in_both(small) if small else None)

    @property
    def line(self) -> str:
        """The cell in one line, in English."""
        return self.write_line("en")

    def write_line(self, language: str) -> str:
        """Return the cell in one line, in `en` or `zh`.

        Example:
            >>> Cell(Sentence("none", "无"), Sentence("0 to 1", "0 至 1")).write_line("zh")
            '无 (0 至 1)'
        """
        pick = Picker(language)
        return f"{pick.of(self.text)} ({pick.of(self.small)})" if self.small else pick.of(self.text)


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What a compared model is called.

    Attributes:
        sentence: at the start of a sentence.
        table: in tables and pictures.
        terminal: in the tables on the terminal, which are in English only.
    """

    sentence: Sentence
    table: Sentence
    terminal: str


# In the order in which tables and pictures show the models.
MODEL_NAMES = {
    "majority": ModelNames(
        Sentence("Always the commonest label", "“总答多数类”"), Sentence("Majority label", "多数类"), "majority"
    ),
    "base": ModelNames(Sentence("The base model", "原始模型"), Sentence("Base model", "原始模型"), "base"),
    "few_shot": ModelNames(
        Sentence("The base model with examples", "带示例的原始模型"),
        Sentence("Base model, few-shot", "原始模型，少样本"),
        "base, few-shot",
    ),
    "tuned": ModelNames(Sentence("The tuned model", "微调模型"), Sentence("Tuned model", "微调模型"), "tuned"),
    "tfidf": ModelNames(
        Sentence("TF-IDF", "TF-IDF"), Sentence("TF-IDF + logistic regression", "TF-IDF + 逻辑回归"), "TF-IDF"
    ),
    "tfidf_all": ModelNames(
        Sentence("TF-IDF of all training reviews", "用全部训练评论训练的 TF-IDF"),
        Sentence("TF-IDF, all training reviews", "TF-IDF，全部训练评论"),
        "TF-IDF, all",
    ),
}
LABELS_ZH = {"negative": "负面", "positive": "正面", "neutral": "中性", "unlabelled": "无标签"}
PARTS = {
    "train": ("training", "训练集"),
    "val": ("validation", "验证集"),
    "test": ("test", "测试集"),
    "file": ("file", "文件"),
}


def name_model(name: str) -> Sentence:
    """Return what a compared model is called in a table; names that are not in `MODEL_NAMES` are unchanged."""
    return MODEL_NAMES[name].table if name in MODEL_NAMES else Sentence(name, name)


def list_quoted(text: str) -> list[str]:
    """Return the values that an English sentence quotes, as `repr` writes them, without the quotation marks.

    Example:
        >>> list_quoted("the label is '中评', which the model's task does not have")
        ['中评']
    """
    return [found[1] for found in _QUOTED.finditer(text)]


def lower_first(name: str) -> str:
    """Return the English name of a model as it stands within a sentence.

    Example:
        >>> lower_first("The base model"), lower_first("TF-IDF")
        ('the base model', 'TF-IDF')
    """
    return name if name[1:2].isupper() else name[0].lower() + name[1:]


def name_label(label: str) -> tuple[str, str]:
    """Return a label's name in English and in Chinese."""
    return label, LABELS_ZH.get(label, label)


def list_labels(labels: Iterable[str]) -> Sentence:
    """Return the names of labels, one after the other.

    Example:
        >>> list_labels(["negative", "positive"]).zh
        '负面、正面'
    """
    names = [name_label(label) for label in labels]
    return Sentence(", ".join(en for en, _ in names), "、".join(zh for _, zh in names))


def name_part(part: str) -> tuple[str, str]:
    """Return the name of a part of a data set, such as `train`, in English and in Chinese.

    Example:
        >>> name_part("fold_0/val")
        ('fold 0', '第 0 折')
    """
    if part.startswith("fold_"):
        number = part.removeprefix("fold_").split("/")[0]
        return f"fold {number}", f"第 {number} 折"
    return PARTS.get(part, (part, part))


class Picker:
    """Picks one language, from two texts or from a `Sentence`.

    Args:
        language: `en` or `zh`.
    """

    def __init__(self, language: str) -> None:
        self._language = language

    def __call__(self, en: str, zh: str) -> str:
        """Return one of two texts."""
        return en if self._language == "en" else zh

    def of(self, sentence: Sentence | Mapping[str, str]) -> str:
        """Return the text of a sentence in the language."""
        both = sentence if isinstance(sentence, Mapping) else {"en": sentence.en, "zh": sentence.zh}
        return both[self._language]
