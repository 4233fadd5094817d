"""Parts that several spaces share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from robustsearch.recipe import IBP, LWTA, MIX_NAMES, PNI, Attack, Mix, Smoothing

if TYPE_CHECKING:
    from optuna import Trial


def suggest_lwta(trial: Trial) -> LWTA:
    """LWTA units, their gate at inference and, sometimes, the IBP prior."""
    gate = trial.suggest_categorical("gate", ["sample", "mean", "argmax", "noisy"])
    ibp = trial.suggest_categorical("ibp", [False, True])
    return LWTA(
        units=trial.suggest_categorical("units", [2, 4, 8]),
        gate=gate,
        gate_noise=trial.suggest_float("gate_noise", 0.05, 2.0, log=True) if gate == "noisy" else None,
        kl_weight=trial.suggest_float("kl_weight", 0.01, 1.0, log=True),
        ibp=IBP(alpha=trial.suggest_float("ibp_alpha", 0.1, 10.0, log=True)) if ibp else None,
    )


def suggest_pni(trial: Trial) -> PNI:
    """Where noise is injected, what shares one alpha, and where alpha starts."""
    return PNI(
        where=trial.suggest_categorical("pni_where", ["weights", "inputs", "activations"]),
        granularity=trial.suggest_categorical("pni_granularity", ["layer", "channel", "element"]),
        alpha=trial.suggest_float("pni_alpha", 0.05, 0.5, log=True),
    )


def suggest_smoothing(trial: Trial, epsilon: float) -> Smoothing:
    """Gaussian noise from half of epsilon to four times epsilon."""
    return Smoothing(
        sigma=min(1.0, epsilon * trial.suggest_float("sigma_ratio", 0.5, 4.0, log=True)),
        at_inference=trial.suggest_categorical("smooth_inference", [False, True]),
    )


def suggest_mix(trial: Trial) -> Mix:
    """A point of the simplex: uniform when each weight is uniform in (0, 1), as minus its logarithm is exponential."""
    weights = [-math.log(trial.suggest_float(f"mix_{name}", 0.01, 0.99)) for name in MIX_NAMES]
    total = sum(weights)
    return Mix(**{name: weight / total for name, weight in zip(MIX_NAMES, weights, strict=True)})


def suggest_attack(trial: Trial, epsilon: float, most_steps: int = 5) -> Attack:
    """Training attacks of one to two times the evaluation's epsilon, whose steps reach twice their ball's radius."""
    radius = min(1.0, epsilon * trial.suggest_float("epsilon_ratio", 1.0, 2.0))
    steps = trial.suggest_int("steps", 2, most_steps)
    return Attack(epsilon=radius, steps=steps, step=min(2.0, 2 * radius / steps), warmup=0.25)


def suggest_draws(trial: Trial, *, random: bool) -> int:
    """Predictions averaged per image, where they can differ."""
    return int(trial.suggest_categorical("draws", [1, 2, 4, 8])) if random else 1
