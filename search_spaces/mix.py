"""Adversarial training of a plain WideResNet-34: the attack mix, its strength, and input smoothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustsearch.recipe import Model, Recipe, Training

from ._parts import suggest_attack, suggest_draws, suggest_mix, suggest_smoothing

if TYPE_CHECKING:
    from optuna import Trial

STARTS = [
    # The report's mix (its section 3.1): half of the batches clean, an eighth for each attack.
    {
        f"mix_{name}": value
        for name, value in (("clean", 0.3), ("noise", 0.74), ("fgsm", 0.74), ("pgd", 0.74), ("cw", 0.74))
    },
]


def suggest(trial: Trial, epsilon: float = 0.1) -> Recipe:
    """A recipe that differs from plain training in what the network is shown."""
    smooth = trial.suggest_categorical("smoothing", [False, True])
    smoothing = suggest_smoothing(trial, epsilon) if smooth else None
    return Recipe(
        model=Model(depth=34),
        smoothing=smoothing,
        mix=suggest_mix(trial),
        attack=suggest_attack(trial, epsilon, most_steps=10),
        training=Training(
            lr=trial.suggest_float("lr", 0.03, 0.2, log=True),
            clean_weight=trial.suggest_float("clean_weight", 0.0, 0.5),
        ),
        draws=suggest_draws(trial, random=smoothing is not None and smoothing.at_inference),
    )
