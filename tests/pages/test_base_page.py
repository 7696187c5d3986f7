"""One style for all pages; inserted text is escaped."""

from __future__ import annotations

from importlib.resources import files

import pytest
from jinja2 import UndefinedError

from sentifactory.pages.base_page import build_environment

PACKAGES = {"sentifactory.corpus.inspection": "data_report.css", "sentifactory.evaluation.report": "report.css"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_page_is_escaped_and_refuses_undefined_names(package: str) -> None:
    environment = build_environment(package, shout=str.upper)
    assert environment.from_string("{{ text }}").render(text="<b>&") == "&lt;b&gt;&amp;"
    assert environment.from_string("{{ 'a' | shout }}{{ '0123456789abc' | shorten_hash }}").render() == "A0123456789ab"
    with pytest.raises(UndefinedError):
        environment.from_string("{{ nobody }}").render()
    both = environment.from_string('{% from "base.html.j2" import t %}{{ t("p = <", "好") }}').render()
    assert both == '<span class="en" lang="en">p\u00a0=\u00a0&lt;</span><span class="zh" lang="zh-CN">好</span>'


@pytest.mark.parametrize(("package", "style"), PACKAGES.items())
def test_no_page_repeats_a_rule_of_the_base_style(package: str, style: str) -> None:
    base = (files("sentifactory.pages") / "templates" / "base.css").read_text(encoding="utf-8").splitlines()
    own = (files(package) / "templates" / style).read_text(encoding="utf-8").splitlines()
    rules = {line.strip() for line in base if line.rstrip().endswith("}") and len(line.strip()) > 1}
    assert rules
    assert not rules & {line.strip() for line in own}
