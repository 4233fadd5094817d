"""The end of a run: the front of a search meets the full protocol and the masking checks, every trial of a design an
adaptive protocol without them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import ray
import torch

from .. import results
from ..data import Dataset
from ..evaluation.protocols import protocol
from ..examine import examine, load_network
from ..pareto import SAME_LATENCY
from ..runfolder import RunFolder
from .settings import Settings

PROTOCOL = "full"
SPLIT = "validation"


def distinct(front: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The members of a front that no more robust one equals in latency."""
    return [
        row
        for row in front
        if not any(
            other["robust"] > row["robust"] and other["latency_p50"] <= SAME_LATENCY * row["latency_p50"]
            for other in front
        )
    ]


def examine_point(
    place: str, trial: str, epoch: int, plain_epoch: int | None, dataset: Dataset, name: str, images: int, threads: int
) -> dict[str, Any]:
    """One (trial, epoch) of a run under a protocol, as the row of an evaluation; `full` comes with masking checks.

    `plain_epoch` is the baseline's, whose examples are transferred in one of the checks.
    """
    torch.set_num_threads(threads)
    folder = RunFolder.at(place)
    network, recipe = load_network(folder.fetched_network(trial, epoch), dataset)
    transfer = load_network(folder.fetched_network("baseline", plain_epoch), dataset)[0] if plain_epoch else None
    row = examine(
        network,
        recipe,
        dataset,
        protocol=protocol(name),
        split=SPLIT,
        images=images,
        checks=name == PROTOCOL,
        transfer=transfer,
    )
    return row | {"trial": trial, "epoch": epoch, "digest": recipe.digest, "recipe": recipe.to_json()} | recipe.flat()


def examine_points(
    folder: RunFolder,
    points: list[dict[str, Any]],
    plain_epoch: int | None,
    dataset: Dataset,
    settings: Settings,
    gpus: float,
    name: str,
) -> Iterator[dict[str, Any]]:
    """Examine rows of the results under the protocol `name`, but for those that have been, as many at a time as the
    cluster holds; yields each row once it is written. An examination has the CPUs of a trial, and `gpus`.

    Raises:
        ray.exceptions.RayTaskError: an examination failed.
    """
    cpus, images = settings.cpus_per_trial, settings.final_images
    remote = ray.remote(num_cpus=cpus, num_gpus=gpus)(examine_point)
    shared = ray.put(dataset)
    roles = {}
    for point in points:
        trial, epoch = point["trial"], point["epoch"]
        file = results.evaluation_name(trial, epoch, name, SPLIT)
        if not results.is_whole(folder.evaluations / f"{file}.parquet"):
            task = remote.remote(folder.place_anywhere, trial, epoch, plain_epoch, shared, name, images, cpus)
            roles[task] = point["role"]
    pending = list(roles)
    while pending:
        (ready,), pending = ray.wait(pending)
        row = ray.get(ready) | {"run": folder.name, "role": roles[ready]}
        results.write_evaluation(folder.evaluations, row)
        yield row


def disagreements(rungs: list[dict[str, Any]], full: list[dict[str, Any]]) -> tuple[int, int]:
    """How many pairs of points the rungs and the full protocol order differently, and of how many pairs."""

    def key(row: dict[str, Any]) -> tuple[str, int]:
        return row["trial"], row["epoch"]

    last = {key(row): row["robust"] for row in full}
    pairs = list(combinations([row for row in rungs if key(row) in last], 2))
    differ = sum((one["robust"] - other["robust"]) * (last[key(one)] - last[key(other)]) < 0 for one, other in pairs)
    return differ, len(pairs)
