"""The loop over epochs. Data stays on the device as uint8; each batch is augmented, attacked and learnt from there."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..attacks.gradient import crafting
from ..attacks.mixing import Mixer
from ..data import Dataset, augment, to_tensor
from ..errors import DivergedError
from ..models.build import Network
from ..models.stochastic import expandable, surrogate
from ..recipe import Recipe, Training
from ..seeds import derive
from .awp import perturbed_weights
from .joined import Joined
from .loss import data_terms, objective_terms


class Trainer:
    """Trains one network; its whole state can be saved after any epoch and continues bit for bit on the CPU."""

    def __init__(self, network: Network, recipe: Recipe, dataset: Dataset, seed: int, device: torch.device) -> None:
        self.network = network
        self.recipe = recipe
        self.epoch = 0
        self._images, self._labels = (
            _on_device(array, device) for array in (dataset.train.images, dataset.train.labels)
        )
        self._crop, self._flip = (dataset.crop_padding, dataset.flip) if recipe.training.augment else (0, False)
        training = recipe.training
        self._mixer = Mixer(recipe.mix, recipe.attack, derive(seed, "attacks"), trades=training.trades is not None)
        self._order = torch.Generator().manual_seed(derive(seed, "order"))
        self._augment = torch.Generator(device).manual_seed(derive(seed, "augment"))
        self._batches = -(-len(self._labels) // training.batch_size)
        self._optimizer = _optimizer(network, recipe)
        self._schedule = _schedule(self._optimizer, training, self._batches * training.epochs)

    def run_epoch(self, turn: Callable[[], AbstractContextManager[None]] = nullcontext) -> dict[str, float]:
        """Train one epoch; returns the mean of each term of the objective, of their sum `loss`, and the last `lr`.

        Each step runs inside a `turn()` of its own, so that others can have the device to themselves in between.

        Raises:
            DivergedError: the objective is no longer finite.
        """
        self.network.train()
        permutation = torch.randperm(len(self._labels), generator=self._order).to(self._labels.device)
        epochs = self.recipe.training.epochs
        sums: dict[str, Tensor] = {}
        for index, chosen in enumerate(permutation.tensor_split(self._batches)):
            lr = self._optimizer.param_groups[0]["lr"]
            with turn():
                terms = self._step(chosen, progress=(self.epoch + (index + 1) / self._batches) / epochs)
            for name, value in terms.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
        self.epoch += 1
        means = {name: float(value) / self._batches for name, value in sums.items()}
        # Terms that not every batch has (clean_ce) are averaged over all batches, so that the terms sum to the loss.
        return means | {"lr": float(lr)}

    def _step(self, chosen: Tensor, *, progress: float) -> dict[str, Tensor]:
        training, attack = self.recipe.training, self.recipe.attack
        images = to_tensor(self._images[chosen], self._images.device)
        labels = self._labels[chosen]
        if self._crop or self._flip:
            images = augment(images, crop_padding=self._crop, flip=self._flip, generator=self._augment)
        name = self._mixer.draw()
        perturbed = None
        if name != "clean":
            strength = min(1.0, progress / attack.warmup) if attack.warmup else 1.0
            with crafting(self.network), surrogate(self.network):
                perturbed = self._mixer.perturb(
                    name, self.network, images, labels, strength=strength, expand=expandable(self.network)
                )
        batch = self.network, images, perturbed, labels
        clean_weight, trades = training.clean_weight, training.trades
        adversary: AbstractContextManager[None] = nullcontext()
        if training.awp is not None and perturbed is not None:
            adversary = perturbed_weights(
                self.network,
                lambda: _total(data_terms(*batch, clean_weight=clean_weight, trades=trades)),
                training.awp,
            )
        with adversary:
            terms = objective_terms(
                *batch,
                clean_weight=clean_weight,
                trades=trades,
                kl_weight=self.recipe.lwta.kl_weight if self.recipe.lwta else 0.0,
                n_train=len(self._labels),
            )
            loss = _total(terms)
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"the training objective must stay finite, but is {loss.item()} in epoch {self.epoch + 1} "
                    f"(attack {name}, learning rate {self._optimizer.param_groups[0]['lr']:.3g})"
                )
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()
        return {term: value.detach() for term, value in terms.items()} | {"loss": loss.detach()}

    def state(self) -> dict[str, Any]:
        """All that changes while training: tensors, numbers and strings only."""
        return {
            "epoch": self.epoch,
            "network": self.network.state_dict(),
            "noise": self.network.noise.state(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": {"last_epoch": self._schedule.last_epoch},
            "mixer": self._mixer.state(),
            "order": self._order.get_state(),
            "augment": self._augment.get_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken."""
        self.epoch = state["epoch"]
        self.network.load_state_dict(state["network"])
        self.network.noise.load_state(state["noise"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.last_epoch = state["schedule"]["last_epoch"]
        self._mixer.load_state(state["mixer"])
        self._order.set_state(state["order"])
        self._augment.set_state(state["augment"])


def _on_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """An array as a tensor; on a CPU it is the array's own memory, which the workers of a node share, to read alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        return torch.from_numpy(array).to(device)


def _total(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser, joined by Adam for the logits of the IBP posterior where there are any."""
    training = recipe.training
    groups, momentum = network.parameter_groups(training.weight_decay), training.momentum
    optimizer: torch.optim.Optimizer
    if training.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=training.lr, betas=(momentum, 0.999), fused=True)
    else:
        optimizer = torch.optim.SGD(groups, lr=training.lr, momentum=momentum, nesterov=momentum > 0, fused=True)
    if recipe.lwta is None or recipe.lwta.ibp is None:
        return optimizer
    return Joined(optimizer, torch.optim.Adam(network.block_logits(), lr=recipe.lwta.ibp.lr, fused=True))


def _schedule(optimizer: torch.optim.Optimizer, training: Training, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: lr_factor(training.schedule, step / steps))


def lr_factor(schedule: str, progress: float) -> float:
    """Learning rate at `progress` in [0, 1] of training, as a share of its peak.

    `one-cycle` rises from 1/25 along a cosine over the first 30% and falls to 1e-4 / 25 along another (Smith & Topin
    2018, 1708.07120, in the two-phase form of fast.ai); `cosine` falls to 0 (Loshchilov & Hutter 2017, 1608.03983).
    """

    def cosine(start: float, end: float, share: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * share)) / 2

    if schedule == "one-cycle":
        low, rise = 1 / 25, 0.3
        if progress < rise:
            return cosine(low, 1.0, progress / rise)
        return cosine(1.0, low * 1e-4, (progress - rise) / (1 - rise))
    return cosine(1.0, 0.0, progress) if schedule == "cosine" else 1.0
