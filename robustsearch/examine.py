"""The last word on a trained network: the full protocol and the masking checks, at any rung of a finished trial."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from pickle import UnpicklingError

import torch

from .data import Dataset
from .errors import RunError
from .evaluation.masking import masking_checks
from .evaluation.masking_attacks import Effort
from .evaluation.protocols import Protocol
from .evaluation.robust import evaluate
from .latency import device_name
from .models.build import Network, build_network
from .models.stochastic import surrogate
from .recipe import Recipe
from .seeds import derive
from .trial import Row, sample

EFFORT = Effort(steps=40, long_steps=100, restarts=2, queries=300)
"""What the masking checks of a network of 34 layers may cost."""


def load_network(path: Path, dataset: Dataset, device: torch.device | None = None) -> tuple[Network, Recipe]:
    """The network that a trial saved at a rung, in evaluation mode, and its recipe.

    Raises:
        RunError: the file is absent or damaged.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        saved = torch.load(path, weights_only=True, map_location="cpu")
        recipe = Recipe.from_json(saved["recipe"])
        network = build_network(
            recipe, shape=dataset.shape, classes=dataset.classes, mean=dataset.mean, std=dataset.std, seed=0
        )
        network.load_state_dict(saved["state"])
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise RunError(f"a trial's network must be readable, but {path} is not: {reason}") from error
    return network.to(device).eval(), recipe


def examine(
    network: Network,
    recipe: Recipe,
    dataset: Dataset,
    *,
    protocol: Protocol,
    split: str,
    images: int | None = None,
    checks: bool = True,
    transfer: Network | None = None,
    seed: int = 0,
) -> Row:
    """Accuracies under a protocol and, with `checks`, the verdict `masked` and its checks, as columns of an evaluation.

    Args:
        network: in evaluation mode.
        recipe: the network's own.
        dataset: what it was trained on.
        protocol: what to measure.
        split: `validation` or `test`.
        images: at most so many; None is the protocol's number.
        checks: run the masking checks, on the same images.
        transfer: a plainly trained network, whose adversarial examples are one of the checks.
        seed: of the attacks and of the network's draws.
    """
    start = time.perf_counter()
    device = next(network.parameters()).device
    pictures, labels = sample(
        {"validation": dataset.validation, "test": dataset.test}[split], images or protocol.images, device
    )
    network.noise.seed(derive(seed, "examination"))
    row: Row = evaluate(
        network,
        pictures,
        labels,
        protocol=protocol,
        epsilon=dataset.epsilon,
        epsilon_l2=dataset.epsilon_l2,
        draws=recipe.draws,
        seed=seed,
    )
    row |= {"eval_s": time.perf_counter() - start, "masked": None, "checks": None}
    if checks:
        verdict = masking_checks(
            network,
            pictures,
            labels,
            epsilon=float(row["epsilon"]),
            surrogate=lambda: surrogate(network),
            predict=lambda inputs: network.predict(inputs, recipe.draws).log(),
            claimed=row["robust"],
            transfer=transfer,
            effort=EFFORT,
            seed=seed,
        )
        row |= {"masked": verdict.masked, "checks": json.dumps([asdict(check) for check in verdict.checks])}
        row["checks_s"] = time.perf_counter() - start - row["eval_s"]
    return row | {
        "dataset": dataset.name,
        "split": split,
        "protocol": protocol.name,
        "seed": seed,
        "device": device_name(device),
    }
