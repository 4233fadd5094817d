"""Gaining paths against every order there is: what is taken, what is tried, how many rows there may be."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robustsearch.ablation import paths
from robustsearch.ablation.gaining import GainingPath, gain_of
from robustsearch.ablation.paths import differences, step_of
from robustsearch.errors import RecipeError, SpaceError
from robustsearch.recipe import LWTA, Mix, Model, Recipe, Training

START = Recipe(model=Model(depth=10))
END = Recipe(
    model=Model(depth=10, widen_factor=2),
    lwta=LWTA(gate="noisy", gate_noise=0.3),
    mix=Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0),
    training=Training(lr=0.05, trades=2.0),
    draws=4,
)
"""Six changes; `draws` needs `lwta`, and `training.trades` the mix."""
FREE = Recipe(model=Model(depth=16, widen_factor=2), lwta=LWTA(), training=Training(lr=0.05))
"""Four changes in any order."""
Order = tuple[str, ...]


@cache
def orders(start: Recipe, end: Recipe) -> dict[Order, list[Recipe]]:
    """Every order of the changes that passes through recipes alone, and these."""
    changes = differences(start, end)
    found: dict[Order, list[Recipe]] = {}

    def extend(order: Order, recipes: list[Recipe]) -> None:
        if len(order) == len(changes):
            found[order] = recipes
        for name in changes:
            if name not in order:
                with suppress(RecipeError):
                    extend((*order, name), [*recipes, recipes[-1].replace(**changes[name])])

    extend((), [start])
    return found


@cache
def digests(start: Recipe, end: Recipe) -> dict[Order, list[str]]:
    """Those of the recipes after each change."""
    return {order: [recipe.digest for recipe in recipes[1:]] for order, recipes in orders(start, end).items()}


def sizes(start: Recipe, end: Recipe) -> set[int]:
    """Numbers of rows of all orders, counted from the orders that begin alike."""
    known = orders(start, end)
    return {
        1 + sum(len({other[place] for other in known if other[:place] == order[:place]}) for place in range(len(order)))
        for order in known
    }


@cache
def simulated(seed: int, digest: str) -> int:
    """A gain in 0 to 5: with ties."""
    return Random(f"{seed} {digest}").randrange(6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_what_is_taken_is_the_best_of_all_orders_place_by_place(seed: int, back: bool) -> None:
    """Of all orders, the greedy one has the highest gain first, then second, ...; of equal ones the fields' order."""
    start, end = (END, START) if back else (START, END)
    fields = list(differences(start, end))
    best, _ = max(
        digests(start, end).items(),
        key=lambda item: [(simulated(seed, one), -fields.index(name)) for name, one in zip(*item, strict=True)],
    )
    path = GainingPath(start, end)
    gains: dict[str, float] = {}
    while (grown := path.grow(gains.get)).open:
        assert set(grown.open) == set(grown.rows) - set(gains) - {"start", *grown.taken}
        gains |= {row: simulated(seed, grown.rows[row].digest) for row in grown.open}
    assert [step_of(row) for row in grown.taken] == list(enumerate(best, 1))
    assert [start, *(grown.rows[row] for row in grown.taken)] == orders(start, end)[best]
    assert path.fewest <= len(grown.rows) <= path.most
    assert len(set(grown.rows.values())) == len(grown.rows)
    for (_, one), (_, two) in pairwise((row, step_of(row)[0]) for row in list(grown.rows)[1:]):
        assert two - one in (0, 1)


@pytest.mark.parametrize(("start", "end"), [(START, END), (END, START), (START, FREE)])
def test_how_many_rows_there_may_be(start: Recipe, end: Recipe) -> None:
    found, path = sizes(start, end), GainingPath(start, end)
    assert (path.fewest, path.most) == (min(found), max(found))
    assert len(path.longest()) == path.most
    assert list(path.longest().values())[-1] == end


def test_without_rules_each_place_tries_all_that_is_left() -> None:
    path = GainingPath(START, FREE)
    assert path.fewest == path.most == 1 + 4 * 5 / 2
    rounds = path.rounds()
    assert [[row[:2] for row in rows] for rows in rounds] == [["st", *["01"] * 4], ["02"] * 3, ["03"] * 2, ["04"]]
    assert path.grow({}.get).open == dict.fromkeys(list(rounds[0])[1:], 6)


def test_a_single_way_is_taken_unmeasured() -> None:
    """Draws need LWTA: one order, so all is run at once."""
    end = START.replace(lwta=LWTA().model_dump(), draws=2)
    grown = GainingPath(START, end).grow({}.get)
    assert list(grown.rows) == ["start", "01-lwta", "02-draws"]
    assert (grown.taken, grown.open) == (["01-lwta", "02-draws"], {})


def test_where_no_order_leads_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A noisy gate and its noise, one without the other."""
    monkeypatch.setattr(paths, "TIED", {})
    start = START.replace(lwta=LWTA().model_dump())
    end = START.replace(lwta=LWTA(gate="noisy", gate_noise=0.3).model_dump())
    with pytest.raises(SpaceError, match=r"no order of these changes does: lwta\.gate, lwta\.gate_noise"):
        GainingPath(start, end)
    with pytest.raises(SpaceError, match="must lead to another recipe"):
        GainingPath(start, start)


def test_fewer_failures_come_first_then_accuracy() -> None:
    ranked = [[0.2, 0.4], [0.0, 0.0], [None, 1.0], [None, 0.3], [None, None]]
    gains = [gain_of(accuracies) for accuracies in ranked]
    assert gains == sorted(gains, reverse=True)
    assert len(set(gains)) == len(gains)
    assert gains[0] == pytest.approx(0.3)
