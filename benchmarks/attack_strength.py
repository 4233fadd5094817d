"""Strength and time of Auto-PGD and Square beside their published code: `python -m benchmarks.attack_strength`.

Robust accuracy of all images of digits, on a plainly and an adversarially trained network that saw them. Auto-PGD at
the budget of AutoAttack, 100 steps and 9 targets; Square at 1,000 queries. Prints a Markdown table: mean and standard
deviation over seeds, i.e. over random starts, and seconds for one run. The published code is that of pyautoattack.
"""

from __future__ import annotations

import argparse
import logging
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from robustsearch import data
from robustsearch.attacks.apgd import apgd, apgd_targeted
from robustsearch.attacks.gradient import crafting
from robustsearch.attacks.named import pgd
from robustsearch.attacks.objectives import Objective, cross_entropy, dlr
from robustsearch.attacks.square import square
from robustsearch.recipe import Norm

Attack = Callable[[int], Tensor]
"""`seed -> adversarial images`."""

EPSILON: dict[str, dict[Norm, float]] = {
    "plain": {"linf": 0.05, "l2": 0.4},
    "robust": {"linf": 0.12, "l2": 0.6},
}
PUBLISHED_NORM: dict[Norm, str] = {"linf": "Linf", "l2": "L2"}
OBJECTIVES: dict[str, Objective] = {"ce": cross_entropy, "dlr": dlr}
LOGGER = logging.getLogger("pyautoattack")  # without one, it warns where a gradient is zero


def train(images: Tensor, labels: Tensor, *, adversarial: bool) -> nn.Module:
    """Eight epochs of a small network; on PGD-5 examples if adversarial."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(8):
        for batch in torch.randperm(len(images), generator=generator).split(64):
            inputs = images[batch]
            if adversarial:
                with crafting(model):
                    inputs = pgd(model, inputs, labels[batch], epsilon=0.15, step=0.06, steps=5, generator=generator)
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), labels[batch]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def attacks(
    model: nn.Module, images: Tensor, labels: Tensor, *, norm: Norm, epsilon: float, steps: int, queries: int
) -> dict[str, tuple[Attack, Attack]]:
    """Ours and the published attack, by name."""
    own: dict[str, Any] = {"epsilon": epsilon, "norm": norm}
    published: dict[str, Any] = {"eps": epsilon, "norm": PUBLISHED_NORM[norm]}

    def seeded(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    def auto(loss: str) -> tuple[Attack, Attack]:
        objective = OBJECTIVES[loss]
        return (
            lambda seed: apgd(model, images, labels, steps=steps, objective=objective, generator=seeded(seed), **own),
            lambda seed: APGDAttack(model, n_iter=steps, loss=loss, seed=seed, logger=LOGGER, **published).perturb(
                images, labels
            ),
        )

    return {
        "APGD-CE": auto("ce"),
        "APGD-DLR": auto("dlr"),
        "APGD-T": (
            lambda seed: apgd_targeted(model, images, labels, classes=10, steps=steps, generator=seeded(seed), **own),
            lambda seed: APGDAttack_targeted(model, n_iter=steps, seed=seed, logger=LOGGER, **published).perturb(
                images, labels
            ),
        ),
        "Square": (
            lambda seed: square(model, images, labels, queries=queries, generator=seeded(seed), **own),
            lambda seed: SquareAttack(model, n_queries=queries - 1, seed=seed, **published).perturb(images, labels),
        ),
    }


def measure(model: nn.Module, labels: Tensor, attack: Attack, seeds: int) -> str:
    """Robust accuracy in points, and seconds for one run."""
    begin = time.perf_counter()
    accuracies = [100 * float((model(attack(seed)).argmax(1) == labels).double().mean()) for seed in range(seeds)]
    seconds = (time.perf_counter() - begin) / seeds
    return f"{statistics.mean(accuracies):.2f} ± {statistics.stdev(accuracies):.2f} | {seconds:.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=4, help="random starts of each attack, 2 or more")
    parser.add_argument("--steps", type=int, default=100, help="steps of Auto-PGD")
    parser.add_argument("--queries", type=int, default=1000, help="queries of Square")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    LOGGER.addHandler(logging.NullHandler())
    LOGGER.propagate = False
    digits = data.load("digits")
    splits = (digits.train, digits.validation, digits.test)
    images = data.to_tensor(np.concatenate([split.images for split in splits]), "cpu").contiguous()
    labels = torch.from_numpy(np.concatenate([split.labels for split in splits]))
    packages = ", ".join(f"{name} {version(name)}" for name in ("robustsearch", "pyautoattack", "torch"))
    print(
        f"{packages}; {platform.processor() or platform.machine()}, 1 thread; n = {len(images)} images of digits, "
        f"{arguments.seeds} seeds, {arguments.steps} steps, {arguments.queries} queries\n"
    )
    print("| network | clean | norm | epsilon | attack | ours | s | published | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, radii in EPSILON.items():
        model = train(images, labels, adversarial=name == "robust")
        clean = 100 * float((model(images).argmax(1) == labels).double().mean())
        for norm, epsilon in radii.items():
            pairs = attacks(
                model, images, labels, norm=norm, epsilon=epsilon, steps=arguments.steps, queries=arguments.queries
            )
            for attack, pair in pairs.items():
                figures = " | ".join(measure(model, labels, one, arguments.seeds) for one in pair)
                print(f"| {name} | {clean:.1f} | {norm} | {epsilon} | {attack} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
