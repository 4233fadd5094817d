"""Stochastic LWTA in a WideResNet-34: width, units, gate, draws, IBP prior, attack mix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustsearch.recipe import Model, Recipe, Training

from ._parts import suggest_attack, suggest_draws, suggest_lwta, suggest_mix

if TYPE_CHECKING:
    from optuna import Trial

REPORT = {
    "units": 2,
    "ibp": False,
    "steps": 3,
    "mix_clean": 0.9,
    "mix_noise": 0.9,
    "mix_fgsm": 0.9,
    "mix_pgd": 0.05,
    "mix_cw": 0.9,
}

STARTS = [
    # The report's defence: two units, sampled winners, trained on PGD; and the same with its gates' mean, also wider.
    {"gate": "sample", "widen_factor": 1, "draws": 1, **REPORT},
    {"gate": "mean", "widen_factor": 1, **REPORT},
    {"gate": "mean", "widen_factor": 2, **REPORT},
]


def suggest(trial: Trial, epsilon: float = 0.1) -> Recipe:
    """A recipe with LWTA activations throughout."""
    lwta = suggest_lwta(trial)
    return Recipe(
        model=Model(depth=34, widen_factor=trial.suggest_categorical("widen_factor", [1, 2])),
        lwta=lwta,
        mix=suggest_mix(trial),
        attack=suggest_attack(trial, epsilon),
        training=Training(lr=trial.suggest_float("lr", 0.03, 0.2, log=True)),
        draws=suggest_draws(trial, random=lwta.is_random),
    )
