"""The single place that knows the prompt and the answer.

Training, evaluation and serving import the same `Task`, so that the model is asked in the words it was taught. The
default prompt puts everything fixed before the review: all prompts share a long prefix, which training and inference
compute once. Not covered here: turn markers and token ids, which belong to the model's own chat template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TEXT_SLOT = "{text}"

# What opens a structure is shown in its full-width form, which reads the same to a Chinese reader and to the model:
# "<" begins the chat-control tokens of every supported model ("<|im_end|>", "<end_of_turn>", "</s>", "<image>"); the
# backtick closes the fence of the reference prompt, and so does U+1FEF, which Unicode's NFC (part of Qwen's tokenizer)
# turns into one; "{" begins JSON that looks like an answer, and "{{idx}}", which LLaMA-Factory would fill in.
_NEUTRAL_FORMS = str.maketrans({"<": "＜", "`": "｀", "\u1fef": "｀", "{": "｛"})

# An object that stands in a reply as it stands in the prompt, with this many characters before or after it, was
# repeated and not answered.
_ECHO_BEFORE = 8
_ECHO_AFTER = 5


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked about a review, and what counts as an answer.

    Attributes:
        name: short identifier, used in file names and reports.
        labels: label names in index order; `Review.label` is an index into them.
        answer_key: the key of the JSON answer.
        answer_values: the JSON value that stands for each label, in the same order.
        prompt_template: the user turn, with `{text}` exactly once.
        synonyms: other words for each label that are accepted in files of reviews, in the same order; () for none.
    """

    name: str
    labels: tuple[str, ...]
    answer_key: str
    answer_values: tuple[int | str, ...]
    prompt_template: str
    synonyms: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.prompt_template.count(TEXT_SLOT) != 1:
            raise ValueError(f"task {self.name}: the prompt must hold {TEXT_SLOT} exactly once")
        if self.prompt_template != self.prompt_template.strip():
            raise ValueError(f"task {self.name}: the prompt must not begin or end with blanks")
        if len(self.labels) != len(self.answer_values) or len(set(self.answer_values)) != len(self.labels):
            raise ValueError(f"task {self.name}: every label needs an answer value of its own")
        if self.synonyms and len(self.synonyms) != len(self.labels):
            raise ValueError(f"task {self.name}: synonyms must be given for every label or for none")

    def render_prompt(self, text: str) -> str:
        """Return the user turn for one review.

        The review is data: the characters that could open or close a structure are shown in their full-width form.
        Blanks around it are left out, because some chat templates trim a turn and others do not.

        Example:
            >>> BINARY_SENTIMENT.render_prompt("很好").endswith("评论：很好")
            True
        """
        return self.prompt_template.replace(TEXT_SLOT, text.strip().translate(_NEUTRAL_FORMS), 1)

    def render_answer(self, label: int) -> str:
        """Return the assistant turn for a label index.

        Raises:
            IndexError: when the task has no such label.

        Example:
            >>> BINARY_SENTIMENT.render_answer(1)
            '{"sentiment": 1}'
        """
        if label < 0:
            raise IndexError(f"label {label} is not in 0..{len(self.labels) - 1}")
        return json.dumps({self.answer_key: self.answer_values[label]}, ensure_ascii=False)

    def render_messages(self, text: str, label: int | None = None) -> list[dict[str, str]]:
        """Return the chat messages for a review: the user turn, and the assistant turn when the label is given."""
        messages = [{"role": "user", "content": self.render_prompt(text)}]
        if label is not None:
            messages.append({"role": "assistant", "content": self.render_answer(label)})
        return messages

    def render_alpaca(self, text: str, label: int) -> dict[str, str]:
        """Return a row of LLaMA-Factory's alpaca form. It is trained on in the same words as `render_messages`.

        The prompt stands as a whole in `instruction`: what is in `input` would be joined to it by a line break.
        """
        return {"instruction": self.render_prompt(text), "input": "", "output": self.render_answer(label)}

    def parse_answer(self, reply: str) -> int | None:
        r"""Return the label index that a reply states, or None when it states none, or more than one.

        A reply states a label by a JSON object with the answer key and one of the answer values, fenced or not and
        with or without words around it. Several such objects must agree; an object whose value is not a label (10,
        true, 1.0, "0 or 1") spoils the reply, and so does one that was only repeated from the prompt. Nothing is
        guessed from bare digits or words.

        Example:
            >>> BINARY_SENTIMENT.parse_answer('```json\n{"sentiment": 1}\n```')
            1
            >>> BINARY_SENTIMENT.parse_answer("1") is None
            True
        """
        stated: set[int | None] = set()
        for pairs, start, end in _find_json_objects(reply):
            found = {self._label_of(value) for key, value in pairs if key == self.answer_key}
            if found and self._is_echo(reply, start, end):
                return None
            stated |= found
        return stated.pop() if len(stated) == 1 else None

    def _is_echo(self, reply: str, start: int, end: int) -> bool:
        # An echo of the whole prompt states two answers; one that the token limit cut off may state only the first.
        before = start >= _ECHO_BEFORE and reply[start - _ECHO_BEFORE : end] in self.prompt_template
        after = len(reply) >= end + _ECHO_AFTER and reply[start : end + _ECHO_AFTER] in self.prompt_template
        return before or after

    def _label_of(self, value: Any) -> int | None:
        # `True == 1` and `1.0 == 1` in Python, but neither is the answer that was asked for.
        for label, answer in enumerate(self.answer_values):
            if type(value) is type(answer) and value == answer:
                return label
            if isinstance(value, str) and value == str(answer):
                return label
        return None


class _Pairs(list[tuple[str, Any]]):
    """The key-value pairs of one JSON object, repeated keys included."""


def _find_json_objects(reply: str) -> list[tuple[_Pairs, int, int]]:
    """Return every outermost JSON object in a text with its start and end; what is not JSON is passed over.

    The search ends at an object that the text breaks off in: whatever stands inside that one is not outermost.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found: list[tuple[_Pairs, int, int]] = []
    position = reply.find("{")
    while position != -1:
        try:
            value, end = decoder.raw_decode(reply, position)
        except json.JSONDecodeError as error:
            if error.pos >= len(reply.rstrip()) or error.msg.startswith("Unterminated string"):
                break
            end = position + 1
        except RecursionError:  # nested a thousand deep and more: no answer, and costly to search further
            break
        except ValueError:  # a number of thousands of digits
            end = position + 1
        else:
            found.append((value, position, end))
        position = reply.find("{", end)
    return found


BINARY_SENTIMENT = Task(
    name="binary_sentiment",
    labels=("negative", "positive"),
    answer_key="sentiment",
    answer_values=(0, 1),
    prompt_template=(
        '判断评论的情感，负面为0，正面为1，只用JSON回答：{"sentiment": 0} 或 {"sentiment": 1}\n评论：{text}'
    ),
)

# The prompt of the reference tutorial, with the review in the middle: kept to compare with, and to serve models that
# were tuned with it. No prefix longer than its first sentences is shared between reviews.
REFERENCE_SENTIMENT = Task(
    name="reference_sentiment",
    labels=("negative", "positive"),
    answer_key="sentiment",
    answer_values=(0, 1),
    prompt_template=(
        "请分析下面这段文本的情感倾向。积极的情感记为1，消极的情感记为0。\n"
        "文本：\n```\n{text}\n```\n"
        '请以JSON格式给出结果，键为"sentiment"，值为0或1，不要输出任何其他内容。'
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in (BINARY_SENTIMENT, REFERENCE_SENTIMENT)}
