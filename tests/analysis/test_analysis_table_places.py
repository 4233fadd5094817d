"""The table of a gaining path: its steps, what else was tried, and that its choice flatters it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from robustsearch.ablation.statistics import adjusted, paired
from robustsearch.analysis.table import Tables
from robustsearch.analysis.table_numbers import references
from robustsearch.analysis.table_places import Place, places
from robustsearch.recipe import LWTA, Model, Recipe

MakeRow = Callable[..., Any]
TablesOf = Callable[..., Tables]

WIDE, GATED = {"model": Model(widen_factor=2).model_dump()}, {"lwta": LWTA().model_dump()}
RECIPES = {
    "start": Recipe(),
    "01-model.widen_factor": Recipe.of(WIDE),
    "01-lwta": Recipe.of(GATED),
    "02-model.widen_factor": Recipe.of(WIDE | GATED),
    "02-draws": Recipe.of(GATED | {"draws": 4}),
    "03-model.widen_factor": Recipe.of(WIDE | GATED | {"draws": 4}),
}
ROBUST: dict[str, tuple[float | None, ...]] = {
    "start": (0.10, 0.14, 0.12),
    "01-model.widen_factor": (0.40, 0.42, None),
    "01-lwta": (0.30, 0.33, 0.35),
    "02-model.widen_factor": (None, None, None),
    "02-draws": (0.31, 0.36, 0.35),
    "03-model.widen_factor": (0.50, 0.52, 0.54),
}
"""The wider network is best at the first place, but one of its trials failed; at the second all of them did."""
FRONT = "What each row adds to the front's hypervolume, in points of robust accuracy within a budget"
STEPS = ["start", "01-lwta", "02-draws", "03-model.widen_factor"]
REFERENCES = {"02-draws": "01-lwta", "03-model.widen_factor": "02-draws"}


def rows_of(make_row: MakeRow, names: list[str]) -> list[dict[str, Any]]:
    return [
        make_row(
            f"{name}-s{seed}",
            4 if value else 0,
            value,
            1.0 if value else None,
            RECIPES[name],
            seed=seed,
            n=10**9,
            state="completed" if value else "diverged",
        )
        for name in names
        for seed, value in enumerate(ROBUST[name])
    ]


@pytest.fixture(scope="module")
def tables(tables_of: TablesOf, make_row: MakeRow) -> Tables:
    return tables_of(rows_of(make_row, list(RECIPES)))


def lines(text: str, title: str) -> list[list[str]]:
    """The body of the table below a title."""
    body = text.partition(f"## {title}\n")[2].partition("##")[0].strip().partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()[2:]]


def test_only_the_steps_are_in_the_table(tables: Tables) -> None:
    text = tables.markdown()
    assert [line[0] for line in lines(text, "Rows")] == STEPS
    assert [line[0] for line in lines(text, "Rows: differences from the row before")] == STEPS[1:]
    assert [line[0] for line in lines(text, FRONT)] == STEPS


def test_a_step_is_compared_with_the_one_that_was_taken_before(tables: Tables) -> None:
    for name, before in REFERENCES.items():
        theirs = stats.ttest_rel(ROBUST[name], ROBUST[before]).confidence_interval()
        cell = tables.numbers[name]["robust"]
        assert (cell.difference_low, cell.difference_high) == pytest.approx(tuple(theirs), abs=1e-3)


def test_a_step_is_corrected_for_all_that_was_tried(tables: Tables) -> None:
    """Four rows were compared, not three."""
    known = [name for name in list(RECIPES)[1:] if name != "02-model.widen_factor"]
    ours = [[value if value is not None else float("nan") for value in ROBUST[name]] for name in known]
    alone = paired(ours, [ROBUST[REFERENCES.get(name, "start")] for name in known], images=10**9).p
    found = [tables.numbers[name]["robust"].p for name in known]
    assert found == pytest.approx(adjusted(alone))
    assert max(found) > 3 * min(alone)


def test_every_candidate_is_shown_with_its_failures(tables: Tables) -> None:
    found = lines(tables.markdown(), "What was tried at each place")
    assert [(line[0], line[1].partition(" ")[0], line[-2], line[-1]) for line in found] == [
        ("01-model.widen_factor", "41.0", "1", ""),
        ("01-lwta", "32.7", "0", "taken"),
        ("02-model.widen_factor", "–", "3", ""),
        ("02-draws", "34.0", "0", "taken"),
        ("03-model.widen_factor", "52.0", "0", "taken"),
    ]
    assert re.fullmatch(r"\+1\.3 \[[+-][\d.]+, [+-][\d.]+\]", found[3][2])


def test_it_says_that_the_choice_flatters(tables: Tables) -> None:
    notes = tables.markdown().splitlines()
    (note,) = [line for line in notes if "winner's curse" in line]
    assert "the same trials are shown here: so the effects of the steps are optimistic" in note
    assert not [line for line in notes if "not reached its end" in line]


def test_files_tell_steps_from_what_was_tried(tables: Tables, tmp_path: Path) -> None:
    tables.write(tmp_path)
    cells = list(csv.DictReader((tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()))
    titles = {(line["row"], line["table"]) for line in cells if line["column"] == "robust"}
    assert titles == {(name, "Rows") for name in STEPS} | {("01-model.widen_factor", "What was tried at each place")}
    assert r"\_" not in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert r"01-model.widen\_factor" in (tmp_path / "table.tex").read_text(encoding="utf-8")


def test_an_unfinished_path_says_where_it_is(tables_of: TablesOf, make_row: MakeRow) -> None:
    tables = tables_of(rows_of(make_row, list(RECIPES)[:5]), ended=False)
    assert [place.taken for place in tables.found.places] == ["01-lwta", None]
    text = tables.markdown()
    assert [line[0] for line in lines(text, "Rows")] == STEPS[:2]
    assert "The path has not reached its end: nothing is taken yet at place 2." in text


@pytest.mark.parametrize("count", range(7))
def test_places_follow_from_what_was_asked_so_far(count: int) -> None:
    """One row alone at the last place may be the first of several."""
    asked = {name: recipe.model_dump(mode="json") for name, recipe in list(RECIPES.items())[:count]}
    found = places(asked, ended=False)
    wide, second = ("01-model.widen_factor", "02-model.widen_factor")
    assert found == {
        3: [Place(1, [wide, "01-lwta"], None)],
        4: [Place(1, [wide, "01-lwta"], "01-lwta"), Place(2, [second], None)],
        5: [Place(1, [wide, "01-lwta"], "01-lwta"), Place(2, [second, "02-draws"], None)],
        6: [
            Place(1, [wide, "01-lwta"], "01-lwta"),
            Place(2, [second, "02-draws"], "02-draws"),
            Place(3, ["03-model.widen_factor"], None),
        ],
    }.get(count, [])
    if count == 6:
        assert [place.taken for place in places(asked, ended=True)] == STEPS[1:]


def test_without_any_choice_it_is_a_path() -> None:
    one_way = {name: RECIPES[name].model_dump(mode="json") for name in STEPS}
    assert places(one_way, ended=True) == []
    assert references(list(one_way)) == [0, 0, 1, 2]
    assert places({"base": {}, "01-a": {}, "01-b": {}}, ended=True) == []
