"""One style for all pages; what is filled in is escaped."""

from __future__ import annotations

from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from sentifactory.pages.rendering import build_environment

ROOMS = {"sentifactory.corpus": "data_report.css", "sentifactory.evaluation": "report.css"}


@pytest.mark.parametrize("room", ROOMS)
def test_a_page_is_escaped_and_forgives_no_missing_name(room: str) -> None:
    environment = build_environment(room, shout=str.upper)
    assert environment.from_string("{{ text }}").render(text="<b>&") == "&lt;b&gt;&amp;"
    assert environment.from_string("{{ 'a' | shout }}{{ '0123456789abc' | shorten_hash }}").render() == "A0123456789ab"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ nobody }}").render()
    both = environment.from_string('{% from "house.html.j2" import t %}{{ t("p = <", "好") }}').render()
    assert both == '<span class="en" lang="en">p\u00a0=\u00a0&lt;</span><span class="zh" lang="zh-CN">好</span>'


@pytest.mark.parametrize(("room", "style"), ROOMS.items())
def test_no_rule_of_the_house_stands_in_a_room_once_more(room: str, style: str) -> None:
    house = (files("sentifactory.pages") / "templates" / "house.css").read_text(encoding="utf-8").splitlines()
    own = (files(room) / "templates" / style).read_text(encoding="utf-8").splitlines()
    rules = {line.strip() for line in house if line.rstrip().endswith("}") and len(line.strip()) > 1}
    assert rules
    assert not rules & {line.strip() for line in own}
