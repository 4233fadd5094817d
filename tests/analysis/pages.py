"""A page taken apart, for the tests of what pages hold."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "link", "input"}


class Page(HTMLParser):
    """Elements of a page with their attributes and own text; unbalanced tags are an error."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs), []))
        if tag not in VOID:
            self.open.append(self.found[-1])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.open[-1][2].append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        return [(attributes, "".join(text)) for name, attributes, text in self.found if name == tag]

    def one(self, identity: str) -> str:
        """Own text of the element with an id."""
        (text,) = ("".join(text) for _, attributes, text in self.found if attributes.get("id") == identity)
        return text

    def asks_nothing(self) -> None:
        """Fails if an element loads something from outside the page."""
        for _, attributes, _ in self.found:
            assert not {"action", "srcset"} & attributes.keys()
            assert str(attributes.get("src", "data:image/")).startswith("data:image/")
            assert str(attributes.get("href", "#")).startswith("#")
        (policy,) = (a["content"] for a, _ in self.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
        assert policy == (
            "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
        )


def texts(html: str) -> str:
    """All text of a page outside its scripts, with single spaces."""
    parsed = Page(html)
    shown = ("".join(text) for tag, _, text in parsed.found if tag not in ("script", "style"))
    return " ".join(" ".join(shown).split())
