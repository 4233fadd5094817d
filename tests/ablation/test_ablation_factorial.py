"""Main effects and interactions against designs whose effects are known, and contrasts taken by hand."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from pydoe import fracfact_aliasing, fracfact_by_res

from robustsearch.ablation.designs import coded, layout
from robustsearch.ablation.factorial import terms
from robustsearch.errors import UserError

A, B, C = np.array(list(product((-1, 1), repeat=3))).T
SIGNS = {"a": A, "b": B, "c": C}
TRUTH = 0.4 + 0.10 / 2 * A - 0.06 / 2 * B + 0.08 / 2 * A * C
"""Rows' true values: effects (high minus low) of a 0.10, b -0.06, a:c 0.08."""


def simulated(rng: np.random.Generator, spread: float, seeds: int = 3) -> np.ndarray:
    blocks = 0.05 * rng.standard_normal(seeds)
    return TRUTH[:, None] + blocks + spread * rng.standard_normal((len(TRUTH), seeds))


def test_effects_are_differences_of_means() -> None:
    values = simulated(np.random.default_rng(0), 0.01)
    found = {term.name: term for term in terms(values, SIGNS)}
    assert list(found) == ["a", "b", "c", "a:b", "a:c", "b:c"]
    for name, column in {"a": A, "b": B, "c": C, "a:b": A * B, "a:c": A * C, "b:c": B * C}.items():
        assert found[name].effect == pytest.approx(values[column > 0].mean() - values[column < 0].mean())
        assert found[name].aliases == ()
    assert {name for name, term in found.items() if term.p < 0.05 / 6} == {"a", "b", "a:c"}


def test_intervals_hold_the_effects_and_false_positives_are_few() -> None:
    rng = np.random.default_rng(1)
    runs = [{term.name: term for term in terms(simulated(rng, 0.03), SIGNS)} for _ in range(300)]
    for name, truth in {"a": 0.1, "b": -0.06, "c": 0.0, "a:c": 0.08}.items():
        held = np.mean([run[name].low <= truth <= run[name].high for run in runs])
        assert held == pytest.approx(0.95, abs=3 * np.sqrt(0.05 * 0.95 / 300))
    assert np.mean([run["c"].p < 0.05 for run in runs]) < 0.09


def test_images_widen_the_interval_by_their_part() -> None:
    """Without spread between seeds, an effect is a difference of two means of four rows on 200 images each."""
    values = np.repeat(TRUTH[:, None], 3, axis=1)
    (term, *_) = terms(values, SIGNS, images=200)
    p = (200 * TRUTH + 1) / 202
    error = np.sqrt((p * (1 - p) / 200).sum()) / 4
    assert term.high - term.effect == pytest.approx(1.96 * error, rel=1e-3)


def test_a_failed_trial_leaves_the_effects_of_the_others() -> None:
    values = np.repeat(TRUTH[:, None], 3, axis=1) + 1e-4 * np.random.default_rng(2).standard_normal((8, 3))
    values[3, 1] = np.nan
    found = {term.name: term.effect for term in terms(values, SIGNS)}
    assert found["a"] == pytest.approx(0.1, abs=1e-3)
    assert found["a:c"] == pytest.approx(0.08, abs=1e-3)


def test_a_fraction_says_what_it_cannot_tell_apart() -> None:
    factors = {name: {"0": {}, "1": {}} for name in "abcd"}
    signs = coded(layout(factors, 4), factors)
    values = np.random.default_rng(3).random((8, 3))
    found = {term.name: term.aliases for term in terms(values, signs)}
    theirs, _ = fracfact_aliasing(fracfact_by_res(4, 4))
    pairs = {frozenset(line.split(" = ")) for line in theirs if len(line.split(" = ")[0]) == 2}
    assert {frozenset([name, *aliases]) for name, aliases in found.items() if aliases} == {
        frozenset(f"{word[0]}:{word[1]}" for word in pair) for pair in pairs
    }
    assert len(pairs) == 3


def test_without_degrees_of_freedom_there_is_no_error() -> None:
    with pytest.raises(UserError, match="more trials than terms and seeds, but got 4 trials for 3 terms and 1 seeds"):
        terms(np.ones((4, 1)), {"a": [-1, -1, 1, 1], "b": [-1, 1, -1, 1]})
