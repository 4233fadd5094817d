"""Designs: which rows, and that they differ in what they should and in nothing else."""

from __future__ import annotations

from itertools import combinations, product
from typing import Any

import numpy as np
import pytest

from robustsearch.ablation.designs import (
    coded,
    fractional_factorial,
    full_factorial,
    layout,
    leave_one_out,
    listed,
    one_in,
)
from robustsearch.errors import SpaceError
from robustsearch.recipe import LWTA, PNI, Model, Recipe, Smoothing, Training

BASE = Recipe(model=Model(depth=10))
CHANGES: dict[str, dict[str, Any]] = {"lwta": {"lwta": {}}, "noise": {"pni": {}}, "rate": {"training.lr": 0.03}}
FACTORS = {
    "width": {"narrow": {}, "wide": {"model.widen_factor": 2}},
    "pni": {"off": {}, "on": {"pni": {"alpha": 0.1}}},
    "lr": {"0.1": {}, "0.03": {"training.lr": 0.03}, "0.01": {"training.lr": 0.01}},
}


def test_one_in_has_the_base_and_each_change_alone() -> None:
    rows = one_in(BASE, CHANGES)
    assert rows == {
        "base": BASE,
        "lwta": Recipe(model=Model(depth=10), lwta=LWTA()),
        "noise": Recipe(model=Model(depth=10), pni=PNI()),
        "rate": Recipe(model=Model(depth=10), training=Training(lr=0.03)),
    }
    assert list(rows) == ["base", "lwta", "noise", "rate"]


def test_leave_one_out_has_all_changes_and_all_but_each() -> None:
    rows = leave_one_out(BASE, CHANGES)
    full = Recipe(model=Model(depth=10), lwta=LWTA(), pni=PNI(), training=Training(lr=0.03))
    assert rows == {
        "all": full,
        "without-lwta": full.replace(lwta=None),
        "without-noise": full.replace(pni=None),
        "without-rate": full.replace(**{"training.lr": 0.1}),
    }


def test_changes_of_one_part_add_up_and_a_part_replaced_takes_its_fields_with_it() -> None:
    base = BASE.replace(lwta={})
    fields = {"a": {"0": {}, "1": {"lwta.units": 4}}, "b": {"0": {}, "1": {"lwta.gate": "mean"}}}
    assert full_factorial(base, fields)["a.1_b.1"].lwta == LWTA(units=4, gate="mean")
    whole = {"units": {"lwta.units": 4}, "gate": {"lwta": {"gate": "mean"}}, "lr": {"training.lr": 0.03}}
    with pytest.raises(SpaceError, match="must differ, but 'all' and 'without-units'"):
        leave_one_out(base, whole)
    off = {"lwta": {"lwta": {}, "lwta.units": 4, "training.lr": 0.03}, "pni": {"lwta": None, "pni": {}}}
    assert leave_one_out(BASE, off)["all"] == BASE.replace(pni={}, **{"training.lr": 0.03})


def test_a_full_factorial_has_every_combination_once() -> None:
    rows = full_factorial(BASE, FACTORS)
    assert list(rows)[:4] == [
        "width.narrow_pni.off_lr.0.1",
        "width.narrow_pni.off_lr.0.03",
        "width.narrow_pni.off_lr.0.01",
        "width.narrow_pni.on_lr.0.1",
    ]
    found = {(r.model.widen_factor, r.pni is not None, r.training.lr) for r in rows.values()}
    assert len(rows) == 12
    assert found == set(product((1, 2), (False, True), (0.1, 0.03, 0.01)))


def signs(count: int, resolution: int) -> np.ndarray:
    factors = {f"f{i}": {"a": {}, "b": {}} for i in range(count)}
    return np.array(list(coded(layout(factors, resolution), factors).values()))


@pytest.mark.parametrize(
    ("count", "resolution", "runs"), [(3, 3, 4), (4, 4, 8), (5, 5, 16), (7, 3, 8), (7, 4, 16), (8, 5, 64)]
)
def test_a_fraction_has_its_resolution(count: int, resolution: int, runs: int) -> None:
    """No product of fewer columns than the resolution is constant: the definition, by brute force over all words."""
    columns = signs(count, resolution)
    assert columns.shape == (count, runs)  # the smallest such fractions (Box, Hunter & Hunter 2005, table 6.22)
    assert len(set(map(tuple, columns.T))) == runs
    for length in range(1, resolution):
        for word in combinations(range(count), length):
            assert abs(columns[list(word)].prod(axis=0).sum()) < runs, word


def test_a_fractional_factorial_is_a_part_of_the_full_one() -> None:
    factors = {name: {"off": {}, "on": change} for name, change in CHANGES.items()}
    full, half = full_factorial(BASE, factors), fractional_factorial(BASE, factors)
    assert len(half) == 4
    assert half.items() <= full.items()


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: listed({}), "at least one row"),
        (lambda: listed({"a b": BASE}), "letters, digits.*but got 'a b'"),
        (lambda: listed({"a-s1": BASE}), "not end in a seed .*but got 'a-s1'"),
        (lambda: listed({"a": 3}), "must be a Recipe, but 'a' is 3"),  # type: ignore[dict-item]
        (lambda: listed({"a": BASE, "b": BASE.replace()}), "must differ, but 'a' and 'b'"),
        (lambda: one_in(BASE, {"none": {"training.lr": 0.1}}), "must differ, but 'base' and 'none'"),
        (lambda: one_in(BASE, {"units": {"lwta.units": 4}}), "row 'units' must be a recipe.*`lwta` is off"),
        (lambda: one_in(BASE, {"more": {"draws": 4}}), "row 'more' .*random at inference"),
        (lambda: full_factorial(BASE, {"a": {"0": {}}}), "at least two levels, but 'a' has 1: 0"),
        (lambda: fractional_factorial(BASE, FACTORS), "two levels in a fraction, but 'lr' has 3"),
        (lambda: layout({"a": {"0": {}, "1": {}}, "b": {"0": {}, "1": {}}}, 3), r"number of factors \(2\), but got 3"),
        (
            lambda: layout({"a": {"x": {}, "x_b.y": {}}, "b": {"z": {}, "y_b.z": {}}}),
            "tell the rows apart",
        ),
    ],
)
def test_what_is_no_design_is_said(make: Any, rule: str) -> None:
    with pytest.raises(SpaceError, match=rule):
        make()


def test_smoothing_can_be_a_row() -> None:
    assert one_in(BASE, {"smoothing": {"smoothing": {"sigma": 0.2}}})["smoothing"].smoothing == Smoothing(sigma=0.2)
