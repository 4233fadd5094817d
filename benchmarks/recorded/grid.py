"""The recorded grid, as a search space: size, gate, attack mix, strength and learning rate of small networks."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import optuna

from robustsearch.recipe import LWTA, Attack, Mix, Model, Recipe, Training

if TYPE_CHECKING:
    from optuna import Trial

EPOCHS = 12
CHOICES: dict[str, tuple[str, ...] | tuple[float, ...]] = {
    "size": (0, 1, 2),
    "gate": ("relu", "mean", "sample"),
    "pgd_share": (0.2, 0.55, 0.9),
    "epsilon_ratio": (1.0, 1.5, 2.0),
    "lr_doublings": (0, 1, 2, 3),
}
"""Every value of every setting; 324 recipes in all."""
SIZES = (Model(depth=10, widen_factor=1), Model(depth=16, widen_factor=1), Model(depth=10, widen_factor=2))
MEASURED = (1, 2, 3, 4, 6, 9, 12)
"""Epochs after which each recipe was attacked."""


def suggest(trial: Trial, epsilon: float = 0.1) -> Recipe:
    """A recipe of the grid."""
    gate = trial.suggest_categorical("gate", ["relu", "mean", "sample"])
    share = trial.suggest_float("pgd_share", 0.2, 0.9, step=0.35)
    radius = epsilon * trial.suggest_float("epsilon_ratio", 1.0, 2.0, step=0.5)
    return Recipe(
        model=SIZES[trial.suggest_int("size", 0, 2)],
        lwta=None if gate == "relu" else LWTA(units=2, gate=gate, kl_weight=0.1),
        mix=Mix(clean=1 - share, noise=0, fgsm=0, pgd=share, cw=0),
        attack=Attack(epsilon=radius, steps=3, step=2 * radius / 3, warmup=0.25),
        training=Training(epochs=EPOCHS, lr=0.015 * 2 ** trial.suggest_int("lr_doublings", 0, 3)),
    )


def recipes(epsilon: float) -> list[Recipe]:
    """Every recipe of the grid, in a fixed order."""
    return [
        suggest(optuna.trial.FixedTrial(dict(zip(CHOICES, values, strict=True))), epsilon)
        for values in product(*CHOICES.values())
    ]
