"""A small undefended network on the 8x8 digits, and random networks whose layers have state to disturb."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn


@dataclass(frozen=True)
class Trained:
    """An undefended network in eval mode, and test images `[N, 1, 8, 8]` that it has not seen."""

    model: nn.Module
    images: Tensor
    labels: Tensor


@pytest.fixture(scope="session")
def digits() -> Trained:
    data = load_digits()
    images = torch.tensor(data.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(data.target, dtype=torch.int64)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
        order = torch.randperm(len(images))
        test, train = order[:200], order[200:]
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(8):
            for batch in train.split(64):
                optimizer.zero_grad()
                F.cross_entropy(model(images[batch]), labels[batch]).backward()
                optimizer.step()
    model.eval().requires_grad_(False)
    return Trained(model, images[test], labels[test])


@pytest.fixture
def make_net() -> Callable[..., nn.Module]:
    """Builds a random network in train mode, but for its dropout, which is in eval mode."""

    def make(channels: int = 3, size: int = 6, classes: int = 4) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(1)
            net = nn.Sequential(
                nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Tanh(), nn.Dropout(0.5),
                nn.Flatten(), nn.Linear(4 * size * size, classes),
            )  # fmt: skip
        net[3].eval()
        return net.double()

    return make
