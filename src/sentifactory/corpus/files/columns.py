"""Finds the columns of the review, its label and its domain; ambiguous columns are an error, not a guess."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sentifactory.clean_text import drop_unseen
from sentifactory.errors import DataError
from sentifactory.system.formats import cut_text

TEXT_COLUMNS = (
    *("text", "text_a", "review", "reviews", "review_text", "review_body", "content", "comment", "comments"),
    *("sentence", "评论", "评论内容", "评价", "评价内容", "内容", "文本", "正文", "句子"),
)
# Columns of stars, which need a threshold to become labels.
STAR_COLUMNS = ("rating", "ratings", "star", "stars", "score", "评分", "星级", "打分", "星")
# Parts of other column names that say so, if the user names such a column as that of the labels.
_STAR_WORDS = (
    *("star", "rating", "rate", "score", "grade", "point", "overall"),
    *("星", "评分", "打分", "得分", "分数", "评级"),
)
LABEL_COLUMNS = (
    *("label", "labels", "sentiment", "polarity", "标签", "情感", "情感标签", "情感倾向", "情感极性"),
    *STAR_COLUMNS,
)
# Predictions of a model and their confidence, which are never the true label.
_PREDICTED = re.compile(r"(y_)?pred(icted|ictions?|s)?(_.*)?|.*_pred(icted|iction)?|.*预测.*|模型(标签|结果|输出)")
_CONFIDENCE_COLUMNS = ("score", "scores", "confidence", "probability", "prob", "置信度", "概率")
DOMAIN_COLUMNS = ("cat", "category", "domain", "类别", "领域", "品类", "分类", "类目")
_SHOWN_NAMES = 10
_SHOWN_CHARS = 30


@dataclass(frozen=True, slots=True)
class Columns:
    """Positions of the columns in the header.

    Attributes:
        text: of the reviews.
        label: of the labels.
        domain: of the domains; None where there is none.
        has_chats: whether the rows hold chats: then each row is passed on whole, as JSON in place of the text.
    """

    text: int
    label: int
    domain: int | None
    has_chats: bool = False


def find_columns(
    header: Sequence[str],
    where: str,
    *,
    text: str | None = None,
    label: str | None = None,
    domain: str | None = None,
    needs_label: bool = True,
    wants_stars: bool = False,
    can_name: bool = False,
) -> Columns:
    """Return the positions of the columns, by the given names or by well-known ones.

    Args:
        header: the names of all columns.
        where: file and line of the header, for errors.
        text: name of the column of the reviews; None: a well-known name.
        label: likewise.
        domain: likewise.
        needs_label: if False, no label column is searched, and `label` is the position of the text.
        wants_stars: whether the user expects stars: a score next to a label may then be one as well.
        can_name: whether the command has options that name the columns, to be suggested in errors.

    Raises:
        DataError: when a column is missing, or more than one could be meant.
    """
    example = "text or review" if not needs_label else "label,review"
    find = partial(_find_column, header, where=where, can_name=can_name, example=example)
    text_at = find(text, TEXT_COLUMNS, "text")
    if text_at is not None and not needs_label:
        return Columns(text_at, text_at, None)
    predicted = [] if wants_stars else find_predictions(header)
    known = [name for name in LABEL_COLUMNS if name not in map(normalise_name, predicted)]
    label_at = find(label, known, "label")
    domain_at = find(domain, DOMAIN_COLUMNS, "domain", is_needed=False)
    if text_at is None or label_at is None:
        raise RuntimeError("a required column was not found and not reported")
    return Columns(text_at, label_at, domain_at)


def names_stars(name: str) -> bool:
    """Whether the name of a column says that it holds stars.

    Example:
        >>> names_stars("Star Rating"), names_stars("label")
        (True, False)
    """
    return any(word in normalise_name(name) for word in _STAR_WORDS)


def find_predictions(header: Sequence[str]) -> list[str]:
    """Return the names of the columns that hold predictions; next to labels or predictions, so do scores.

    Example:
        >>> find_predictions(["text", "label", "predicted_label", "score"]), find_predictions(["text", "score"])
        (['predicted_label', 'score'], [])
    """
    names = [normalise_name(name) for name in header]
    has_labels = any(_PREDICTED.fullmatch(name) or name in LABEL_COLUMNS[: -len(STAR_COLUMNS)] for name in names)
    return [
        name
        for name, normalised in zip(header, names, strict=True)
        if _PREDICTED.fullmatch(normalised) or (has_labels and normalised in _CONFIDENCE_COLUMNS)
    ]


def normalise_name(name: str) -> str:
    """Return a column name in the form in which names are compared.

    Example:
        >>> normalise_name(" Text-A ")
        'text_a'
    """
    folded = unicodedata.normalize("NFKC", drop_unseen(name)).casefold()
    return "_".join(folded.replace("-", " ").replace("_", " ").split())


def _find_column(
    header: Sequence[str],
    given: str | None,
    known: Sequence[str],
    kind: str,
    *,
    where: str,
    can_name: bool,
    example: str,
    is_needed: bool = True,
) -> int | None:
    option = f"--{kind}_column"
    name_it = f"with {option}" if can_name else f"by preparing the file: sentifactory data prepare FILE {option} NAME"
    if given is not None:
        exact = [position for position, name in enumerate(header) if name == given]
        found = exact or [
            position for position, name in enumerate(header) if normalise_name(name) == normalise_name(given)
        ]
        if not found:
            raise DataError(
                f"There is no column {given!r}; the columns are {_show_names(header)}",
                where=where,
                next_step=f"give one of these with {option}",
                code="column-missing",
            )
    else:
        found = [position for position, name in enumerate(header) if normalise_name(name) in known]
    if len(found) == 1:
        return found[0]
    if not found and not is_needed:
        return None
    if found:
        candidates = [header[position] for position in found]
        is_repeated = len(set(candidates)) < len(candidates)
        raise DataError(
            f"More than one column could be the {kind} column: {_show_names(candidates)}",
            where=where,
            next_step=(
                "give each column a unique name" if is_repeated else f"rename the others, or name one {name_it}"
            ),
            code="column-ambiguous",
        )
    raise DataError(
        f"The columns are {_show_names(header)}, and none of them is a {kind} column",
        where=where,
        expected=f"one column named {', '.join(known[:4])}, {known[-3]}, ...",
        next_step=f"name the columns in the first line, as in {example}, or name this one {name_it}",
        code="column-missing",
    )


def _show_names(names: Sequence[str]) -> str:
    shown = [repr(cut_text(name, _SHOWN_CHARS)) for name in names[:_SHOWN_NAMES]]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN_NAMES else "")
