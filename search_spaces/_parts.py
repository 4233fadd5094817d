"""Parts that several spaces share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from robustsearch.recipe import IBP, LWTA, PNI, Attack, Mix, Smoothing, Training

if TYPE_CHECKING:
    from optuna import Trial

REPORT_MIX = ("clean", "noise", "fgsm", "pgd", "cw")
"""What the report mixes (its section 3.1)."""


def suggest_lwta(trial: Trial) -> LWTA:
    """LWTA units, their gate at inference and, sometimes, the IBP prior."""
    gate = trial.suggest_categorical("gate", ["sample", "mean", "argmax", "noisy"])
    ibp = trial.suggest_categorical("ibp", [False, True])
    return LWTA(
        units=trial.suggest_categorical("units", [2, 4, 8]),
        gate=gate,
        gate_noise=trial.suggest_float("gate_noise", 0.05, 2.0, log=True) if gate == "noisy" else None,
        kl_weight=trial.suggest_float("kl_weight", 0.01, 1.0, log=True),
        ibp=IBP(
            alpha=trial.suggest_float("ibp_alpha", 0.1, 10.0, log=True),
            lr=trial.suggest_float("ibp_lr", 0.1, 1.0, log=True),
        )
        if ibp
        else None,
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
    weights = [-math.log(trial.suggest_float(f"mix_{name}", 0.01, 0.99)) for name in REPORT_MIX]
    total = sum(weights)
    return Mix(**{name: weight / total for name, weight in zip(REPORT_MIX, weights, strict=True)})


def suggest_attack(trial: Trial, epsilon: float, most_steps: int = 5) -> Attack:
    """Training attacks of one to two times the evaluation's epsilon, whose steps reach twice their ball's radius.

    `most_steps` 1 is for mixes without PGD and CW, where nothing takes more than one.
    """
    radius = min(1.0, epsilon * trial.suggest_float("epsilon_ratio", 1.0, 2.0))
    steps = trial.suggest_int("steps", 2, most_steps) if most_steps > 1 else 1
    return Attack(epsilon=radius, steps=steps, step=min(2.0, 2 * radius / steps), warmup=0.25)


def suggest_adversarial(trial: Trial, epsilon: float) -> dict[str, Any]:
    """The parts `mix`, `attack` and `training` of a recipe: the report's mix, PGD, TRADES or FGSM-RS.

    Weight perturbation goes with each, of at most the published size, and so does early stopping.
    """
    method = trial.suggest_categorical("method", ["mix", "pgd", "trades", "fgsm_rs"])
    alone = {"mix": None, "pgd": "pgd", "trades": "pgd", "fgsm_rs": "fgsm_rs"}[method]
    mix = suggest_mix(trial) if alone is None else Mix(**dict.fromkeys(REPORT_MIX, 0.0) | {alone: 1.0})
    trades = trial.suggest_float("trades", 1.0, 10.0, log=True) if method == "trades" else None
    awp = trial.suggest_categorical("awp", [False, True])
    return {
        "mix": mix,
        "attack": suggest_attack(trial, epsilon, most_steps=1 if method == "fgsm_rs" else 5),
        "training": Training(
            lr=trial.suggest_float("lr", 0.03, 0.2, log=True),
            clean_weight=0.0 if trades else trial.suggest_float("clean_weight", 0.0, 0.5),
            trades=trades,
            awp=trial.suggest_float("awp_gamma", 0.001, 0.01, log=True) if awp else None,
            patience=3 if trial.suggest_categorical("early_stopping", [False, True]) else None,
        ),
    }


def suggest_draws(trial: Trial, *, random: bool) -> int:
    """Predictions averaged per image, where they can differ."""
    return int(trial.suggest_categorical("draws", [1, 2, 4, 8])) if random else 1
