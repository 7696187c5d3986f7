"""Checks JSON values by the keywords that `report_schema.json` uses; an unknown keyword is a fault of the schema.

Written here because no schema library is among the dependencies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "number": (int, float),
    "integer": int,
}  # fmt: skip
_ANNOTATIONS = {"$schema", "$defs", "title", "description"}


def find_faults(value: Any, schema: dict[str, Any], root: dict[str, Any], path: str = "$") -> Iterator[str]:
    """Yield every place where a value breaks its schema."""
    for keyword, rule in schema.items():
        if keyword in _ANNOTATIONS:
            continue
        if keyword == "$ref":
            yield from find_faults(value, root["$defs"][rule.removeprefix("#/$defs/")], root, path)
        elif keyword == "anyOf":
            if all(any(find_faults(value, option, root, path)) for option in rule):
                yield f"{path}: fits none of the options"
        elif keyword == "properties":
            for name, inner in rule.items():
                if isinstance(value, dict) and name in value:
                    yield from find_faults(value[name], inner, root, f"{path}.{name}")
        elif keyword == "additionalProperties":
            known = schema.get("properties", {})
            for name in value if isinstance(value, dict) else ():
                if name in known or rule is True:
                    continue
                if rule is False:
                    yield f"{path}: {name} is not known"
                else:
                    yield from find_faults(value[name], rule, root, f"{path}.{name}")
        elif keyword == "items":
            for index, item in enumerate(value if isinstance(value, list) else ()):
                yield from find_faults(item, rule, root, f"{path}[{index}]")
        elif not _obeys(value, keyword, rule):
            yield f"{path}: {str(value)[:80]!r} breaks {keyword} {rule}"


def _obeys(value: Any, keyword: str, rule: Any) -> bool:
    if keyword == "type":
        names = [rule] if isinstance(rule, str) else rule
        is_bool = isinstance(value, bool)
        return any(isinstance(value, _TYPES[name]) and (not is_bool or name == "boolean") for name in names)
    checks = {
        "required": lambda: all(name in value for name in rule),
        "enum": lambda: value in rule,
        "const": lambda: value == rule,
        "minimum": lambda: value >= rule,
        "maximum": lambda: value <= rule,
        "exclusiveMinimum": lambda: value > rule,
        "minItems": lambda: len(value) >= rule,
        "maxItems": lambda: len(value) <= rule,
        "pattern": lambda: re.search(rule, value) is not None,
    }
    return bool(checks[keyword]())
