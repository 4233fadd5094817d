"""The interactive page: what it shows, that it asks nothing of a network, and that names cannot break it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pages import Page

from robustsearch.analysis import front_page, style
from robustsearch.analysis.front import front_table
from robustsearch.analysis.front_text import caption
from robustsearch.analysis.load import Run, load
from robustsearch.recipe import Recipe


def written(run: Run, field: str | None = None) -> str:
    points = front_table(run.table)
    colours = style.colours(points, field) if field else None
    return front_page.page(run, points, caption(run, points), colours)


@pytest.fixture(scope="module")
def html(hand_run: Run) -> str:
    return written(hand_run)


@pytest.fixture(scope="module")
def parsed(html: str) -> Page:
    return Page(html)


def test_the_page_names_itself(parsed: Page, hand_run: Run) -> None:
    assert parsed.all("html")[0][0]["lang"] == "en"
    assert parsed.all("title")[0][1] == "Pareto front of by hand"
    assert parsed.all("figcaption")[0][1] == caption(hand_run, front_table(hand_run.table))
    assert parsed.all("noscript")
    assert [attributes["alt"] for attributes, _ in parsed.all("img")] == ["Robust accuracy against latency"] * 2
    kinds = [attributes.get("type") for attributes, _ in parsed.all("script")]
    assert kinds == ["application/json", None]
    assert parsed.all("code")[0][1] == "python -m robustsearch.run --space lwta --name 'by hand'"
    assert any(attributes.get("name") == "viewport" for attributes, _ in parsed.all("meta"))


def test_the_table_holds_the_front(parsed: Page) -> None:
    assert [text for attributes, text in parsed.all("th") if attributes["scope"] == "row"] == ["0001", "0002"]
    cells = [text for _, text in parsed.all("td")]
    first = ["4", "1.00", "1.20", "50.0 [46.0, 54.0]", "1", "100%", "80.0", "52.0", "60.0", "70.0", "–", "passes", ""]
    second = ["4", "2.00", "2.40", "60.0 [56.0, 64.0]", "1", "99%", "90.0", "62.0", "70.0", "80.0", "–", "fails", ""]
    assert cells == first + second


def test_each_button_names_its_point_and_the_page_knows_its_recipe(parsed: Page, hand_folder: Path) -> None:
    found = [attributes for attributes, _ in parsed.all("button") if attributes.get("class") == "copy"]
    buttons = [(attributes["data-trial"], attributes["data-epoch"]) for attributes in found]
    assert buttons == [("0001", "4"), ("0002", "4")]
    data = json.loads(parsed.one("data"))
    assert Recipe.from_json(data["recipes"]["0001"]) == Recipe()
    assert Recipe.from_json(data["recipes"]["0002"]) == Recipe.of({"lwta": {"units": 4, "gate": "mean"}})
    assert data["plain"] == str(hand_folder)


def test_the_page_asks_nothing_of_a_network(parsed: Page) -> None:
    parsed.asks_nothing()


def test_names_cannot_break_the_page(make_run, make_row, parsed: Page) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$title"
    rows = [make_row("0001", 1, 0.5, 1.0, dataset=evil, engine=evil, recipe=Recipe())]
    rows[0]["recipe"] = json.dumps({"evil": evil})
    info = {"name": evil, "command": evil, "versions": {evil: evil}, "created": evil}
    page = Page(written(load(make_run(rows, info=info))))
    for tag in ("script", "img", "b"):
        assert len(page.all(tag)) == len(parsed.all(tag))
    assert page.all("title")[0][1] == f"Pareto front of {evil}"
    assert [a["data-trial"] for a, _ in page.all("button") if a.get("class") == "copy"] == ["0001"]
    assert json.loads(json.loads(page.one("data"))["recipes"]["0001"]) == {"evil": evil}


def test_a_page_without_a_front_says_so(make_run, make_row) -> None:
    page = Page(written(load(make_run([make_row("baseline", 1, 0.1, 2.0, role="baseline")], info={}))))
    assert "No point of the search was measured." in [text for _, text in page.all("strong")]
    assert not page.all("td")
    assert page.all("code")[0][1] == "not recorded"
