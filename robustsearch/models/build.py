"""From a recipe to a network: [0, 1] images -> input noise -> normalisation -> WideResNet -> logits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import recipe as recipes
from ..data import Dataset
from ..recipe import GateMode, Recipe, gate_of
from ..seeds import derive
from .ibp import BlockPrior
from .lwta import LWTA
from .pni import PNIConv2d, PNILinear
from .smoothing import GaussianNoise
from .stochastic import Noise, average_draws, expandable, is_random, repeat_batch, stochastic_layers
from .wrn import Block, WideResNet, convolution, relu


class Normalise(nn.Module):
    """(x - mean) / std of each channel of `[N, C, H, W]`; mean and std in pixel units of [0, 1]."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Constants per channel, kept as buffers."""
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images."""
        return (images - self.mean) / self.std


class Network(nn.Module):
    """Images `[N, C, H, W]` in [0, 1] to logits `[N, classes]`.

    Attributes:
        noise: The source of all its randomness; `noise.state()` goes beside `state_dict()` into a checkpoint.
        smoothing: Input noise, or the identity.
        normalise: Normalisation.
        body: The WideResNet.
    """

    def __init__(self, smoothing: nn.Module, normalise: Normalise, body: WideResNet, noise: Noise) -> None:
        """A network of these parts; `build_network` makes them from a recipe."""
        super().__init__()
        self.noise, self.smoothing, self.normalise, self.body = noise, smoothing, normalise, body

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, classes]` of one draw."""
        logits: Tensor = self.body(self.normalise(self.smoothing(images)))
        return logits

    def predict(self, images: Tensor, draws: int) -> Tensor:
        """Probabilities `[N, classes]`: the mean softmax of `draws` draws; one pass where nothing is random.

        For a network in evaluation mode; `deploy` does the same faster.
        """
        if not is_random(self):
            return average_draws(self(images), 1)
        if expandable(self):
            return average_draws(self(repeat_batch(images, draws)), draws)
        return torch.stack([average_draws(self(images), 1) for _ in range(draws)]).mean(dim=0)

    def kl(self) -> dict[str, Tensor]:
        """KL terms of the last forward pass in training mode, summed over the layers: scalars in nats.

        `gate`, `sticks` and `z` for LWTA with the IBP prior; `gate` for LWTA alone; empty for ReLU.

        Raises:
            RuntimeError: a layer with KL terms has made no forward pass in training mode.
        """
        terms: dict[str, list[Tensor]] = defaultdict(list)
        for layer in stochastic_layers(self):
            for name, term in layer.kl().items():
                terms[name].append(term)
        return {name: torch.stack(layers).sum() for name, layers in terms.items()}

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Groups for an optimiser, of all but `block_logits`: weight decay on convolution and linear weights alone."""
        decayed = [layer.weight for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
        chosen = {id(parameter) for parameter in (*decayed, *self.block_logits())}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in chosen]
        return [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]

    def block_logits(self) -> list[nn.Parameter]:
        """Logits t `[B]` of every IBP posterior; they need an optimiser of their own, see `BlockPrior`."""
        return [layer.t for layer in self.modules() if isinstance(layer, BlockPrior)]

    def set_gate(self, gate: GateMode, gate_noise: float | None = None) -> None:
        """Switch how every LWTA layer chooses winners at evaluation; no change to a network without LWTA.

        Raises:
            ValueError: `gate_noise` is missing for gate `noisy`, or given for another.
        """
        gate_of(gate, gate_noise)
        for layer in self.modules():
            if isinstance(layer, LWTA):
                layer.gate, layer.gate_noise = gate, gate_noise

    def blocks_kept(self) -> float | None:
        """Share of LWTA blocks that survive the IBP cut-off, in [0, 1]; None without the prior."""
        kept = [layer.kept() for layer in self.modules() if isinstance(layer, BlockPrior)]
        return torch.cat(kept).float().mean().item() if kept else None


def build_network(
    recipe: Recipe,
    *,
    shape: tuple[int, int, int],
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    seed: int,
) -> Network:
    """The network of a recipe, with parameters and noise that depend on `seed` alone.

    Args:
        recipe: What to build.
        shape: C, H, W of an image.
        classes: Number of classes.
        mean: Mean of each channel, pixel units of [0, 1].
        std: Standard deviation of each channel, same units, > 0.
        seed: Any integer. torch's global generators are neither read nor moved.
    """
    channels, *size = shape
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"`mean` and `std` need a value for each of {channels} channels, but have {len(mean)}, {len(std)}"
        )
    noise = Noise(derive(seed, "noise"))
    smoothing = recipe.smoothing
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(
            derive(seed, "init")
        )  # torch.manual_seed would also reseed the GPUs, for good
        body = WideResNet(
            recipe.model.depth,
            recipe.model.widen_factor,
            classes,
            channels,
            size=(size[0], size[1]),
            activation=_activation(recipe.lwta, noise),
            **_layers(recipe, noise),
        )
    if recipe.lwta is not None:
        _start_without_branches(body)
    body.to(memory_format=torch.channels_last)  # as images come; of one channel, they do not say so themselves
    return Network(
        GaussianNoise(smoothing.sigma, smoothing.at_inference, noise) if smoothing else nn.Identity(),
        Normalise(mean, std),
        body,
        noise,
    )


def network_for(recipe: Recipe, dataset: Dataset, *, seed: int) -> Network:
    """The network of a recipe for the images of a dataset, see `build_network`."""
    return build_network(
        recipe, shape=dataset.shape, classes=dataset.classes, mean=dataset.mean, std=dataset.std, seed=seed
    )


def _activation(lwta: recipes.LWTA | None, noise: Noise) -> Callable[[int], nn.Module]:
    """What makes the activation for a number of channels."""
    if lwta is None:
        return relu

    def activation(channels: int) -> nn.Module:
        ibp = (
            None
            if lwta.ibp is None
            else BlockPrior(channels // lwta.units, alpha=lwta.ibp.alpha, cutoff=lwta.ibp.cutoff, noise=noise)
        )
        return LWTA(
            channels,
            lwta.units,
            temperature=lwta.temperature,
            gate=lwta.gate,
            gate_noise=lwta.gate_noise,
            noise=noise,
            ibp=ibp,
        )

    return activation


def _start_without_branches(body: WideResNet) -> None:
    """Set the last convolution of each residual branch to 0, so that the noise of LWTA gates does not add up.

    Let h ~ N(0, 1), as batch norm makes it, and one winner among U units. What a later layer gets is y_u = xi_u h_u,
    of which E[y_u | h_u] is signal and the rest noise, new for each image and pixel. With equal chances 1/U, the
    signal has the variance 1/U^2, the noise (1/U)(1 - 1/U): U - 1 times as much (1, 3 and 7 for 2, 4 and 8 units),
    where ReLU has none. A convolution sums both alike, so no gain of the weights mends it, and batch norm would take
    any gain back; a branch of two activations passes 1/U^2 of its variance as signal. He's weights make each branch
    as large as the stream that it joins, and after fifteen of them most of a WRN-34's features is noise. A branch
    that starts at 0 (Goyal et al. 2017, 1706.02677, section 5.1, who set the last batch norm of a branch to 0, as
    De & Smith 2020, 2002.10444, a scalar at its end) adds nothing until it has learnt something.
    """
    for block in body.blocks:
        assert isinstance(block, Block)
        nn.init.zeros_(block.conv2.weight)


def _layers(recipe: Recipe, noise: Noise) -> dict[str, Any]:
    """What makes a convolution and the classifier."""
    if recipe.pni is None:
        return {"convolution": convolution, "linear": nn.Linear}
    settings: dict[str, Any] = {**recipe.pni.model_dump(), "noise": noise}

    def noisy_convolution(
        channels_in: int, channels_out: int, kernel: int, *, stride: int, size: tuple[int, int]
    ) -> nn.Conv2d:
        return PNIConv2d(channels_in, channels_out, kernel, stride=stride, padding=kernel // 2, size=size, **settings)

    return {"convolution": noisy_convolution, "linear": partial(PNILinear, **settings)}
