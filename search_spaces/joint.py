"""Everything at once: network, ReLU or LWTA, IBP prior, PNI, smoothing, adversarial training, draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustsearch.recipe import Model, Recipe

from ._parts import suggest_adversarial, suggest_draws, suggest_lwta, suggest_pni, suggest_smoothing

if TYPE_CHECKING:
    from optuna import Trial


def suggest(trial: Trial, epsilon: float = 0.1) -> Recipe:
    """A recipe with each defence on or off."""
    lwta = suggest_lwta(trial) if trial.suggest_categorical("activation", ["relu", "lwta"]) == "lwta" else None
    pni = suggest_pni(trial) if trial.suggest_categorical("pni", [False, True]) else None
    smoothing = suggest_smoothing(trial, epsilon) if trial.suggest_categorical("smoothing", [False, True]) else None
    random = (
        (lwta is not None and lwta.is_random) or pni is not None or (smoothing is not None and smoothing.at_inference)
    )
    return Recipe(
        model=Model(
            depth=trial.suggest_categorical("depth", [10, 16, 22, 28, 34]),
            widen_factor=trial.suggest_categorical("widen_factor", [1, 2]),
        ),
        lwta=lwta,
        pni=pni,
        smoothing=smoothing,
        draws=suggest_draws(trial, random=random),
        **suggest_adversarial(trial, epsilon),
    )
