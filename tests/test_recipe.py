"""The recipe: validation, round trips, digest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from robustsearch.data import Dataset
from robustsearch.errors import RecipeError
from robustsearch.recipe import (
    IBP,
    LWTA,
    MIX_NAMES,
    PNI,
    Attack,
    Mix,
    Model,
    Recipe,
    Section,
    Smoothing,
    Training,
    field_docs,
)
from robustsearch.trial import Plan, run_trial

ALONE = {"clean": 0, "noise": 0, "fgsm": 0, "pgd": 0, "cw": 0}
LWTA_GATES = st.sampled_from(["sample", "mean", "argmax"])


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    weights = [draw(st.floats(0.01, 1)) for _ in MIX_NAMES]
    mix = Mix(**{name: weight / sum(weights) for name, weight in zip(MIX_NAMES, weights, strict=True)})
    ibp = draw(st.none() | st.builds(IBP, alpha=st.floats(0.1, 10)))
    lwta = draw(st.none() | st.builds(LWTA, units=st.sampled_from([2, 4, 8, 16]), gate=LWTA_GATES, ibp=st.just(ibp)))
    return Recipe(
        model=draw(st.builds(Model, depth=st.sampled_from([10, 34]), widen_factor=st.integers(1, 10))),
        lwta=lwta,
        pni=draw(st.none() | st.builds(PNI, alpha=st.floats(0, 2))),
        smoothing=draw(st.none() | st.builds(Smoothing, sigma=st.floats(0.01, 1))),
        mix=mix,
    )


@given(recipes())
def test_json_and_dictionary_round_trips_give_the_same_recipe(recipe: Recipe) -> None:
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert Recipe.of(recipe.model_dump()) == recipe
    assert Recipe.from_json(recipe.to_json()).digest == recipe.digest
    assert json.loads(recipe.to_json()) == recipe.model_dump(mode="json")


@given(recipes(), recipes())
def test_digests_are_equal_exactly_when_the_recipes_are(one: Recipe, other: Recipe) -> None:
    assert (one.digest == other.digest) == (one == other)


def test_digest_is_the_same_in_another_process() -> None:
    code = "from robustsearch.recipe import Recipe; print(Recipe().digest)"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == Recipe().digest


def test_recipe_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe().draws = 2  # type: ignore[misc]


def test_every_field_is_documented_and_has_a_column() -> None:
    docs = field_docs()
    assert all(len(doc) > 9 and doc.endswith(".") for doc in docs.values()), docs
    assert set(Recipe().flat()) == {"activation", *docs}


@pytest.mark.parametrize(
    ("fields", "rule", "value"),
    [
        ({"mix": {"clean": 0.9}}, "must sum to 1", "sum to 1.4"),
        ({"mix": {"clean": -0.1}}, "greater than or equal to 0", "-0.1"),
        ({"lwta": {"units": 3}}, "`units` must divide the channels", "got 3"),
        ({"lwta": {"gate": "loud"}}, "one of sample, mean, argmax, noisy", "'loud'"),
        ({"lwta": {"gate": "noisy"}}, "`gate_noise` must be given", "gate_noise=None"),
        ({"lwta": {"gate": "mean", "gate_noise": 1}}, "and for no other", "gate='mean'"),
        ({"model": {"depth": 33}}, "`depth` must be 6n + 4", "got 33"),
        ({"model": {"widen_factor": 0}}, "greater than or equal to 1", "got 0"),
        ({"attack": {"epsilon": 8}}, "pixel units of [0, 1]", "got 8"),
        ({"attack": {"epsilon": 0.3, "step": 0.01, "steps": 3}}, "cannot reach its ball", "3 * 0.01 < 0.3"),
        ({"draws": 4}, "random at inference", "draws=4"),
        ({"draws": 4, "lwta": {"gate": "mean"}}, "random at inference", "draws=4"),
        ({"training": {"lr": float("nan")}}, "finite", "nan"),
        ({"wings": 2}, "is no field of a recipe", "2"),
        ({"training": {"trades": 6}}, "`pgd` and `clean` alone", "fgsm=0.125"),
        ({"training": {"trades": 6}, "mix": ALONE | {"clean": 1}}, "`pgd` and `clean` alone", "pgd=0"),
        ({"training": {"trades": 6, "clean_weight": 0.5}}, "`clean_weight` must be 0 with `trades`", "got 0.5"),
        ({"training": {"awp": 0.01}, "mix": ALONE | {"clean": 1}}, "`awp` perturbs weights", "clean=1"),
        ({"training": {"awp": 0}}, "greater than 0", "got 0"),
    ],
)
def test_a_broken_rule_is_named_with_its_value(fields: dict[str, object], rule: str, value: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.of(fields)
    assert rule in str(caught.value)
    assert value in str(caught.value)


def test_trades_and_weight_perturbation_are_off_in_recipes_older_than_they_are() -> None:
    fields = Recipe().model_dump(mode="json")
    for name in ("trades", "awp", "patience"):
        assert fields["training"].pop(name) is None
    assert fields["mix"].pop("fgsm_rs") == 0
    assert Recipe.from_json(json.dumps(fields)) == Recipe()
    both = Recipe.of({"training": {"trades": 6, "awp": 0.005}, "mix": ALONE | {"pgd": 0.75, "clean": 0.25}})
    assert both.describe() == "WRN-34-1, ReLU, TRADES, AWP"


def test_replace_reaches_into_parts_and_validates() -> None:
    recipe = Recipe(lwta=LWTA(ibp=IBP()))
    assert recipe.replace(**{"lwta.ibp.alpha": 3.0}).lwta == LWTA(ibp=IBP(alpha=3.0))
    assert recipe.lwta == LWTA(ibp=IBP())
    with pytest.raises(RecipeError, match=r"`pni` is off"):
        recipe.replace(**{"pni.alpha": 0.1})
    with pytest.raises(RecipeError, match="less than or equal to 10000"):
        recipe.replace(**{"training.epochs": 10**6})


def test_the_report_s_mix_and_training_attack_are_recipes() -> None:
    assert Mix() == Mix(clean=4 / 8, noise=1 / 8, fgsm=1 / 8, pgd=1 / 8, cw=1 / 8)
    assert Attack(epsilon=8 / 255, step=0.007, steps=20).norm == "linf"


def test_stochastic_is_what_can_differ_between_two_predictions() -> None:
    assert not Recipe().is_stochastic
    assert Recipe(lwta=LWTA()).is_stochastic
    assert not Recipe(lwta=LWTA(gate="argmax")).is_stochastic
    assert not Recipe(lwta=LWTA(gate="noisy", gate_noise=0)).is_stochastic
    assert Recipe(pni=PNI()).is_stochastic
    assert Recipe(smoothing=Smoothing()).is_stochastic
    assert not Recipe(smoothing=Smoothing(at_inference=False)).is_stochastic


@pytest.mark.slow
def test_no_field_is_a_dead_option(digits: Dataset, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials with every part on between them read every field, outside the recipe's own module."""
    read: set[tuple[str, str]] = set()

    def spied(part: Section, name: str) -> Any:
        names = type(part).model_fields if name == "model_dump" else {name} & type(part).model_fields.keys()
        caller = Path(sys._getframe(1).f_code.co_filename)
        if names and "robustsearch" in caller.parts and caller.name not in ("recipe.py", "results.py"):
            read.update((type(part).__name__, field) for field in names)
        return BaseModel.__getattribute__(part, name)

    recipes = [
        Recipe(
            model=Model(depth=10),
            lwta=LWTA(gate="noisy", gate_noise=0.5, ibp=IBP()),
            pni=PNI(),
            smoothing=Smoothing(),
            mix=Mix(clean=0.0, noise=0.0, fgsm=0.0, pgd=0.0, cw=1.0),
            attack=Attack(steps=1, step=0.1),
            training=Training(epochs=1, batch_size=40, awp=0.01, clean_weight=0.5),
            draws=2,
        ),
        Recipe(
            model=Model(depth=10),
            mix=Mix(clean=0.0, noise=0.0, fgsm=0.0, pgd=1.0, cw=0.0),
            attack=Attack(steps=1, step=0.1),
            training=Training(epochs=1, batch_size=40, trades=6.0, patience=1),
        ),
    ]
    monkeypatch.setattr(Section, "__getattribute__", spied, raising=False)
    for recipe in recipes:
        run_trial(recipe, 0, lambda row: None, dataset=digits, plan=plan)
    parts = (Recipe, Model, LWTA, IBP, PNI, Smoothing, Mix, Attack, Training)
    assert {(part.__name__, name) for part in parts for name in part.model_fields} - read == set()
