"""Parametric noise injection in a WideResNet-34: where, granularity, scale, draws, attack mix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustsearch.recipe import Model, Recipe, Training

from ._parts import suggest_attack, suggest_draws, suggest_mix, suggest_pni

if TYPE_CHECKING:
    from optuna import Trial

STARTS = [
    # The paper's own choice: layer-wise noise on the weights, a quarter of their standard deviation.
    {"pni_where": "weights", "pni_granularity": "layer", "pni_alpha": 0.25, "draws": 1},
]


def suggest(trial: Trial, epsilon: float = 0.1) -> Recipe:
    """A recipe with noise injected into every layer."""
    return Recipe(
        model=Model(depth=34),
        pni=suggest_pni(trial),
        mix=suggest_mix(trial),
        attack=suggest_attack(trial, epsilon),
        training=Training(
            lr=trial.suggest_float("lr", 0.03, 0.2, log=True),
            clean_weight=trial.suggest_float("clean_weight", 0.0, 0.5),
        ),
        draws=suggest_draws(trial, random=True),
    )
