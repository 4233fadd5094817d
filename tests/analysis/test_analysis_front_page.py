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
    (picture,) = parsed.all("img")  # what is seen until Plotly is there, or without it
    assert picture[0]["alt"] == "Robust accuracy against latency"
    kinds = [attributes.get("type") for attributes, _ in parsed.all("script")]
    assert kinds == ["application/json", "application/json", "text/plain", None]
    assert parsed.all("code")[0][1] == "python -m robustsearch.run --space lwta --name 'by hand'"
    assert any(attributes.get("name") == "viewport" for attributes, _ in parsed.all("meta"))


def test_the_table_holds_the_front(parsed: Page) -> None:
    assert [text for attributes, text in parsed.all("th") if attributes["scope"] == "row"] == ["0001", "0002"]
    cells = [text for _, text in parsed.all("td")]
    first = ["4", "1.00", "1.20", "50.0 [46.0, 54.0]", "1", "100%", "80.0", "52.0", "60.0", "70.0", "–", "passes", ""]
    second = ["4", "2.00", "2.40", "60.0 [56.0, 64.0]", "1", "99%", "90.0", "62.0", "70.0", "80.0", "–", "fails", ""]
    assert cells == first + second


def test_each_button_names_its_point_and_the_page_knows_its_recipe(parsed: Page, hand_folder: Path) -> None:
    buttons = [(attributes["data-trial"], attributes["data-epoch"]) for attributes, _ in parsed.all("button")]
    assert buttons == [("0001", "4"), ("0002", "4")]
    data = json.loads(parsed.one("data"))
    assert Recipe.from_json(data["recipes"]["0001"]) == Recipe()
    assert Recipe.from_json(data["recipes"]["0002"]) == Recipe.of({"lwta": {"units": 4, "gate": "mean"}})
    assert data["plain"] == str(hand_folder)


def test_the_page_asks_nothing_of_a_network(parsed: Page) -> None:
    parsed.asks_nothing()
    assert json.loads(parsed.one("figure"))["config"]["showSendToCloud"] is False


def test_the_plot_holds_the_points(hand_run: Run) -> None:
    points = front_table(hand_run.table)
    traces = front_page.figure(points, None).to_plotly_json()["data"]
    stairs, *rest = traces
    assert list(stairs["x"]) == pytest.approx([1, 1, 2, 2, 5.5])
    assert list(stairs["y"]) == pytest.approx([0, 50, 50, 60, 60])
    found = {trace["name"]: trace for trace in rest if "customdata" in trace}
    places = {name: list(zip(trace["x"], trace["y"], strict=True)) for name, trace in found.items()}
    assert places == {
        "dominated": [pytest.approx((4, 55))],
        "earlier epoch": [pytest.approx(point) for point in [(1, 30), (2, 40), (4, 20)]],
        "fails a masking check": [pytest.approx((2, 60))],
        "plain ReLU WRN-34-1": [pytest.approx((5, 65))],
        "Pareto front": [pytest.approx((1, 50))],
    }
    front = found["Pareto front"]
    assert list(front["error_y"]["array"]) == pytest.approx([4])
    assert list(front["error_y"]["arrayminus"]) == pytest.approx([4])
    assert list(front["error_x"]["array"]) == pytest.approx([0.2])
    assert not found["dominated"]["error_y"]["visible"]
    assert [trace["name"] for trace in rest if "customdata" not in trace] == [*found]


def test_hovering_shows_numbers_and_the_settings_that_are_on_and_differ(hand_run: Run) -> None:
    points = front_table(hand_run.table)
    shared = front_page.shared_settings(points)
    assert shared["model.depth"] == "34"
    assert shared["attack.epsilon"] == "0.1"
    assert not {"training.lr", "activation", "lwta.units", "pni.alpha"} & shared.keys()
    row = next(row for row in points.to_pylist() if row["trial"] == "0002" and row["final"])
    lines = front_page.hover(row, shared).split("<br>")
    assert lines[:6] == [
        "<b>0002</b>, epoch 4",
        "robust 60.0 [56.0, 64.0] % over 1 seed, on the front with probability 99%",
        "natural 90.0, PGD 62.0, FGSM 70.0, CW 80.0 %",
        "latency p50 2.00, p95 2.40 ms",
        "– parameters, – multiply-accumulates",
        "masking checks: fails",
    ]
    own = ["activation = lwta", "lwta.units = 4", "lwta.temperature = 0.67", "lwta.kl_weight = 1", "lwta.gate = mean"]
    assert lines[7:] == [*own, "training.lr = 0.1"]


@pytest.mark.parametrize("field", ["lwta.gate", "training.lr", "lwta.units"])
def test_the_page_is_coloured_as_the_paper_is(hand_run: Run, field: str) -> None:
    points = front_table(hand_run.table)
    colours = style.colours(points, field)
    traces = front_page.figure(points, colours).to_plotly_json()["data"]
    drawn = []
    for trace in traces:
        marker = trace["marker"] if "customdata" in trace else {}
        shades = marker["line"]["color"] if marker.get("symbol") == "x-thin" else marker.get("color")
        shades = [shades] if isinstance(shades, str) else shades
        trials = [trial for trial, _ in trace.get("customdata", [])]
        drawn += [(*key, shade) for *key, shade in zip(trials, trace["x"], shades or [], strict=False)]
    expected = [
        (row["trial"], row["latency_p50"], style.INK if row["role"] == "baseline" else shade)
        for row, shade in zip(points.to_pylist(), colours.points, strict=True)
    ]
    assert sorted(drawn) == sorted(expected)
    assert any(trace["marker"].get("showscale") for trace in traces[1:]) == (colours.norm is not None)
    assert {trace["name"] for trace in traces[1:] if trace.get("name")} >= set(colours.names)


def test_names_cannot_break_the_page(make_run, make_row, parsed: Page) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&$title"
    rows = [make_row("0001", 1, 0.5, 1.0, dataset=evil, engine=evil, recipe=Recipe())]
    rows[0]["recipe"] = json.dumps({"evil": evil})
    info = {"name": evil, "command": evil, "versions": {evil: evil}, "created": evil}
    page = Page(written(load(make_run(rows, info=info))))
    for tag in ("script", "img", "b"):
        assert len(page.all(tag)) == len(parsed.all(tag))
    assert page.all("title")[0][1] == f"Pareto front of {evil}"
    assert page.all("button")[0][0]["data-trial"] == "0001"
    assert json.loads(json.loads(page.one("data"))["recipes"]["0001"]) == {"evil": evil}


def test_a_page_without_a_front_says_so(make_run, make_row) -> None:
    page = Page(written(load(make_run([make_row("baseline", 1, 0.1, 2.0, role="baseline")], info={}))))
    assert "No point of the search was measured." in [text for _, text in page.all("strong")]
    assert not page.all("td")
    assert page.all("code")[0][1] == "not recorded"


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.9, 6, [1, 2, 5]), (0.04, 0.3, [0.05, 0.1, 0.2]), (1, 100, [1, 2, 5, 10, 20, 50, 100])],
)
def test_logarithmic_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert front_page._log_ticks(low, high) == pytest.approx(ticks)
