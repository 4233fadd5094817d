"""Parametric noise injection (He, Rakin & Fan, CVPR 2019, 1811.09310).

v~ = v + alpha * eta, eta ~ N(0, sigma^2), with sigma the standard deviation of the whole tensor v and no
gradient through it (eqs. 1 and 2). v is the layer's weights (one draw per forward pass), its inputs or its
activations, i.e. its outputs (a draw for each image). alpha is trained, without weight decay. The noise stays
on in evaluation.

sigma of inputs and activations is that of the batch `[N, ...]`, as published: an image's noise depends
slightly on its neighbours, and draws from a repeated batch share one sigma.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .convolution import Conv2d
from .kernels import unaltered
from .stochastic import Noise, Scope, Stochastic, at_least_float32

Where = Literal["weights", "inputs", "activations"]
Granularity = Literal["layer", "channel", "element"]


class PNILayer(Stochastic):
    """What the two layers share: alpha, and the noise on one tensor.

    Attributes:
        alpha: Noise in standard deviations; broadcasts to the perturbed tensor without its batch axis. `[1]`
            for a layer; per channel for a channel (output channels of weights and activations, input channels
            of inputs).
        sigma: Standard deviation to use instead of the tensor's own; the deployed form sets it, as the
            weights that it has removed still count.
    """

    alpha: nn.Parameter
    sigma: Tensor | None
    where: Where

    def _init_noise(
        self,
        where: Where,
        granularity: Granularity,
        alpha: float,
        noise: Noise,
        shapes: dict[Where, tuple[int, ...]],
    ) -> None:
        """Set up the noise; `shapes` are those of weights, inputs and activations, without batch."""
        self.where, self.noise = where, noise
        self.scope: Scope = "forward" if where == "weights" else "sample"
        shape = shapes[where]
        alphas = {"layer": (1,), "channel": (shape[0], *[1] * (len(shape) - 1)), "element": shape}[granularity]
        self.alpha = nn.Parameter(torch.full(alphas, alpha))
        self.register_buffer("sigma", None)

    @property
    def random(self) -> bool:
        """Always, but in the mean network."""
        return self.mode != "mean"

    def perturb(self, where: Where, tensor: Tensor) -> Tensor:
        """`tensor` with noise, where `where` is the layer's place for it; else `tensor` itself."""
        if where != self.where or self.mode == "mean":
            return tensor
        sigma = tensor.detach().to(at_least_float32(tensor.dtype)).std() if self.sigma is None else self.sigma
        return (tensor + (self.alpha * sigma) * self.noise.normal(tensor.shape, tensor)).to(tensor.dtype)


class PNIConv2d(PNILayer, Conv2d):
    """Convolution with noise on its weights, inputs or activations."""

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = False,
        where: Where,
        granularity: Granularity,
        alpha: float,
        size: tuple[int, int],
        noise: Noise,
    ) -> None:
        """A convolution of inputs `[N, channels_in, *size]`; `size` shapes an element-wise alpha."""
        super().__init__(channels_in, channels_out, kernel, stride=stride, padding=padding, bias=bias)
        size_out = tuple((pixels + 2 * padding - kernel) // stride + 1 for pixels in size)
        shapes: dict[Where, tuple[int, ...]] = {
            "weights": tuple(self.weight.shape),
            "inputs": (channels_in, *size),
            "activations": (channels_out, *size_out),
        }
        self._init_noise(where, granularity, alpha, noise, shapes)

    @property
    def only_convolves(self) -> bool:
        """Whether a pass now has noise on nothing but filters."""
        plain = unaltered(self, PNIConv2d) and self.bias is None
        return plain and (self.where == "weights" or not self.random)

    def filters(self) -> Tensor:
        """Filters with the noise of the pass that begins now, if that is where noise is."""
        return self.perturb("weights", self.weight)

    def forward(self, input: Tensor) -> Tensor:
        """`[N, channels_in, H, W]` -> `[N, channels_out, H', W']`."""
        x = self.perturb("inputs", input)
        y = self._conv_forward(x, self.filters(), self.bias)
        return self.perturb("activations", y)


class PNILinear(PNILayer, nn.Linear):
    """Linear layer with noise on its weights, inputs or activations; each feature is a channel."""

    def __init__(
        self,
        features_in: int,
        features_out: int,
        *,
        bias: bool = True,
        where: Where,
        granularity: Granularity,
        alpha: float,
        noise: Noise,
    ) -> None:
        """A linear layer of inputs `[N, features_in]`."""
        super().__init__(features_in, features_out, bias=bias)
        shapes: dict[Where, tuple[int, ...]] = {
            "weights": tuple(self.weight.shape),
            "inputs": (features_in,),
            "activations": (features_out,),
        }
        self._init_noise(where, granularity, alpha, noise, shapes)

    def forward(self, input: Tensor) -> Tensor:
        """`[N, features_in]` -> `[N, features_out]`."""
        x = self.perturb("inputs", input)
        y = F.linear(x, self.perturb("weights", self.weight), self.bias)
        return self.perturb("activations", y)
