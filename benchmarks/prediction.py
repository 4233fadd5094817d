"""What a prediction costs in each engine: `python -m benchmarks.prediction`.

Networks of one shape, WRN-34-1 unless told otherwise, with random weights whose batch norms have seen random images,
deployed and run by each engine on one thread. Contenders take turns; a turn is the median of a few predictions of a
batch, a cell the median over turns with its quartiles. In brackets: times ReLU in the same engine, of the least
disturbed turn of each. Times are the thread's processor time, which on a quiet machine is the time that passes, and on
a busy one leaves out what others take. `unfused` is LWTA as it is usually published: every step of the Gumbel softmax
on its own, nothing folded. Prints a Markdown table, and K draws to one: median of the ratios of each turn, with its
95% interval.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from robustsearch.engines.prepare import Prepared, prepare
from robustsearch.latency import device_name
from robustsearch.models.build import Network, build_network
from robustsearch.models.deploy import deploy
from robustsearch.models.lwta import LWTA
from robustsearch.recipe import Recipe

from .timing import ratio

CPU = torch.device("cpu")
ENGINES = ("eager", "onnxruntime", "onnxruntime-kernel", "compile")
DEFAULT = ENGINES[:3]
BATCHES = {1: 10, 128: 3}
"""Batch size to predictions in a turn."""
NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
    "ReLU": ({}, 1),
    "LWTA-2 sample": ({"lwta": {}}, 1),
    "LWTA-2 mean": ({"lwta": {"gate": "mean"}}, 1),
    "LWTA-2 argmax": ({"lwta": {"gate": "argmax"}}, 1),
    "LWTA-4 sample": ({"lwta": {"units": 4}}, 1),
    "PNI on weights": ({"pni": {}}, 1),
    "LWTA-2 sample, K = 4": ({"lwta": {}}, 4),
    "LWTA-2 sample, K = 8": ({"lwta": {}}, 8),
}
"""Name to the fields of a recipe, and K."""


class Unfused(nn.Module):
    """Blocks of two as published: a relaxed one-hot draw at temperature 0.01, `[N, C, H, W]` -> the same shape."""

    def forward(self, h: Tensor) -> Tensor:
        """Gated features."""
        blocks = h.reshape(h.shape[0], h.shape[1] // 2, 2, *h.shape[2:])
        logits = torch.log(torch.softmax(blocks, dim=2) + 1e-8)
        uniform = torch.rand_like(logits)
        gumbel = -torch.log(-torch.log(uniform + 1e-8) + 1e-8)
        xi = torch.softmax((logits + gumbel) / 0.01, dim=2)
        return (blocks * xi).reshape(h.shape)


@dataclass(frozen=True)
class Contender:
    """A network in an engine."""

    network: str
    asked: str
    prepared: Prepared


def network(fields: dict[str, Any], depth: int, shape: tuple[int, int, int]) -> Network:
    """A network whose batch norms have statistics and whose branches have weights, as after training."""
    channels = shape[0]
    made = build_network(
        Recipe.of({"model": {"depth": depth}, **fields}),
        shape=shape,
        classes=10,
        mean=(0.5,) * channels,
        std=(0.25,) * channels,
        seed=0,
    )
    generator = torch.Generator().manual_seed(0)
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d) and not layer.weight.any():
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", generator=generator)
    with torch.no_grad():
        for _ in range(10):
            made.train()(torch.rand((16, *shape), generator=generator))
    return made.eval()


def unfused(depth: int, shape: tuple[int, int, int]) -> nn.Module:
    """LWTA-2 with published gates, and its softmax; nothing of it is folded."""
    made = network({"lwta": {}}, depth, shape)
    for name, layer in list(made.named_modules()):
        if isinstance(layer, LWTA):
            parent, _, child = name.rpartition(".")
            setattr(made.get_submodule(parent), child, Unfused())
    return nn.Sequential(made, nn.Softmax(dim=1))


def contenders(depth: int, shape: tuple[int, int, int], engines: list[str], names: list[str]) -> list[Contender]:
    """These networks in every engine that has them, and published gates."""
    found = []
    for name in names:
        fields, draws = NETWORKS[name]
        deployed = deploy(network(fields, depth, shape), draws)
        for engine in engines:
            prepared = prepare(deployed, shape, CPU, engine)
            if prepared.engine == engine:
                found.append(Contender(name, engine, prepared))
    if "eager" in engines:
        prepared = prepare(unfused(depth, shape), shape, CPU, "eager")
        found.append(Contender("LWTA-2 sample, unfused", "eager", prepared))
    return found


def turns(found: list[Contender], images: Tensor, runs: int, rounds: int) -> NDArray[np.float64]:
    """Times of one prediction, ms, `[rounds, contenders]`; a first round is not counted."""
    times = np.zeros((rounds + 1, len(found)))
    for row in times:
        for place, contender in enumerate(found):
            contender.prepared.predict(images)
            single = []
            for _ in range(runs):
                start = time.thread_time()
                contender.prepared.predict(images)
                single.append(time.thread_time() - start)
            row[place] = np.median(single) * 1e3
    return times[1:]


def cell(times: NDArray[np.float64], relu: NDArray[np.float64]) -> str:
    """Median, quartiles, and the ratio to ReLU."""
    low, middle, high = np.quantile(times, [0.25, 0.5, 0.75])
    return f"{middle:.3g} [{low:.3g}, {high:.3g}] ({times.min() / relu.min():.2f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--depth", type=int, default=34, help="layers")
    parser.add_argument("--size", type=int, default=8, help="height and width of an image; 1 channel at 8, else 3")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contender at batch 1")
    parser.add_argument("--batch-rounds", type=int, default=5, help="turns of each contender at batch 128")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=[*NETWORKS], help="beside ReLU; all")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=DEFAULT, help="compile takes minutes to build")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    shape = (1 if arguments.size == 8 else 3, arguments.size, arguments.size)
    names = ["ReLU", *(name for name in arguments.networks if name != "ReLU")]
    found = contenders(arguments.depth, shape, arguments.engines, names)
    packages = ", ".join(f"{name} {version(name)}" for name in ("robustsearch", "torch", "onnxruntime"))
    print(
        f"{packages}, Python {platform.python_version()}; {device_name(CPU)}, 1 thread; WRN-{arguments.depth}-1, "
        f"images {shape}; n = {arguments.rounds} turns at batch 1, {arguments.batch_rounds} at batch 128\n"
    )
    columns: list[list[str]] = []
    draws: list[str] = []
    for batch, runs in BATCHES.items():
        images = torch.rand((batch, *shape), generator=torch.Generator().manual_seed(1))
        times = turns(found, images, runs, arguments.rounds if batch == 1 else arguments.batch_rounds)
        relu = {c.asked: times[:, place] for place, c in enumerate(found) if c.network == "ReLU"}
        if "onnxruntime" in relu:
            relu["onnxruntime-kernel"] = relu["onnxruntime"]  # without gates there is nothing to replace
        columns.append([cell(times[:, place], relu[c.asked]) for place, c in enumerate(found)])
        places = {(c.network, c.asked): place for place, c in enumerate(found)}
        for (name, engine), place in places.items():
            one = places.get((name.partition(", K")[0], engine), place)
            if one != place:
                more = ratio(times[:, place], times[:, one])
                draws.append(f"{name}, {engine}, batch {batch}: {more} times one")
    print("| network | engine | batch 1, ms | batch 128, ms | build s |\n|---|---|---|---|---|")
    for place, contender in enumerate(found):
        one, many = (column[place] for column in columns)
        print(f"| {contender.network} | {contender.asked} | {one} | {many} | {contender.prepared.build_s:.2f} |")
    if draws:
        print("\n" + "; ".join(draws) + ".")


if __name__ == "__main__":
    main()
