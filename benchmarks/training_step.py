"""What a training step costs: `python -m benchmarks.training_step [--datasets digits FILE.npz] [--steps 0 3 10]`.

Every contender trains on the same batch in turn: ours with ReLU and with LWTA-2, each beside its own floor (k passes of
forward and input gradient alone, then one forward and backward pass), and the plain way (`benchmarks.plain`), whose PGD
is torchattacks', with `--torchattacks DIR` from `pip install --no-deps --target DIR torchattacks==3.5.1`. Prints a
Markdown table of medians of CPU seconds with quartiles, and of ratios of each round with 95% intervals.

`--profile` prints where the time of our steps goes instead. `--accuracy` trains to the end, in both ways and from the
same weights, and prints robust accuracy under the same adaptive protocol with 95% intervals, over three seeds.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.profiler import profile

from robustsearch import data
from robustsearch.attacks.gradient import crafting
from robustsearch.data import Dataset, Split, to_tensor
from robustsearch.models.build import Network, network_for
from robustsearch.models.stochastic import surrogate
from robustsearch.recipe import LWTA, Attack, Mix, Model, Recipe, Training
from robustsearch.search.placement import WORKER_ENVIRONMENT
from robustsearch.training.loop import Trainer

from .equal_epochs import accuracy
from .plain import PlainTrainer, library_pgd
from .timing import in_turn, machine, ratio, spread

CPU = torch.device("cpu")
KINDS = {
    "whole blocks": ("_Block",),
    "convolution": ("convolution", "conv2d", "_Convolution"),
    "batch norm": ("batch_norm", "NativeBatchNorm", "rsqrt"),
    "gate, noise, other passes over features": (
        *(
            "PairedGate",
            "_Relaxed",
            "_Normalised",
            "random_",
            "rand",
            "uniform",
            "logit",
            "sigmoid",
            "softplus",
            "stack",
            "complex",
            "relu",
            "prod",
        ),
        *(
            "threshold",
            "clamp_min",
            "mul",
            "sub",
            "add",
            "div",
            "log",
            "cat",
            "copy_",
            "neg",
            "abs",
            "exp",
            "softmax",
            "dot",
        ),
    ),
}
"""Operations by substrings of their names; the first match counts, and all else is `the rest`."""


def recipe(lwta: bool, steps: int, dataset: Dataset, depth: int) -> Recipe:
    """PGD on every batch, or none where `steps` is 0."""
    names = dict.fromkeys(("clean", "noise", "fgsm", "pgd", "cw"), 0.0) | {"pgd" if steps else "clean": 1.0}
    epsilon = dataset.epsilon
    return Recipe(
        model=Model(depth=depth),
        lwta=LWTA() if lwta else None,
        mix=Mix(**names),
        attack=Attack(epsilon=epsilon, step=max(epsilon / max(steps, 1), epsilon / 4), steps=max(steps, 1)),
        training=Training(epochs=10_000, lr=0.01, schedule="constant"),
    )


def network_of(recipe: Recipe, dataset: Dataset) -> Network:
    """A new network."""
    return network_for(recipe, dataset, seed=0).train()


def floor(network: Network, batch: Dataset, steps: int) -> None:
    """`steps` passes of forward and input gradient alone, and one forward and backward pass."""
    images, labels = to_tensor(batch.train.images, CPU), torch.from_numpy(batch.train.labels.copy())
    with crafting(network), surrogate(network):
        pixels = images.clone().requires_grad_()
        for _ in range(steps):
            torch.autograd.grad(F.cross_entropy(network(pixels), labels), pixels)
    loss = F.cross_entropy(network(images), labels) + sum(network.kl().values(), start=torch.zeros(()))
    loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad()


def contenders(
    batch: Dataset, steps: int, depth: int, pgd: Callable[..., Any] | None
) -> dict[str, Callable[[], object]]:
    """What runs one step, by name."""
    found: dict[str, Callable[[], object]] = {}
    for name, lwta in (("ReLU", False), ("LWTA-2", True)):
        asked = recipe(lwta, steps, batch, depth)
        found[name] = Trainer(network_of(asked, batch), asked, batch, 0, CPU).run_epoch
        found[f"{name}, floor"] = partial(floor, network_of(asked, batch), batch, steps)
        if pgd:
            plain = PlainTrainer(asked, batch, 0, pgd, lr=0.01, attacked=steps > 0)
            found[f"{name}, plain way"] = partial(plain.step, torch.arange(len(batch.train)))
    return found


def profiled(step: Callable[[], object]) -> dict[str, float]:
    """Shares of a step's time by kind of operation."""
    step()
    with profile() as measured:
        step()
    times = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in measured.key_averages():
        kind = next((kind for kind, parts in KINDS.items() if any(part in event.key for part in parts)), "the rest")
        times[kind] += event.self_cpu_time_total
    return {kind: time / sum(times.values()) for kind, time in times.items()}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--datasets", nargs="+", default=["digits"], metavar="NAME")
    parser.add_argument("--steps", nargs="+", type=int, default=[0, 3, 10], metavar="K", help="PGD steps; 0 is clean")
    parser.add_argument("--depth", type=int, default=34)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15, metavar="N")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--torchattacks", type=Path, metavar="DIR")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--accuracy", action="store_true")
    given = parser.parse_args()
    if not os.environ.keys() >= WORKER_ENVIRONMENT.keys():  # read when a process starts
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks.training_step", *sys.argv[1:]],
            os.environ | WORKER_ENVIRONMENT,
        )
    torch.set_num_threads(given.threads)
    pgd = library_pgd(given.torchattacks)
    print(f"{machine(given.threads)}; WRN-{given.depth}-1, batch {given.batch}\n")
    if given.accuracy:
        assert pgd, "the plain way needs torchattacks"
        for name in given.datasets:
            accuracy(data.load(name), given.depth, pgd)
        return
    columns = [*KINDS, "the rest"] if given.profile else ["CPU s", "to its floor", "to ReLU", "plain way to ours"]
    print(f"| images | PGD steps | network | {' | '.join(columns)} |\n|---|---|---|{'---|' * len(columns)}", flush=True)
    for name in given.datasets:
        whole = data.load(name)
        batch = replace(whole, train=Split(*(part[: given.batch] for part in (whole.train.images, whole.train.labels))))
        size = f"{batch.shape[1]}x{batch.shape[2]}"
        for steps in given.steps:
            runs = contenders(batch, steps, given.depth, None if given.profile else pgd)
            if given.profile:
                for network in ("ReLU", "LWTA-2"):
                    shares = " | ".join(f"{100 * share:.0f}%" for share in profiled(runs[network]).values())
                    print(f"| {size} | {steps} | {network} | {shares} |", flush=True)
                continue
            times = in_turn(runs, given.rounds)
            for network in ("ReLU", "LWTA-2"):
                mine, plain = times[network], times.get(f"{network}, plain way")
                print(
                    f"| {size} | {steps} | {network} | {spread(mine)} | {ratio(mine, times[f'{network}, floor'])} "
                    f"| {ratio(mine, times['ReLU'])} | {'' if plain is None else ratio(plain, mine)} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
