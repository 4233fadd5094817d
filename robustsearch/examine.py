"""The last word on a trained network: attacks, masking checks, latency or certificates, at any rung of a trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from . import checkpoint
from .data import Dataset
from .engines.prepare import prepare
from .errors import RunError
from .evaluation.certify import ALPHA, N0, certified_columns, certify
from .evaluation.masking import masking_checks
from .evaluation.masking_attacks import Effort
from .evaluation.protocols import Protocol
from .evaluation.robust import evaluate
from .latency import device_name, measure
from .models.build import Network, network_for
from .models.deploy import deploy
from .models.stochastic import surrogate
from .quiet import Quiet
from .recipe import Recipe
from .seeds import derive
from .trial import Row, sample

EFFORT = Effort(steps=40, long_steps=100, restarts=2, queries=300)
"""What the masking checks of a network of 34 layers may cost."""

CERTIFY = "certify"
"""What a certification writes in place of a protocol's name."""


def load_network(path: Path, dataset: Dataset, device: torch.device | None = None) -> tuple[Network, Recipe]:
    """The network that a trial saved at a rung, in evaluation mode, and its recipe.

    Raises:
        RunError: the file is absent or damaged.
    """
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    saved = checkpoint.read(path)
    try:
        recipe = Recipe.from_json(saved["recipe"])
        network = network_for(recipe, dataset, seed=0)
        network.load_state_dict(saved["state"])
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
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
    timed: bool = False,
    engine: str = "auto",
    transfer: Network | None = None,
    seed: int = 0,
) -> Row:
    """Accuracies under a protocol and, with `checks`, the verdict `masked` and its checks, as columns of an evaluation.

    Args:
        network: in evaluation mode.
        recipe: the network's own, with the gate and the draws that it has now.
        dataset: what it was trained on.
        protocol: what to measure.
        split: `validation` or `test`.
        images: at most so many; None is the protocol's number.
        checks: run the masking checks, on the same images.
        timed: measure the latency of its deployed prediction too, alone on the device.
        engine: what runs the prediction that is timed.
        transfer: a plainly trained network, whose adversarial examples are one of the checks.
        seed: of the attacks and of the network's draws.
    """
    start = time.perf_counter()
    device = next(network.parameters()).device
    pictures, labels = _pictures(dataset, split, images or protocol.images, device)
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
    if timed:
        quiet, start = Quiet(str(device).replace(":", "-")), time.perf_counter()
        prepared = prepare(deploy(network, recipe.draws), dataset.shape, device, engine, seed=derive(seed, "engine"))
        with quiet.alone():
            row |= measure(prepared, dataset.shape, device).row()
        quiet.close()
        row["latency_s"] = time.perf_counter() - start
    return row | {"protocol": protocol.name} | _where(dataset, split, seed, device)


def examine_certified(
    network: Network,
    dataset: Dataset,
    *,
    split: str,
    images: int,
    n: int,
    progress: Callable[[float], object] = lambda share: None,
    seed: int = 0,
) -> Row:
    """Certified accuracy and radii of a network with smoothing (`evaluation.certify`), as columns of an evaluation.

    Args:
        network: as for `examine`; its number of draws does not count, since a vote is one pass.
        dataset: what it was trained on.
        split: `validation` or `test`.
        images: at most so many.
        n: votes that bound the probability of a class, at least 1.
        progress: called with the share done.
        seed: of the network's draws.

    Raises:
        UserError: the network has no smoothing at inference.
    """
    start = time.perf_counter()
    device = next(network.parameters()).device
    pictures, labels = _pictures(dataset, split, images, device)
    network.noise.seed(derive(seed, "certificate"))
    certificate = certify(network, pictures, n=n, progress=progress)
    row: Row = {**certified_columns(certificate, labels, epsilon_l2=dataset.epsilon_l2)}
    row |= {"certified_n0": N0, "certified_n": n, "certified_alpha": ALPHA, "n": len(labels)}
    row |= {"epsilon_l2": dataset.epsilon_l2, "eval_s": time.perf_counter() - start, "protocol": CERTIFY}
    return row | _where(dataset, split, seed, device)


def _pictures(dataset: Dataset, split: str, images: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return sample({"validation": dataset.validation, "test": dataset.test}[split], images, device)


def _where(dataset: Dataset, split: str, seed: int, device: torch.device) -> Row:
    return {"dataset": dataset.name, "split": split, "seed": seed, "device": device_name(device)}
