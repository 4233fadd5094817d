"""Paths between recipes: they arrive, by one change at a time, through recipes alone."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustsearch.ablation.paths import differences, path, random_order, row_name, step_of
from robustsearch.errors import SpaceError
from robustsearch.recipe import LWTA, Mix, Model, Recipe, Training
from robustsearch.search import spaces

START = Recipe(model=Model(depth=10))
PGD = Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)
END = Recipe(
    model=Model(depth=10, widen_factor=2),
    lwta=LWTA(gate="noisy", gate_noise=0.3),
    mix=PGD,
    training=Training(lr=0.05, trades=2.0),
    draws=4,
)


def test_differences_are_named_and_whole() -> None:
    assert list(differences(START, END)) == [
        "model.widen_factor",
        "lwta",
        "mix",
        "training.lr",
        "training.trades",
        "draws",
    ]
    other = END.replace(lwta=LWTA(gate="mean", units=4).model_dump(), draws=1)
    assert differences(END, other) == {
        "lwta.units": {"lwta.units": 4},
        "lwta.gate": {"lwta.gate": "mean", "lwta.gate_noise": None},
        "draws": {"draws": 1},
    }
    assert differences(END, END) == {}


def test_a_path_makes_one_change_a_row() -> None:
    rows = path(START, END)
    assert list(rows) == [
        "start",
        "01-model.widen_factor",
        "02-lwta",
        "03-mix",
        "04-training.lr",
        "05-training.trades",
        "06-draws",
    ]
    recipes = list(rows.values())
    assert (recipes[0], recipes[-1]) == (START, END)
    assert all(len(differences(one, two)) == 1 for one, two in pairwise(recipes))


def test_the_order_is_the_one_asked_for() -> None:
    order = ["lwta", "draws", "mix", "training.trades", "training.lr", "model.widen_factor"]
    assert [name[3:] for name in path(START, END, order)][1:] == order


def test_random_orders_differ_and_the_same_seed_gives_the_same() -> None:
    orders = {tuple(random_order(START, END, seed)) for seed in range(60)}
    assert len(orders) > 20
    assert {order[0] for order in orders} == {"model.widen_factor", "lwta", "mix", "training.lr"}
    for order in orders:
        assert order.index("lwta") < order.index("draws")
        assert order.index("mix") < order.index("training.trades")
    assert random_order(START, END, 3) == random_order(START, END, 3)


@pytest.mark.parametrize("step", [(1, "lwta"), (12, "training.lr"), (100, "lwta.gate-x")])
def test_a_row_s_name_says_place_and_change(step: tuple[int, str]) -> None:
    assert step_of(row_name(*step)) == step


@pytest.mark.parametrize("row", ["start", "1-lwta", "base", "01-"])
def test_other_rows_are_no_steps(row: str) -> None:
    assert step_of(row) is None


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_any_two_recipes_of_the_widest_space_have_a_path_either_way(seed: int) -> None:
    samples = [sample.recipe for sample in spaces.find("joint").sample(0.1, seed=seed, count=2)][:2]
    for start, end in (samples, samples[::-1]):
        recipes = list(path(start, end, random_order(start, end, seed)).values())
        assert (recipes[0], recipes[-1]) == (start, end)


@pytest.mark.parametrize(
    ("order", "rule"),
    [
        (["lwta"], r"name each difference once \(model.widen_factor, lwta,.*but got lwta"),
        (
            ["draws", "lwta", "mix", "training.lr", "training.trades", "model.widen_factor"],
            "after 'draws' it is at none: .*random at inference",
        ),
    ],
)
def test_a_wrong_order_is_said(order: list[str], rule: str) -> None:
    with pytest.raises(SpaceError, match=rule):
        path(START, END, order)


def test_a_path_leads_elsewhere() -> None:
    with pytest.raises(SpaceError, match="must lead to another recipe"):
        path(START, START)
