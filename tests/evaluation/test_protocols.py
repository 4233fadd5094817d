"""Protocols: which of their attacks a network meets, and that these are as strong as their names say."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from robustsearch.attacks.carlini_wagner import cw_search
from robustsearch.attacks.gradient import crafting
from robustsearch.data import Dataset, to_tensor
from robustsearch.evaluation.methods import METHODS
from robustsearch.evaluation.protocols import PROTOCOLS, Protocol
from robustsearch.evaluation.robust import evaluate
from robustsearch.models.build import Network, build_network, network_for
from robustsearch.models.stochastic import mean_network, surrogate
from robustsearch.recipe import LWTA, PNI, Attack, Mix, Model, Recipe, Smoothing, Training
from robustsearch.results import COLUMNS
from robustsearch.training.loop import Trainer

CPU = torch.device("cpu")
ROBUST = Recipe(
    model=Model(depth=10),
    mix=Mix(clean=0.1, noise=0, fgsm=0, pgd=0.9, cw=0),
    attack=Attack(epsilon=0.15, step=0.1, steps=3),
    training=Training(epochs=8, batch_size=40),
)


def untrained(digits: Dataset, classes: int = 10, **fields: Any) -> Network:
    recipe = Recipe(model=Model(depth=10), **fields)
    return build_network(recipe, shape=digits.shape, classes=classes, mean=digits.mean, std=digits.std, seed=0).eval()


def pictures(digits: Dataset, n: int, classes: int = 10) -> tuple[Tensor, Tensor]:
    chosen = np.flatnonzero(digits.train.labels < classes)[:n]
    return to_tensor(digits.train.images[chosen], CPU), torch.from_numpy(digits.train.labels[chosen])


def shortened(name: str, steps: int = 2) -> Protocol:
    rows = [
        dataclasses.replace(row, steps=min(row.steps, steps), searches=min(row.searches, 2))
        for row in PROTOCOLS[name].adversaries
    ]
    return dataclasses.replace(PROTOCOLS[name], passes=1, least_draws=1, gradient_draws=2, adversaries=tuple(rows))


def measure(network: Network, given: tuple[Tensor, Tensor], protocol: Protocol, epsilon: float = 0.1) -> dict[str, Any]:
    return evaluate(network, *given, protocol=protocol, epsilon=epsilon, epsilon_l2=0.5, draws=1, seed=0)


@pytest.mark.parametrize(
    ("classes", "left_out"), [(2, {"apgd_dlr", "apgd_targeted"}), (3, {"apgd_targeted"}), (10, set())]
)
def test_logit_ratios_are_left_out_where_there_are_too_few_classes(
    digits: Dataset, classes: int, left_out: set[str]
) -> None:
    network = untrained(digits, classes, lwta=LWTA(gate="argmax"))
    row = measure(network, pictures(digits, 10, classes), shortened("full"))
    columns = {adversary.column for adversary in PROTOCOLS["full"].adversaries}
    assert columns - row.keys() == left_out
    assert 0 <= row["robust"] <= row["natural"] <= 1


@pytest.mark.parametrize("name", ["quick", "standard", "full"])
@pytest.mark.parametrize(
    ("fields", "hard"),
    [
        ({}, False),
        ({"pni": PNI()}, False),
        ({"lwta": LWTA(gate="mean")}, False),
        ({"lwta": LWTA(gate="argmax")}, True),
        ({"lwta": LWTA(gate="sample")}, True),
    ],
)
def test_only_hard_gates_meet_the_attacks_made_for_them(
    digits: Dataset, name: str, fields: dict[str, Any], hard: bool
) -> None:
    row = measure(untrained(digits, **fields), pictures(digits, 4), shortened(name))
    assert ("straight" in row) == hard
    assert ("naive" in row) == (name == "full" or (hard and name == "standard"))


@pytest.mark.slow
def test_argmax_gates_fall_to_the_attacks_made_for_them(digits: Dataset) -> None:
    """On all of digits they leave 69 and 63% in place of 80 and 76 (WRN-10 and 16), 100 steps of one 62 and 54%."""
    recipe = ROBUST.replace(lwta=LWTA(gate="argmax", kl_weight=0.1).model_dump(), **{"training.epochs": 24})
    network = network_for(recipe, digits, seed=0)
    trainer = Trainer(network, recipe, digits, 0, CPU)
    for _ in range(recipe.training.epochs):
        trainer.run_epoch()
    row = measure(network.eval(), pictures(digits, 120), PROTOCOLS["standard"])
    assert row["natural"] > 0.8
    assert row["robust"] <= min(row["naive"], row["straight"])
    assert row["robust"] < min(row["fgsm"], row["pgd"]) - 0.05


def test_the_search_of_cw_gives_the_norms_of_all_images_that_were_right(digits: Dataset) -> None:
    """It comes first of its norm: after other attacks only the images that are hard to break would be left."""
    network = untrained(digits, lwta=LWTA(gate="mean"))
    images, _ = pictures(digits, 6)
    labels = network(images).argmax(1)
    full = PROTOCOLS["full"]
    rows = tuple(
        dataclasses.replace(row, steps=min(row.steps, 25), searches=min(row.searches, 3))
        for row in full.adversaries
        if row.norm == "l2"
    )
    found = measure(network, (images, labels), dataclasses.replace(full, adversaries=rows))
    cw = next(row for row in rows if row.method == "cw")
    with crafting(network), surrogate(network):
        expected = cw_search(network, images, labels, searches=cw.searches, steps=cw.steps, c_start=cw.c, lr=cw.lr)
    norms = (expected - images).flatten(1).norm(dim=1)
    assert (norms > 0).all()
    assert found["cw_norm"] == pytest.approx(float(norms.median()), rel=1e-4)


@pytest.mark.slow
def test_an_example_is_scored_on_draws_that_did_not_find_it(digits: Dataset) -> None:
    """In a ball of nearly no radius no attack can do anything, so its score is the natural one but for fresh draws.

    Scored on the draws that chose it, the worst of 20 points would be wrong for nearly every image.
    """
    network = untrained(digits, smoothing=Smoothing(sigma=0.5))
    images, _ = pictures(digits, 100)
    with mean_network(network):
        labels = network(images).argmax(1)
    standard = PROTOCOLS["standard"]
    rows = tuple(row for row in standard.adversaries if row.norm == "linf")
    row = measure(network, (images, labels), dataclasses.replace(standard, adversaries=rows, passes=40), epsilon=1e-9)
    assert 0.2 < row["natural"] < 0.95
    for column in ("fgsm", "pgd"):
        # 4,000 draws on each side: a standard error of at most 0.011.
        assert abs(row[column] - row["natural"]) < 0.045


def test_every_adversary_has_its_method_and_its_column() -> None:
    for protocol in PROTOCOLS.values():
        for adversary in protocol.adversaries:
            assert adversary.method in METHODS
            assert {adversary.column, f"{adversary.column}_low", f"{adversary.column}_high"} <= set(COLUMNS)
