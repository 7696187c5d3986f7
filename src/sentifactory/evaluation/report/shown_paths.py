"""Reports and ladders as readers elsewhere see them: without the folders of this machine.

Nothing finds a model or a file again by a path in them: models and reviews are known by the hashes of their files.
Reports of earlier versions have whole paths, so that pages and Markdown shorten them as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.redaction import relate_paths

# Texts of reviews, prompts and replies: a slash in them is no path.
_QUOTED = frozenset({"words", "groups", "replies", "prompt_template", "answer_values", "synonyms"})


def hide_folders(content: Any) -> Any:
    """Return the JSON values of a report or ladder with paths relative to the current folder, or only their name.

    Reviews, replies and prompts are unchanged; of predictions only the names of their files are.
    """
    if isinstance(content, Mapping):
        return {key: _hide_in(key, value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(map(hide_folders, content))
    return relate_paths(content)


def _hide_in(key: str, value: Any) -> Any:
    if key == "predictions":
        shown: dict[str, str] = {}  # of each file, which thousands of reviews name
        return [_hide_source(row, shown) for row in value]
    return value if key in _QUOTED else hide_folders(value)


def _hide_source(row: Mapping[str, Any], shown: dict[str, str]) -> Mapping[str, Any]:
    source = row.get("source")
    if not source:
        return row
    file = source["file"]
    if file not in shown:
        shown[file] = relate_paths(file)
    return {**row, "source": {**source, "file": shown[file]}}
