"""Takes the names of this machine's folders out of what is published; nothing else is changed."""

from __future__ import annotations

import re
from typing import Any

# An absolute path of POSIX or Windows, or one below a home folder, up to a blank, a quote or a comma.
_PLACE = re.compile(r"""(?<![\w:/.])(?:~|[A-Za-z]:)?[/\\](?:[^\s"',;:()\\/]+[/\\])*([^\s"',;:()\\/]*)""")


def hide_places(value: Any) -> Any:
    """Return plain JSON values in which absolute paths are cut down to their last part.

    Example:
        >>> hide_places({"file": "/home/me/data/train.jsonl", "url": "https://host/path", "share": "1/2"})
        {'file': 'train.jsonl', 'url': 'https://host/path', 'share': '1/2'}
    """
    if isinstance(value, str):
        return _PLACE.sub(lambda match: match[1], value)
    if isinstance(value, dict):
        return {key: hide_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [hide_places(item) for item in value]
    return value
