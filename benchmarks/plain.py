"""The plain way to train such a network, to compare with: an unfused LWTA layer, float32, contiguous, a library's PGD.

The layer is written as published code writes it (Panousis et al. 2021, 2101.01121): the log of a softmax, Gumbel noise
for each unit, a softmax with a temperature, a product, and the KL from the same softmax; each is a pass over all
features, and autograd keeps most of them. Parameters have the names of `models.build.Network`, which can load them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustsearch.data import Dataset
from robustsearch.models.build import Normalise, network_for
from robustsearch.models.wrn import relu
from robustsearch.recipe import Recipe

EPS = 1e-10


class PlainLWTA(nn.Module):
    """Relaxed gates over `units` adjacent channels, in training and under attack alike."""

    def __init__(self, units: int, temperature: float) -> None:
        super().__init__()
        self.units, self.temperature = units, temperature
        self.kl = torch.zeros(())

    def forward(self, h: Tensor) -> Tensor:
        """`[N, C, H, W]` -> the same."""
        blocks = h.reshape(h.shape[0], -1, self.units, *h.shape[2:])
        q = F.softmax(blocks, dim=2)
        uniform = torch.rand(blocks.shape)
        gumbel = -torch.log(-torch.log(uniform + EPS) + EPS)
        xi = F.softmax((torch.log(q + EPS) + gumbel) / self.temperature, dim=2)
        if self.training:
            self.kl = (q * (torch.log(q + EPS) - torch.log(torch.tensor(1 / self.units)))).sum(dim=(1, 2)).mean()
        return (xi * blocks).reshape(h.shape)


def torchs(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution of torch with the weights of ours."""
    plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, bias=False)
    plain.weight = nn.Parameter(layer.weight.detach().clone(memory_format=torch.contiguous_format))
    return plain


class Plain(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] to logits `[N, classes]`."""

    def __init__(self, recipe: Recipe, dataset: Dataset, seed: int) -> None:
        """The network of the recipe, from the very weights that `network_for` starts with."""
        super().__init__()
        network = network_for(recipe, dataset, seed=seed)
        self.normalise = Normalise(dataset.mean, dataset.std)
        self.body = network.body
        lwta = recipe.lwta
        for parent in list(self.body.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.BatchNorm2d):
                    setattr(parent, name, nn.BatchNorm2d(child.num_features))
                elif isinstance(child, nn.Conv2d):
                    setattr(parent, name, torchs(child))
                elif name.startswith("activation"):
                    setattr(parent, name, PlainLWTA(lwta.units, lwta.temperature) if lwta else relu(0))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of one draw."""
        logits: Tensor = self.body(self.normalise(images))
        return logits

    def kl(self) -> Tensor:
        """Gate KL of the last pass in training, nats."""
        terms = [layer.kl for layer in self.modules() if isinstance(layer, PlainLWTA)]
        return torch.stack(terms).sum() if terms else torch.zeros(())


def library_pgd(folder: Path | None) -> Callable[..., Any] | None:
    """The class PGD of torchattacks, from `folder` if given (`pip install --no-deps --target`); None without it."""
    if folder is not None:
        sys.path.insert(0, str(folder))
    try:
        from torchattacks.attacks.pgd import PGD
    except ImportError:
        return None
    return PGD  # type: ignore[no-any-return]


class PlainTrainer:
    """The usual loop: float images in memory, PGD of the library, one step of SGD."""

    def __init__(
        self,
        recipe: Recipe,
        dataset: Dataset,
        seed: int,
        pgd: Callable[..., Any],
        *,
        lr: float,
        attacked: bool = True,
    ) -> None:
        torch.manual_seed(seed)
        self.recipe, self.network = recipe, Plain(recipe, dataset, seed).train()
        self.images = torch.from_numpy(dataset.train.images.copy()).permute(0, 3, 1, 2).float().div(255).contiguous()
        self.labels = torch.from_numpy(dataset.train.labels.copy())
        attack, training = recipe.attack, recipe.training
        self.attack = pgd(self.network, eps=attack.epsilon, alpha=attack.step, steps=attack.steps, random_start=True)
        self.attacked = attacked
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=lr, momentum=0.9, nesterov=True, weight_decay=training.weight_decay
        )

    def step(self, chosen: Tensor, strength: float = 1.0) -> None:
        """One batch; `strength` is the share of epsilon and step, as in a warm-up."""
        images, labels = self.images[chosen], self.labels[chosen]
        self.attack.eps = strength * self.recipe.attack.epsilon
        self.attack.alpha = strength * self.recipe.attack.step
        if self.attacked:
            images = self.attack(images, labels)
        loss = F.cross_entropy(self.network(images), labels)
        if self.recipe.lwta:
            loss = loss + self.recipe.lwta.kl_weight * self.network.kl() / len(self.labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
