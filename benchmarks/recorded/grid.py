"""The recorded grid, as a search space: size, activation, gate and draws, attack strength and learning rate.

It is made so that robustness has its price. Recipes are attacked at twice the usual radius of digits, where a wider or
deeper network is more robust than a small one, and slower; a gate and its draws decide at inference only, so that all
of them share one training.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import optuna

from robustsearch.recipe import LWTA, Attack, Mix, Model, Recipe, Training

if TYPE_CHECKING:
    from optuna import Trial

EPSILON = 0.2
"""Of the evaluation, l_inf: it separates recipes better than the dataset's 0.1 (docs/log.md)."""
EPOCHS = 8
MEASURED = (2, 4, 8)
"""Epochs after which each recipe was attacked."""
SIZES = {
    size: Model(depth=depth, widen_factor=width)
    for size, depth, width in (("10-1", 10, 1), ("16-1", 16, 1), ("10-2", 10, 2), ("10-3", 10, 3))
}
HEADS = ("relu", "mean", "sample", "sample of 4")
"""What comes after each convolution: ReLU, or LWTA with this gate, four draws of it averaged in the last."""
RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5)
CHOICES: dict[str, tuple[str, ...] | tuple[float, ...]] = {
    "size": tuple(SIZES),
    "head": HEADS,
    "epsilon_ratio": RATIOS,
    "lr_doublings": (0, 1, 2, 3),
}
"""Every value of every setting; 320 recipes in all."""


def suggest(trial: Trial, epsilon: float = EPSILON) -> Recipe:
    """A recipe of the grid."""
    size = trial.suggest_categorical("size", list(SIZES))
    head = trial.suggest_categorical("head", list(HEADS))
    return _recipe(trial, size, head, epsilon)


def suggest_by_conditions(trial: Trial, epsilon: float = EPSILON) -> Recipe:
    """The same recipes, from settings that depend on others: width on depth, gate on activation, draws on gate."""
    size = "16-1"
    if trial.suggest_categorical("depth", [10, 16]) == 10:
        size = f"10-{trial.suggest_int('width', 1, 3)}"
    head = trial.suggest_categorical("activation", ["relu", "lwta"])
    if head == "lwta":
        head = trial.suggest_categorical("gate", ["mean", "sample"])
    if head == "sample" and trial.suggest_categorical("draws", [1, 4]) == 4:
        head = "sample of 4"
    return _recipe(trial, size, head, epsilon)


def _recipe(trial: Trial, size: str, head: str, epsilon: float) -> Recipe:
    radius = epsilon * trial.suggest_float("epsilon_ratio", RATIOS[0], RATIOS[-1], step=0.25)
    return Recipe(
        model=SIZES[size],
        lwta=None if head == "relu" else LWTA(units=2, gate=head.split()[0], kl_weight=0.1),
        mix=Mix(clean=0, noise=0, fgsm=0, pgd=1, cw=0),
        attack=Attack(epsilon=radius, steps=2, step=0.75 * radius, warmup=0.25),
        training=Training(epochs=EPOCHS, batch_size=32, lr=0.02 * 2 ** trial.suggest_int("lr_doublings", 0, 3)),
        draws=4 if head == "sample of 4" else 1,
    )


def recipes(epsilon: float = EPSILON) -> list[Recipe]:
    """Every recipe of the grid, in a fixed order."""
    return [
        suggest(optuna.trial.FixedTrial(dict(zip(CHOICES, values, strict=True))), epsilon)
        for values in product(*CHOICES.values())
    ]
