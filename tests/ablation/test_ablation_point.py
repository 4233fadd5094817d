"""Ablations of one recipe: every row is what its name says, worked out by hand."""

from __future__ import annotations

import pytest

from robustsearch.ablation.point import components, design
from robustsearch.errors import SpaceError
from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Model, Recipe, Training

PLAIN = Recipe(mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0))
PGD = Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0)
WHOLE = Recipe(
    model=Model(widen_factor=2),
    lwta=LWTA(units=4, gate="noisy", gate_noise=0.5, ibp=IBP(alpha=2)),
    mix=PGD,
    attack=Attack(epsilon=0.2, step=0.1, steps=2),
    training=Training(lr=0.05, awp=0.005, clean_weight=0.3),
    draws=4,
)


def test_components_are_what_the_recipe_adds() -> None:
    found = components(PLAIN, WHOLE)
    assert list(found) == ["width", "lwta", "gate", "ibp", "attacks", "lr", "awp", "draws"]
    assert found["attacks"].keys() == {"mix", "attack", "training.clean_weight"}
    assert components(WHOLE, WHOLE) == {}


def test_leave_one_out_drops_what_stood_on_it() -> None:
    rows = design("leave-one-out", PLAIN, WHOLE)
    assert rows["all"] == WHOLE
    expected = {
        "without-width": {"model.widen_factor": 1},
        "without-lwta-gate-ibp-draws": {"lwta": None, "draws": 1},
        "without-gate": {"lwta.gate": "sample", "lwta.gate_noise": None},
        "without-ibp": {"lwta.ibp": None},
        "without-attacks-awp": {"mix": PLAIN.mix, "attack": PLAIN.attack, "training.clean_weight": 0.0}
        | {"training.awp": None},
        "without-lr": {"training.lr": 0.1},
        "without-awp": {"training.awp": None},
        "without-draws": {"draws": 1},
    }
    assert {name: WHOLE.replace(**change) for name, change in expected.items()} == {
        name: recipe for name, recipe in rows.items() if name != "all"
    }


def test_draws_stay_where_something_else_is_random() -> None:
    rows = design("leave-one-out", PLAIN, WHOLE.replace(pni=PNI().model_dump()))
    assert rows["without-lwta-gate-ibp"].draws == 4
    assert "without-lwta-gate-ibp-draws" not in rows


def test_one_in_has_each_component_that_can_stand_alone() -> None:
    rows = design("one-in", PLAIN, WHOLE)
    assert list(rows) == ["base", "width", "lwta", "attacks", "lr"]
    assert rows["base"] == PLAIN
    assert rows["lwta"] == PLAIN.replace(lwta=LWTA(units=4).model_dump())
    assert rows["width"] == PLAIN.replace(**{"model.widen_factor": 2})


def test_paths_lead_from_one_to_the_other_and_random_ones_follow_their_seed() -> None:
    rows = list(design("path", PLAIN, WHOLE).values())
    assert (rows[0], rows[-1]) == (PLAIN, WHOLE)
    orders = [tuple(design("random-path", PLAIN, WHOLE, seed)) for seed in (0, 0, 1, 2, 3)]
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_a_gaining_path_leads_from_one_to_the_other() -> None:
    found = design("gaining-path", PLAIN, WHOLE)
    assert (found.start, found.end) == (PLAIN, WHOLE)
    assert list(found.rounds()[0])[:3] == ["start", "01-model.widen_factor", "01-lwta"]


def test_nothing_to_ablate_is_said() -> None:
    with pytest.raises(
        SpaceError, match=r"must be one of leave-one-out, .*random-path, gaining-path, but got 'halves'"
    ):
        design("halves", PLAIN, WHOLE)
    with pytest.raises(SpaceError, match="differs from the plain one"):
        design("one-in", PLAIN, PLAIN)
