"""What a run will take, before it is started: seconds of each trial, from trials already run or a short calibration."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from ..data import Dataset
from ..evaluation.protocols import Protocol
from ..models.build import network_for
from ..recipe import MIX_NAMES, Attack, MixName, Recipe, Training
from ..training.loop import Trainer
from ..trial import Plan, Trial

IMAGES = 40
"""Images that a calibration evaluates; the rest is taken as proportional."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one trial."""

    epoch: float
    """Of one epoch of training."""
    rung: float
    """Of one measurement at a rung, timing included."""
    final: float
    """Of the last examination, where there is one."""


def measured_costs(rows: Iterable[dict[str, Any]], evaluations: Iterable[dict[str, Any]]) -> dict[str, Cost]:
    """Digest of each recipe, without its epochs, to what it took in an earlier run, averaged over its trials.

    `rows` are those of the results, whose times are sums so far; `evaluations` those of the last examination.
    """
    trials: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["robust"] is not None and row["train_s"]:
            trials.setdefault(row["trial"], []).append(row)
    finals: dict[str, list[float]] = {}
    for row in evaluations:
        finals.setdefault(row["trial"], []).append(row["eval_s"] + (row["checks_s"] or 0.0))
    found: dict[str, list[Cost]] = {}
    for trial, measured in trials.items():
        last = max(measured, key=lambda row: row["epoch"])
        cost = Cost(
            last["train_s"] / last["epoch"],
            (last["eval_s"] + last["latency_s"]) / len(measured),
            float(np.mean(finals.get(trial, [0.0]))),
        )
        found.setdefault(key(Recipe.from_json(last["recipe"])), []).append(cost)
    return {digest: mean_cost(costs) for digest, costs in found.items()}


def mean_cost(costs: Sequence[Cost]) -> Cost:
    """The mean of several, at least one."""
    return Cost(*(float(np.mean([getattr(cost, name) for cost in costs])) for name in ("epoch", "rung", "final")))


def key(recipe: Recipe) -> str:
    """What recipes of equal cost an epoch share: the digest without the number of epochs."""
    return recipe.replace(**{"training.epochs": 1}).digest


def calibrate(recipes: Sequence[Recipe], dataset: Dataset, plan: Plan, final: Protocol | None) -> list[Cost]:
    """Time one batch of each kind in each recipe's mix, evaluations of `IMAGES` images, and the latency.

    What recipes share is timed once. Networks are untrained: what ends early on images that are wrong already is faster
    here than it will be.
    """
    batches: dict[str, float] = {}
    evaluations: dict[str, tuple[float, float]] = {}
    costs = []
    for recipe in recipes:
        batch = recipe.training.batch_size
        small = replace(dataset, train=dataset.train.take(np.arange(batch)))
        epoch = 0.0
        for name in MIX_NAMES:
            if share := getattr(recipe.mix, name):
                pure = _pure(recipe, name)
                if pure.digest not in batches:
                    batches[pure.digest] = _batch_seconds(pure, small)
                epoch += share * (len(dataset.train) // batch) * batches[pure.digest]
        network = _pure(recipe, "clean").replace(training=Training().model_dump())
        if network.digest not in evaluations:
            rung, latency = _evaluation_seconds(network, dataset, plan, plan.protocol)
            last = _evaluation_seconds(network, dataset, plan, final)[0] if final else 0.0
            evaluations[network.digest] = rung + latency, last
        costs.append(Cost(epoch, *evaluations[network.digest]))
    return costs


def _pure(recipe: Recipe, name: MixName) -> Recipe:
    """The recipe with batches of one kind alone; clean ones have no attack to set."""
    fields: dict[str, Any] = {"mix": dict.fromkeys(MIX_NAMES, 0.0) | {name: 1.0}}
    if name == "clean":
        fields |= {"training.awp": None, "training.trades": None, "attack": Attack().model_dump()}
    return recipe.replace(**fields)


def _batch_seconds(recipe: Recipe, one_batch: Dataset) -> float:
    """Seconds of the second batch; the first one warms up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(network_for(recipe, one_batch, seed=0).to(device), recipe, one_batch, 0, device)
    trainer.run_epoch()
    start = time.perf_counter()
    trainer.run_epoch()  # its end reads the losses, so a GPU has finished
    return time.perf_counter() - start


def _evaluation_seconds(recipe: Recipe, dataset: Dataset, plan: Plan, protocol: Protocol) -> tuple[float, float]:
    """Seconds of an evaluation of the protocol's images, and of a timing."""
    trial = Trial(recipe, 0, dataset, replace(plan, protocol=replace(protocol, images=IMAGES)))
    row = trial.measure()
    trial.close()
    return row["eval_s"] * min(protocol.images, len(dataset.validation)) / row["n"], row["latency_s"]


def makespan(seconds: Iterable[float], workers: int) -> float:
    """Seconds until the last of these trials has ended, each begun in order as soon as a worker is free."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heappush(free, heapq.heappop(free) + each)
    return max(free)


def expected_shares(rungs: Sequence[int], eta: int | None) -> tuple[float, float]:
    """Epochs and measurements that a trial comes to on average, if the best 1 in `eta` goes on at each rung."""
    reached = [1.0 if eta is None else eta**-place for place in range(len(rungs))]
    lengths = np.diff([0, *rungs])
    return float(np.dot(reached, lengths)), float(sum(reached))


def seed_spread(rows: Iterable[dict[str, Any]]) -> tuple[float, int] | None:
    """Standard deviation of robust accuracy between seeds of one recipe, pooled, and its degrees of freedom.

    Of the last epoch of each trial; None where no recipe has two seeds.
    """
    last: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        if row["robust"] is not None:
            place = (row["digest"], row["trial"])
            last[place] = max(row, last.get(place, row), key=lambda each: each["epoch"])
    groups: dict[str, list[float]] = {}
    for (digest, _), row in last.items():
        groups.setdefault(digest, []).append(row["robust"])
    degrees = sum(len(group) - 1 for group in groups.values())
    if not degrees:
        return None
    squares = sum((len(group) - 1) * np.var(group, ddof=1) for group in groups.values() if len(group) > 1)
    return math.sqrt(squares / degrees), degrees
