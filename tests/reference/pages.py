"""A page as a browser reads it: whether its tags balance, and what its attributes say."""

from __future__ import annotations

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "link", "br", "hr", "img", "input"}
LOADS = ("src", "href", "xlink:href", "action", "data", "srcset")


class Page(HTMLParser):
    """Fails where tags do not balance; ``found`` has the values of each attribute, ``tags`` all tags in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: defaultdict[str, list[str]] = defaultdict(list)
        self.tags: list[str] = []
        self.html = path.read_text("utf-8")
        self.feed(self.html)
        self.close()
        assert self.open == []

    @property
    def loads(self) -> list[str]:
        """Everything that a browser would fetch or go to."""
        return [value for name in LOADS for value in self.found[name]]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.found[name].append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
