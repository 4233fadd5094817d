"""Classifiers of digits whose masking is known: honest ones, and ones that hide their gradients, each in its own way.

All are trained here, in seconds, from a seed.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustsearch.attacks.gradient import crafting
from robustsearch.attacks.named import pgd
from robustsearch.data import Dataset, to_tensor
from robustsearch.models.lwta import LWTA
from robustsearch.models.stochastic import Noise, surrogate


@dataclass(frozen=True)
class Digits:
    """Images `[N, 1, 8, 8]` and labels `[N]`, to train on and to test on."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, dataset: Dataset) -> Digits:
        def tensors(split: object) -> tuple[Tensor, Tensor]:
            images = to_tensor(split.images, torch.device("cpu"))  # type: ignore[attr-defined]
            return images, torch.from_numpy(split.labels.copy())  # type: ignore[attr-defined]

        return cls(tensors(dataset.train), tensors(dataset.test))


def cnn(seed: int, activation: Callable[[int], nn.Module], width: int = 16) -> nn.Sequential:
    """Two convolutions and a linear layer on `[N, 1, 8, 8]`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            activation(width),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            activation(2 * width),
            nn.Flatten(),
            nn.Linear(2 * width * 16, 10),
        )


def relu(channels: int) -> nn.Module:
    return nn.ReLU()


def train(
    network: nn.Module,
    data: Digits,
    seed: int,
    *,
    epochs: int = 15,
    epsilon: float = 0.0,
    through: Callable[[nn.Module], AbstractContextManager[None]] = lambda network: nullcontext(),
) -> nn.Module:
    """Adam on the cross-entropy, of PGD-5 examples of this radius if it is above 0."""
    images, labels = data.train
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    with torch.random.fork_rng():
        torch.manual_seed(seed)  # of networks that draw from the global generator
        for _ in range(epochs):
            for batch in torch.randperm(len(images), generator=generator).split(64):
                x, y = images[batch], labels[batch]
                if epsilon:
                    with crafting(network), through(network):
                        x = pgd(network, x, y, epsilon=epsilon, step=epsilon / 2, steps=5, generator=generator)
                optimizer.zero_grad()
                F.cross_entropy(network(x), y).backward()
                optimizer.step()
    return network.eval().requires_grad_(False)


# Layers that mask


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def quantise(x: Tensor) -> Tensor:
    """Nine grey levels."""
    return (8 * x).round() / 8


def step(x: Tensor) -> Tensor:
    """Nine grey levels with steep slopes between them, so that the gradient is not zero."""
    return ((8 * x).floor() + torch.sigmoid(400 * (8 * x % 1 - 0.5))) / 8


class InputNoise(nn.Module):
    """Gaussian noise from the global generator."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * torch.randn_like(x)


class Dither(InputNoise):
    """Large noise, after which each pixel is about black or white."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(400 * (super().forward(x) - 0.5))


class ColdGates(nn.Module):
    """Relaxed winners of blocks of two at a temperature of 0.01, from the global generator."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.temperature = 0.01

    def forward(self, h: Tensor) -> Tensor:
        blocks = h.view(len(h), -1, 2, *h.shape[2:])
        gumbel = -torch.log(-torch.log(torch.rand_like(blocks).clamp(1e-6, 1 - 1e-6)))
        return (blocks * torch.softmax((blocks + gumbel) / self.temperature, 2)).flatten(1, 2)


class RandomResize(nn.Module):
    """Each batch shrunk to a random size and pasted at a random place (Xie et al. 2017, 1711.01991)."""

    def forward(self, x: Tensor) -> Tensor:
        size = int(torch.randint(5, 9, ()))
        top, left = (int(torch.randint(0, 9 - size, ())) for _ in range(2))
        small = F.interpolate(x, (size, size), mode="nearest")
        return F.pad(small, (left, 8 - size - left, top, 8 - size - top))


def lwta(noise: Noise) -> Callable[[int], nn.Module]:
    def layer(channels: int) -> nn.Module:
        return LWTA(channels, 2, temperature=0.67, gate="sample", gate_noise=None, noise=noise, ibp=None)

    return layer


@dataclass(frozen=True)
class Exhibit:
    """A classifier, and the surrogate that it declares, if any."""

    model: nn.Module
    surrogate: Callable[[], AbstractContextManager[None]] | None = None


class Zoo:
    """The networks of one seed."""

    def __init__(self, data: Digits, seed: int) -> None:
        self.data, self.seed = data, seed
        self.plain = train(cnn(seed, relu), data, seed, epochs=10)
        self.robust = train(cnn(seed, relu), data, seed, epsilon=0.15)
        gated = cnn(seed, lwta(Noise(seed)))
        self.gated = train(gated, data, seed, epsilon=0.15, through=surrogate)
        self.cold = train(cnn(seed, ColdGates), data, seed, epochs=10)

        self.dithered = train(nn.Sequential(Dither(0.3), cnn(seed, relu)), data, seed, epochs=10)
        self.resized = train(nn.Sequential(RandomResize(), cnn(seed, relu)), data, seed, epochs=10)

    def honest(self) -> dict[str, Exhibit]:
        return {
            "plainly trained": Exhibit(self.plain),
            "adversarially trained": Exhibit(self.robust),
            "sampled gates through their surrogate": Exhibit(self.gated, lambda: surrogate(self.gated)),
            "small noise": Exhibit(nn.Sequential(InputNoise(0.03), self.robust)),
        }

    def masked(self) -> dict[str, Exhibit]:
        plain, robust = self.plain, self.robust
        return {
            "cold gates": Exhibit(self.cold),
            "saturated logits": Exhibit(nn.Sequential(plain, Apply(lambda logits: 1e4 * logits))),
            "saturated robust logits": Exhibit(nn.Sequential(robust, Apply(lambda logits: 1e4 * logits))),
            "quantised inputs": Exhibit(nn.Sequential(Apply(quantise), plain)),
            "stepped inputs": Exhibit(nn.Sequential(Apply(step), robust)),
            "large noise": Exhibit(self.dithered),
            "random resize": Exhibit(self.resized),
            "sampled gates alone": Exhibit(self.gated),
        }
