"""Effects beyond rows: paths, factors of a factorial, the part of each row in the front."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from robustsearch.ablation.designs import layout
from robustsearch.analysis.table import Tables
from robustsearch.analysis.table_effects import factors
from robustsearch.analysis.table_numbers import references
from robustsearch.recipe import Recipe

MakeRow = Callable[..., Any]
Rows = list[dict[str, Any]]


FACTORS = {"gate": {"sample": {}, "mean": {}}, "clean_weight": {"0.0": {}, "0.5": {}}, "pni": {"off": {}, "on": {}}}


@pytest.mark.parametrize("resolution", [None, 3])
def test_factors_are_read_from_the_names_that_a_layout_gives(resolution: int | None) -> None:
    rows = layout(FACTORS, resolution)
    first = next(iter(rows.values()))
    found = factors(list(rows))
    assert list(found) == list(FACTORS)
    for factor, signs in found.items():
        assert signs == [-1 if row[factor] == first[factor] else 1 for row in rows.values()]


@pytest.mark.parametrize("rows", [["base", "a.b", "c.d"], ["a.1", "a.2"], ["a.1_b.1", "a.2_b.2", "a.3_b.1"], ["x_y"]])
def test_other_names_are_no_factorial(rows: list[str]) -> None:
    assert factors(rows) == {}


@pytest.mark.slow
def test_a_factorial_has_effects_and_an_interaction(tables_of: Callable[[Rows], Tables], make_row: MakeRow) -> None:
    """Gate adds 20 points, pni 10, and both together 6 more on top."""
    rows = list(layout({"gate": FACTORS["gate"], "pni": FACTORS["pni"]}))
    truth = dict(zip(rows, (0.2, 0.3, 0.4, 0.56), strict=True))
    latency = dict(zip(rows, (1.0, 2.0, 1.0, 2.0), strict=True))
    made = [
        make_row(
            f"{name}-s{seed}",
            4,
            truth[name] + 0.01 * seed,
            latency[name],
            Recipe.of({"training": {"lr": 0.01 * (1 + place)}}),
            seed=seed,
            n=10_000,
        )
        for place, name in enumerate(rows)
        for seed in range(3)
    ]
    tables = tables_of(made)
    found = {(line.name, line.column): line for line in tables.effects if line.kind == "factor"}
    assert found["gate", "robust"].effect == pytest.approx((0.4 + 0.56 - 0.2 - 0.3) / 2)
    assert found["pni", "robust"].effect == pytest.approx((0.3 + 0.56 - 0.2 - 0.4) / 2)
    assert found["gate:pni", "robust"].effect == pytest.approx((0.56 - 0.4 - (0.3 - 0.2)) / 2)
    assert found["pni", "latency_p50"].effect == pytest.approx(2.0)
    assert "| gate:pni | robust | +3.0* [" in tables.markdown()


@pytest.mark.slow
def test_a_row_s_part_in_the_front_is_what_is_lost_without_it(
    tables_of: Callable[[Rows], Tables], make_row: MakeRow
) -> None:
    """50% from the base on, 60% in the upper half of the range; without the first, 40% from twice the base on."""
    points = {"fast": (0.5, 1.0), "strong": (0.6, 10**0.5), "lost": (0.4, 2.0)}
    rows = [
        make_row(f"{name}-s{seed}", 4, robust, ms, Recipe.of({"training": {"lr": ms / 100}}), seed=seed)
        for name, (robust, ms) in points.items()
        for seed in (0, 1)
    ]
    found = {line.name: line for line in tables_of(rows).effects}
    assert found["strong"].effect == pytest.approx(0.05)
    assert found["fast"].effect == pytest.approx(0.5 * 0.5 - 0.4 * (0.5 - np.log10(2)))
    assert (found["lost"].effect, found["lost"].p) == (0, 1)


def test_a_path_is_compared_step_by_step(tables_of: Callable[[Rows], Tables], make_row: MakeRow) -> None:
    rows = {"start": (0.1, 0.14, 0.12), "01-lwta": (0.3, 0.33, 0.35), "02-draws": (0.31, 0.36, 0.35)}
    assert references(list(rows)) == [0, 0, 1]
    assert references(["base", "01-lwta"]) == [0, 0]
    made = [
        make_row(f"{name}-s{seed}", 4, value, 1.0, Recipe.of({"training": {"lr": value}}), seed=seed, n=10**9)
        for name, values in rows.items()
        for seed, value in enumerate(values)
    ]
    tables = tables_of(made)
    cell = tables.numbers["02-draws"]["robust"]
    theirs = stats.ttest_rel(rows["02-draws"], rows["01-lwta"]).confidence_interval()
    assert cell.difference == pytest.approx(0.04 / 3)
    assert (cell.difference_low, cell.difference_high) == pytest.approx(tuple(theirs), abs=1e-3)
    assert "differences from the row before" in tables.markdown()
