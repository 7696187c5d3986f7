"""Reads the pages of the project as a strict browser would: tags, addresses, and the words of each language."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "input", "br", "img", "link", "hr", "line", "rect", "path"}


class PageReader(HTMLParser):
    """Checks that tags are closed in order; collects tags, addresses, and the words of each language."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, str]] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.words: dict[str, list[str]] = {"en": [], "zh": []}
        self.quoted: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.add(tag)
        self.addresses += [str(given[name]) for name in ("src", "href", "action", "data") if name in given]
        assert not [name for name in given if name.startswith("on")], given
        if tag not in VOID:
            self.open.append((tag, given.get("class") or ""))
            if tag == "bdi":
                self.quoted.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1][0] == "bdi":
            self.quoted[-1] += data
            return
        for _, classes in self.open:
            for language in self.words:
                if language in classes.split():
                    self.words[language].append(data)


def read_page(page: str) -> PageReader:
    reader = PageReader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader
