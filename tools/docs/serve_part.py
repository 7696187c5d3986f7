"""Writes the load table of the serving guide from the figures of `make bench-serve`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sentifactory.system.formats import DASH, build_table
from tools.docs.page_parts import name_machine

HEADERS = {
    "en": [
        "service", "answers/s", "p50, ms", "p99, ms", "at half load: p50, ms", "p99, ms",
        "overload: sent/s", "refused (429)", "p99 of the 429s, ms", "other failures",
    ],
    "zh": [
        "服务", "每秒回答数", "p50（毫秒）", "p99（毫秒）", "半载：p50（毫秒）", "p99（毫秒）",
        "过载：每秒请求数", "拒绝（429）", "429 的 p99（毫秒）", "其他失败",
    ],
}  # fmt: skip
NAMES = {
    "en": {"plain encoder": "tutorial's FastAPI, encoder", "plain generate": "tutorial's FastAPI, LLM `generate`"},
    "zh": {"plain encoder": "教程式 FastAPI，编码器", "plain generate": "教程式 FastAPI，大模型 `generate`"},
}
CAPTIONS = {
    "en": "{clients} clients, each waiting for its answer, on {machine}; the load generator runs on the same cores.",
    "zh": "{clients} 个客户端，各自等待响应；机器：{machine}；负载生成器使用相同的 CPU 核。",
}


def write_serve_part(bench: Mapping[str, Any], language: str) -> str:
    """Return the table in a language, `en` or `zh`.

    Args:
        bench: the content of serve.json, with its parts `load` and `overload`.
        language: the language of headers and names.
    """
    rows = [HEADERS[language]]
    for name, load in bench["load"].items():
        closed, half = load["closed"], load["open"]
        row = [NAMES[language].get(name, f"`{name}`"), f"{closed['per_s']:.1f}"]
        row += [f"{one['latency_ms'][mark]:.0f}" for one in (closed, half) for mark in ("p50", "p99")]
        rows.append([*row, *_list_overload(bench["overload"].get(name))])
    machine = name_machine(bench["machine"])
    clients = next(iter(bench["load"].values()))["clients"]
    return "\n".join([*build_table(rows), "", CAPTIONS[language].format(clients=clients, machine=machine)])


def _list_overload(overload: Mapping[str, Any] | None) -> list[str]:
    if overload is None:
        return [DASH] * 4
    statuses = overload["statuses"]
    n_refused = statuses.get("429", 0)
    n_failed = overload["requests"] - n_refused - statuses.get("200", 0)
    slowest = (overload["latency_429_ms"] or {}).get("p99")
    refused = f"{n_refused / overload['requests']:.0%}"
    return [f"{overload['sent_per_s']:.0f}", refused, DASH if slowest is None else f"{slowest:.0f}", str(n_failed)]
