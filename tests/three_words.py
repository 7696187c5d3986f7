"""A task whose labels are words of several tokens, for tests of the engines."""

from sentifactory.task.task import Task

THREE_WORDS = Task(
    name="three_words",
    labels=("positive", "negative", "neutral"),
    answer_key="情感",
    answer_values=("好评", "负面的", "一般"),
    prompt_template="评论：{text}",
)
