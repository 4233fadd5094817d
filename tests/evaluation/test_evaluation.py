"""Evaluation: what an accuracy means, its interval, and that randomness cannot hide in it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

from robustsearch.attacks.gradient import crafting
from robustsearch.attacks.named import pgd
from robustsearch.data import Dataset, to_tensor
from robustsearch.errors import UserError
from robustsearch.evaluation.intervals import wilson
from robustsearch.evaluation.protocols import PROTOCOLS, Adversary, protocol
from robustsearch.evaluation.robust import correctness, evaluate
from robustsearch.models.build import Network, network_for
from robustsearch.recipe import LWTA, PNI, Mix, Model, Recipe, Training
from robustsearch.training.loop import Trainer

PLAIN = Recipe(
    model=Model(depth=10), mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), training=Training(epochs=8, batch_size=40)
)


@pytest.fixture(scope="module")
def trained(digits: Dataset) -> Network:
    """A plainly trained network."""
    return train(PLAIN, digits)


def train(recipe: Recipe, digits: Dataset) -> Network:
    network = network_for(recipe, digits, seed=0)
    trainer = Trainer(network, recipe, digits, 0, torch.device("cpu"))
    for _ in range(recipe.training.epochs):
        trainer.run_epoch()
    return network


def images(digits: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    return to_tensor(digits.train.images, torch.device("cpu")), torch.from_numpy(digits.train.labels.copy())


def measure(network: Network, digits: Dataset, draws: int = 1, **changes: object) -> dict[str, float | int | None]:
    chosen = dataclasses.replace(PROTOCOLS["standard"], **changes)  # type: ignore[arg-type]
    pictures, labels = images(digits)
    return evaluate(network, pictures, labels, protocol=chosen, epsilon=0.1, epsilon_l2=0.5, draws=draws, seed=0)


@pytest.mark.parametrize(("right", "n"), [(0, 10), (10, 10), (7, 10), (180, 200), (1, 300)])
def test_wilson_is_scipy_s(right: int, n: int) -> None:
    theirs = binomtest(right, n).proportion_ci(method="wilson")
    assert wilson(right / n, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_accuracies_are_ordered_and_carry_their_intervals(trained: Network, digits: Dataset) -> None:
    row = measure(trained, digits)
    assert row["n"] == len(digits.train)
    assert row["scoring_draws"] == 1
    assert row["natural"] > 0.9 > row["pgd"]  # type: ignore[operator]
    assert row["robust"] <= min(row["natural"], row["fgsm"], row["pgd"])  # type: ignore[type-var, operator]
    assert row["pgd"] <= row["fgsm"] + 0.03  # type: ignore[operator]
    for name in ("natural", "fgsm", "pgd", "cw", "robust", "robust_l2"):
        assert (row[f"{name}_low"], row[f"{name}_high"]) == wilson(row[name], row["n"])  # type: ignore[arg-type]


def test_natural_accuracy_is_the_plain_one(trained: Network, digits: Dataset) -> None:
    pictures, labels = images(digits)
    with torch.no_grad():
        plain = (trained.eval()(pictures).argmax(1) == labels).double().mean()
    assert measure(trained, digits)["natural"] == pytest.approx(float(plain))


@pytest.mark.slow
def test_a_larger_ball_leaves_less(trained: Network, digits: Dataset) -> None:
    robust = [measure(trained, digits, epsilon=epsilon)["robust"] for epsilon in (0.01, 0.05, 0.2, 1.0)]
    assert robust == sorted(robust, reverse=True)  # type: ignore[type-var]
    assert robust[-1] <= 0.02  # type: ignore[operator]


@pytest.mark.slow
def test_cw_counts_at_its_budget_and_reports_its_norms(trained: Network, digits: Dataset) -> None:
    pictures, labels = images(digits)
    chosen = dataclasses.replace(PROTOCOLS["standard"], adversaries=(Adversary("cw", "cw", "l2", steps=60),))
    rows = [
        evaluate(trained, pictures, labels, protocol=chosen, epsilon=0.1, epsilon_l2=budget, draws=1, seed=0)
        for budget in (1e-6, 0.5, 10.0)
    ]
    assert rows[0]["cw"] == rows[0]["natural"]
    assert rows[0]["cw"] > rows[1]["cw"] > rows[2]["cw"]  # type: ignore[operator]
    assert rows[2]["cw"] <= 0.05  # type: ignore[operator]
    assert 0.05 < rows[0]["cw_norm"] < 5  # type: ignore[operator]


@pytest.mark.slow
def test_the_report_s_cw_changes_almost_nothing(trained: Network, digits: Dataset) -> None:
    row = measure(trained, digits, adversaries=[one for one in PROTOCOLS["report"].adversaries if one.method == "cw"])
    assert row["cw"] >= row["natural"] - 0.03  # type: ignore[operator]


@pytest.mark.slow
def test_broken_images_are_dropped_for_the_same_worst_case_and_less_work(trained: Network, digits: Dataset) -> None:
    """Attacks without randomness, so that both ways attack each image alike."""
    adversaries = (
        Adversary("fgsm", "fgsm"),
        Adversary("pgd", "fgsm", through="network"),
        Adversary("cw", "cw", "l2", steps=20),
        Adversary("pgd_l2", "fgsm", "l2"),
    )
    whole = measure(trained, digits, adversaries=adversaries)
    dropping = measure(trained, digits, adversaries=adversaries, drop_broken=True)
    assert (dropping["robust"], dropping["robust_l2"]) == (whole["robust"], whole["robust_l2"])
    assert whole["attacked"] == 1.0
    assert dropping["attacked"] < 0.95  # type: ignore[operator]
    assert dropping["pgd_l2"] == dropping["robust_l2"]


@pytest.mark.parametrize("through", ["surrogate", "mean", "network"])
@pytest.mark.parametrize("method", ["fgsm", "pgd", "apgd", "square"])
def test_every_method_attacks_through_every_gradient(
    digits: Dataset, method: Literal["fgsm", "pgd", "apgd", "square"], through: Literal["surrogate", "network", "mean"]
) -> None:
    network = network_for(PLAIN.replace(lwta=LWTA().model_dump(), pni=PNI().model_dump()), digits, seed=0)
    few = dataclasses.replace(digits, train=digits.train.take(np.arange(6)))
    adversary = Adversary("pgd", method, steps=3, through=through)
    row = measure(network, few, adversaries=(adversary,), passes=2, least_draws=1, gradient_draws=2)
    assert 0 <= row["robust"] <= row["natural"] <= 1  # type: ignore[operator]


@pytest.mark.slow
def test_the_report_s_pgd_is_weaker_than_its_fgsm_and_than_the_standard(trained: Network, digits: Dataset) -> None:
    """3 steps of 0.01 at epsilon 0.3 cannot reach their ball, from a random start they hardly move."""
    pictures, labels = images(digits)
    report, standard = (
        evaluate(
            trained,
            pictures,
            labels,
            protocol=dataclasses.replace(PROTOCOLS[name], epsilon=0.3),
            epsilon=0.1,
            epsilon_l2=0.5,
            draws=1,
            seed=0,
        )
        for name in ("report", "standard")
    )
    assert report["pgd"] > standard["pgd"] + 0.1  # type: ignore[operator]
    assert report["pgd"] > report["fgsm"]  # type: ignore[operator]
    assert report["epsilon"] == 0.3


@pytest.mark.slow
def test_sampled_gates_are_attacked_through_their_surrogate_which_is_stronger(digits: Dataset) -> None:
    """The gradient through hard, random winners finds less than the one through the mean gate."""
    network = train(PLAIN.replace(lwta=LWTA(kl_weight=0.0).model_dump(), **{"training.epochs": 24}), digits)
    pictures, labels = images(digits)
    adaptive = measure(network, digits)
    generator = torch.Generator().manual_seed(0)
    with crafting(network):
        found = pgd(network, pictures, labels, epsilon=0.1, step=0.0125, steps=20, generator=generator)
        naive = correctness(network, found, labels, draws=1, predictions=10).mean()
    assert adaptive["natural"] > 0.8  # type: ignore[operator]
    assert adaptive["pgd"] < float(naive) - 0.05  # type: ignore[operator]


def test_correctness_is_a_mean_over_fresh_draws(digits: Dataset) -> None:
    network = train(PLAIN.replace(pni=PNI(alpha=1.0).model_dump()), digits).eval()
    pictures, labels = images(digits)
    with torch.no_grad():
        once = correctness(network, pictures, labels, draws=1, predictions=1)
        often = correctness(network, pictures, labels, draws=1, predictions=20)
    assert set(once.tolist()) <= {0.0, 1.0}
    assert ((often > 0) & (often < 1)).any()
    assert torch.equal((often * 20).round(), often * 20)


def test_evaluation_is_repeatable_and_touches_no_global_generator(trained: Network, digits: Dataset) -> None:
    state, few = torch.get_rng_state(), dataclasses.replace(digits, train=digits.train.take(np.arange(20)))
    assert measure(trained, few) == measure(trained, few)
    assert torch.equal(torch.get_rng_state(), state)


def test_protocols_are_named_and_an_unknown_one_lists_them() -> None:
    assert protocol("report").adversaries[1].steps == 3
    assert protocol("standard").scoring_draws(1) == 10
    assert protocol("standard").scoring_draws(8) == 3
    with pytest.raises(UserError, match=r"must be one of quick, standard, full, report, but got 'best'"):
        protocol("best")
    assert all(math.isfinite(row.c) for each in PROTOCOLS.values() for row in each.adversaries)
