"""The kind of list that users choose from on the page: gradio's, which passes on whatever the browser says.

Gradio compares a choice with the list that its server knows, which may be another one than the browser shows: after an
upload with other columns, or where another session has trained a model. It then refuses the choice with an English
sentence. Here every action looks up the name that it is given itself, and says in the page's words what is missing.
"""

from __future__ import annotations

from abc import ABCMeta
from functools import cache
from typing import Any

_MAX_CHARS = 1000


@cache
def make_choice_list() -> Any:
    """Return the class of the lists, a kind of gradio's Dropdown."""
    import gradio

    def preprocess(_: Any, chosen: Any) -> str | None:
        return chosen if isinstance(chosen, str) and len(chosen) <= _MAX_CHARS else None

    members = {
        "__doc__": "A list whose choices are checked by the actions.",
        "__module__": __name__,
        "is_template": True,  # the browser shows it as its parent
        "preprocess": preprocess,
    }
    # Not by a class statement: gradio's metaclass would write a stub file beside this module.
    return ABCMeta.__new__(type(gradio.Dropdown), "ChoiceList", (gradio.Dropdown,), members)
