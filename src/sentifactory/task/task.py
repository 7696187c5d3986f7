"""Defines the prompt and the answer, for training, evaluation and serving alike.

A model is therefore asked with the prompt that it was trained with. The default prompt puts everything fixed before
the review, so that all prompts share a long prefix, which training and inference compute once. Turn markers and token
ids are not covered here: they belong to the model's chat template.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sentifactory.system.json_text import DeepJsonError, parse_json_at

TEXT_SLOT = "{text}"

# Characters that open a structure are replaced by their full-width forms, which read the same: "<" starts the chat
# control tokens of every supported model ("<|im_end|>", "<end_of_turn>", "</s>", "<image>"); the backtick closes the
# fence of the reference prompt, and so does U+1FEF, which Unicode's NFC (part of Qwen's tokenizer) turns into one; "{"
# starts JSON that looks like an answer, and "{{idx}}", which LLaMA-Factory would fill in.
_NEUTRAL_FORMS = str.maketrans({"<": "＜", "`": "｀", "\u1fef": "｀", "{": "｛"})

# An object in a reply that matches the prompt together with this many characters before or after it is an echo of the
# prompt and not an answer.
_ECHO_BEFORE = 8
_ECHO_AFTER = 5


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked about a review, and what counts as an answer.

    Attributes:
        name: short identifier, used in file names and reports.
        labels: label names in index order; `Review.label` is an index into them.
        answer_key: the key of the JSON answer.
        answer_values: the JSON value of each label, in the same order.
        prompt_template: the user turn, with `{text}` exactly once.
        synonyms: other words for each label in files of reviews, in the same order; () for none.
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

        Characters of the review that could open or close a structure are replaced by their full-width forms. White
        space around it is removed, because some chat templates trim a turn and others do not.

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
        """Return a row in LLaMA-Factory's alpaca format; it gives the same training text as `render_messages`.

        The whole prompt is in `instruction`: LLaMA-Factory would join `input` to it with a line break.
        """
        return {"instruction": self.render_prompt(text), "input": "", "output": self.render_answer(label)}

    def parse_answer(self, reply: str) -> int | None:
        r"""Return the label index that a reply states, or None when it states none, or more than one.

        A reply states a label by a JSON object with the answer key and an answer value, with or without a code fence
        or text around it. Several such objects must agree; the reply is invalid if one of them has a value that is no
        label (10, true, 1.0, "0 or 1") or is an echo of the prompt. Bare digits and words are never interpreted. Where
        the prompt has examples, a further question that the reply goes on with is not part of the answer.

        Example:
            >>> BINARY_SENTIMENT.parse_answer('```json\n{"sentiment": 1}\n```')
            1
            >>> BINARY_SENTIMENT.parse_answer("1") is None
            True
        """
        stated: set[int | None] = set()
        reply = self._cut_next_question(reply)
        for pairs, start, end in _find_json_objects(reply):
            found = {self._label_of(value) for key, value in pairs if key == self.answer_key}
            if found and self._is_echo(reply, start, end):
                return None
            stated |= found
        return stated.pop() if len(stated) == 1 else None

    def _cut_next_question(self, reply: str) -> str:
        # After examples (`few_shot.add_examples`), models answer and go on with another question, or its beginning.
        opening = self.prompt_template[:_ECHO_BEFORE]
        answer, _, rest = reply.lstrip().partition("\n\n")
        goes_on = rest.startswith(opening) or opening.startswith(rest)
        return answer if goes_on and f"\n\n{opening}" in self.prompt_template else reply

    def _is_echo(self, reply: str, start: int, end: int) -> bool:
        # An echo of the whole prompt contains two answers, a truncated echo perhaps only the first.
        before = start >= _ECHO_BEFORE and reply[start - _ECHO_BEFORE : end] in self.prompt_template
        after = len(reply) >= end + _ECHO_AFTER and reply[start : end + _ECHO_AFTER] in self.prompt_template
        return before or after

    def _label_of(self, value: Any) -> int | None:
        # In Python `True == 1` and `1.0 == 1`, but neither is a valid answer.
        for label, answer in enumerate(self.answer_values):
            if type(value) is type(answer) and value == answer:
                return label
            if isinstance(value, str) and value == str(answer):
                return label
        return None


class _Pairs(list[tuple[str, Any]]):
    """The key-value pairs of one JSON object, repeated keys included."""


def _find_json_objects(reply: str) -> list[tuple[_Pairs, int, int]]:
    """Return every outermost JSON object in a text with its start and end; other text is skipped.

    The search stops at an object that is truncated by the end of the text: objects inside it are not outermost.
    """
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found: list[tuple[_Pairs, int, int]] = []
    position = reply.find("{")
    while position != -1:
        try:
            value, end = parse_json_at(reply, position, decoder)
        except json.JSONDecodeError as error:
            if error.pos >= len(reply.rstrip()) or error.msg.startswith("Unterminated string"):
                break
            end = position + 1
        except DeepJsonError:  # nested more than a thousand levels: not an answer, and expensive to search further
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

# The prompt of the reference tutorial, for comparison and for models that were tuned with it. The review is in the
# middle, so that reviews share only the first sentences as a prefix.
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

# A copy of examples/tasks/three_classes.yaml, so that a file with neutral reviews has a task wherever a command runs.
THREE_CLASSES = Task(
    name="three_classes",
    labels=("negative", "neutral", "positive"),
    answer_key="sentiment",
    answer_values=(0, 1, 2),
    prompt_template=(
        "判断评论的情感，负面为0，中性为1，正面为2，"
        '只用JSON回答：{"sentiment": 0}、{"sentiment": 1} 或 {"sentiment": 2}\n'
        "评论：{text}"
    ),
    synonyms=((), ("一般",), ()),
)

TASKS: dict[str, Task] = {task.name: task for task in (BINARY_SENTIMENT, REFERENCE_SENTIMENT)}
# What `--task` knows by name. A user's file may have the name of one that is not in `TASKS`.
NAMED_TASKS: dict[str, Task] = TASKS | {THREE_CLASSES.name: THREE_CLASSES}
