"""What becomes of PNI's alpha with an adversary and without: `python -m benchmarks.pni_alpha [--epsilon 0 0.3]`.

He, Rakin & Fan (2019, 1811.09310) report that alpha vanishes in clean training and survives in adversarial training.
Trains a network with one alpha a layer on the weights, with the paper's loss CE(clean)/2 + CE(attacked)/2 or, at
epsilon 0, on clean images alone. The network is of three convolutions (8, 16 and 32 channels) and a linear layer, so
that a training has the many steps that alpha needs; with `--depth` it is a WideResNet instead. Prints a Markdown table:

    |alpha| at EPOCH   mean over the layers (the sign means nothing: -alpha is the same noise)
    layers             |alpha| of each layer, first to last, mean over the last quarter of the epochs
    pull               d E[CE] / d log |alpha| of all layers at once, in the end, on training images: if positive,
                       the loss pulls alpha down; mean and standard error over fresh draws, in training mode
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from robustsearch import data
from robustsearch.attacks.gradient import crafting
from robustsearch.attacks.named import pgd
from robustsearch.data import Dataset
from robustsearch.latency import device_name
from robustsearch.models.build import Network, Normalise, network_for
from robustsearch.models.pni import PNIConv2d, PNILayer, PNILinear
from robustsearch.models.stochastic import Noise
from robustsearch.recipe import PNI, Attack, Mix, Model, Recipe, Training
from robustsearch.seeds import derive
from robustsearch.training.loop import Trainer

CPU = torch.device("cpu")
Schedule = Literal["one-cycle", "cosine", "constant"]
IMAGES, DRAWS = 256, 50
"""Training images and draws behind a pull."""


@dataclass(frozen=True)
class Settings:
    """What all trainings of a table share."""

    epochs: int
    steps: int = 2
    """PGD steps in training, of 2.5 epsilon in all."""
    schedule: Schedule = "constant"
    depth: int | None = None
    """Layers of a WideResNet; None for the small network."""

    def recipe(self, epsilon: float) -> Recipe:
        """Layer-wise PNI on the weights with the paper's loss; clean training at epsilon 0."""
        clean = float(epsilon == 0)
        radius = epsilon or 0.1  # of no effect in clean training
        return Recipe(
            model=Model(depth=self.depth or 10),
            pni=PNI(),
            mix=Mix(clean=clean, noise=0, fgsm=0, pgd=1 - clean, cw=0),
            attack=Attack(epsilon=radius, steps=self.steps, step=2.5 * radius / self.steps, warmup=0.1),
            training=Training(epochs=self.epochs, schedule=self.schedule, clean_weight=0 if clean else 0.5),
        )


def small_network(pni: PNI, dataset: Dataset, seed: int) -> Network:
    """Three convolutions, the last two of stride 2, each with batch norm and ReLU, and a linear layer."""
    noise = Noise(derive(seed, "noise"))
    settings: dict[str, Any] = {**pni.model_dump(), "noise": noise}
    layers: list[nn.Module] = []
    channels, *size = dataset.shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "init"))
        for width, stride in ((8, 1), (16, 2), (32, 2)):
            place: dict[str, Any] = {"stride": stride, "padding": 1, "size": (size[0], size[1])}
            layers += [PNIConv2d(channels, width, 3, **place, **settings), nn.BatchNorm2d(width), nn.ReLU()]
            channels, size = width, [-(-pixels // stride) for pixels in size]
        layers += [nn.Flatten(), PNILinear(channels * size[0] * size[1], dataset.classes, **settings)]
    body = nn.Sequential(*layers)
    return Network(nn.Identity(), Normalise(dataset.mean, dataset.std), body, noise)  # type: ignore[arg-type]


def alphas(network: Network) -> NDArray[np.float64]:
    """|alpha| of each layer, in standard deviations of its weights."""
    return np.array([abs(layer.alpha.item()) for layer in network.modules() if isinstance(layer, PNILayer)])


@dataclass(frozen=True)
class Trained:
    """A network in the end, and its alphas on the way."""

    network: Network
    alphas: NDArray[np.float64]
    """`[epochs, layers]`: |alpha| after each epoch."""
    loss: float
    """Mean objective of the last epoch, nats."""


def train(epsilon: float, seed: int, settings: Settings, dataset: Dataset) -> Trained:
    """One training against PGD of radius `epsilon`, or on clean images at 0."""
    recipe = settings.recipe(epsilon)
    assert recipe.pni is not None
    if settings.depth is None:
        network = small_network(recipe.pni, dataset, seed)
    else:
        network = network_for(recipe, dataset, seed=seed)
    trainer = Trainer(network, recipe, dataset, seed, CPU)
    found, loss = [], 0.0
    for _ in range(settings.epochs):
        loss = trainer.run_epoch()["loss"]
        found.append(alphas(network))
    return Trained(network, np.stack(found), loss)


def pulls(network: Network, dataset: Dataset, attack: Attack) -> list[str]:
    """What the loss asks of alpha: of clean training images, and of the same under PGD; mean and standard error."""
    images = data.to_tensor(dataset.train.images[:IMAGES], CPU)
    labels = torch.from_numpy(dataset.train.labels[:IMAGES])
    network = copy.deepcopy(network).train()
    network.noise.seed(derive(0, "pulls"))
    generator = torch.Generator().manual_seed(0)
    with crafting(network):
        attacked = pgd(
            network, images, labels, epsilon=attack.epsilon, step=attack.step, steps=attack.steps, generator=generator
        )
    parameters = [layer.alpha for layer in network.modules() if isinstance(layer, PNILayer)]
    found = []
    for batch in (images, attacked):
        draws = []
        for _ in range(DRAWS):
            gradients = torch.autograd.grad(F.cross_entropy(network(batch), labels), parameters)
            draws.append(sum(float(g * a.detach()) for g, a in zip(gradients, parameters, strict=True)))
        found.append(f"{np.mean(draws):+.4f} ± {np.std(draws, ddof=1) / np.sqrt(DRAWS):.4f}")
    return found


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits", metavar="NAME")
    parser.add_argument("--fraction", type=float, default=1.0, metavar="F", help="share of the images")
    parser.add_argument("--epsilon", type=float, nargs="+", default=[0.0, 0.3], help="radii in training; 0 is clean")
    parser.add_argument("--steps", type=int, default=2, help="PGD steps, of 2.5 epsilon in all")
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--depth", type=int, help="layers of a WideResNet instead of the small network")
    parser.add_argument("--schedule", default="constant", choices=get_args(Schedule))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    dataset = data.load(given.dataset, fraction=given.fraction)
    settings = Settings(given.epochs, given.steps, given.schedule, given.depth)
    name = f"WRN-{given.depth}-1" if given.depth else "three convolutions and a linear layer"
    print(
        f"{name}, {dataset.name}, {len(dataset.train)} training images, {given.epochs} epochs, {given.schedule}, "
        f"{given.steps} PGD steps; torch {version('torch')}, {device_name(CPU)}, one thread\n"
    )
    shown = sorted({max(1, round(given.epochs * share)) for share in (0.1, 0.25, 0.5, 0.75, 1)})
    epochs = " | ".join(f"at {epoch}" for epoch in shown)
    print(f"| training | seed | {epochs} | layers | loss | pull, clean | pull, attacked | CPU s |")
    print("|---" * (len(shown) + 7) + "|", flush=True)
    for seed in given.seeds:
        for epsilon in given.epsilon:
            start = time.process_time()
            trained = train(epsilon, seed, settings, dataset)
            late = trained.alphas[-max(1, given.epochs // 4) :].mean(axis=0)
            cells = [
                f"PGD {epsilon:g}" if epsilon else "clean",
                str(seed),
                *(f"{trained.alphas[epoch - 1].mean():.3f}" for epoch in shown),
                " ".join(f"{alpha:.3f}" for alpha in late),
                f"{trained.loss:.3f}",
                *pulls(trained.network, dataset, settings.recipe(epsilon).attack),
                f"{time.process_time() - start:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
