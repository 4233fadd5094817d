"""Randomness of a network: where it comes from, which layers draw, and how to switch it off or smooth it.

Noise                        generators of one network, apart from torch's global one
Stochastic                   base of every layer that draws
surrogate, mean_network      contexts: the network that an adaptive attack differentiates; the noise-free one
straight_through             context: the network itself, with the surrogate's gradient
is_hard                      whether a gradient misses what the network chooses between
is_random, expandable        what K draws of a network need: one pass, a repeated batch, or K passes
repeat_batch, average_draws  K draws as one batch, and their mean in probability space
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn

Scope = Literal["sample", "forward"]
"""What one draw covers: one image of the batch, or one forward pass."""

Mode = Literal["random", "surrogate", "straight", "mean"]
"""The network itself; its smooth stand-in for gradients; itself, with the stand-in's gradient; itself without noise."""


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which noise and KL terms are computed: float32, or `dtype` where that is wider."""
    return torch.promote_types(dtype, torch.float32)


class Noise:
    """The one source of randomness of a network: a private generator per device, made when first used.

    It neither reads nor moves torch's global generators. Copies and pickles continue the stream from where it
    stands.
    """

    def __init__(self, seed: int) -> None:
        self.seed(seed)

    def seed(self, seed: int) -> None:
        """Start all streams anew from `seed`."""
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._saved: dict[str, Tensor] = {}

    def uniform(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Uniform on the open interval (0, 1), so that logarithms are finite; device and dtype of `like`.

        Where `like` is of lower precision than float32 the draw is float32, as a bfloat16 grid has 256 values
        only.
        """
        dtype = at_least_float32(like.dtype)
        draw = torch.rand(tuple(shape), generator=self.generator(like.device), device=like.device, dtype=dtype)
        # torch.rand is a multiple of eps / 2 in [0, 1): only 0 has to move, to half a grid step.
        return draw.clamp_min_(torch.finfo(dtype).eps / 4)

    def normal(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard normal; device and dtype as `uniform`."""
        dtype = at_least_float32(like.dtype)
        return torch.randn(tuple(shape), generator=self.generator(like.device), device=like.device, dtype=dtype)

    def logistic(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """Standard logistic, the difference of two Gumbels; device and dtype as `uniform`."""
        return self.uniform(shape, like).logit_()

    def coarse_logistic(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """`logistic` on a CPU from 16 bits a draw, in a third of the time: the quantiles (k + 1/2) / 2^16.

        Its distribution function is that of `logistic` to within 2^-17; no draw is beyond 11.8. Four draws come from
        each of the generator's 64-bit numbers. For float64, and on other devices, `logistic` itself.
        """
        if like.device.type != "cpu" or like.dtype == torch.float64:
            return self.logistic(shape, like)
        count = math.prod(shape)
        numbers = torch.empty(-(-count // 4), dtype=torch.int64)
        numbers.random_(-(2**63), None, generator=self.generator(like.device))
        steps = numbers.view(torch.int16)[:count].view(tuple(shape))
        return steps.to(torch.float32).mul_(2**-16).add_(0.5 + 2**-17).logit_()

    def number(self, like: Tensor) -> int:
        """An integer below 2^62, from which a pass of `fused` draws."""
        return int(torch.randint(2**62, (), generator=self.generator(like.device), device=like.device))

    def state(self) -> dict[str, Tensor]:
        """Where every stream stands: the seed, and the generator state of each device used."""
        used = {str(device): generator.get_state() for device, generator in self._generators.items()}
        return {"seed": torch.tensor(self._seed)} | self._saved | used

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Continue from `state`; streams of devices that this machine lacks wait until they are used."""
        self.seed(int(state["seed"]))
        self._saved = {device: stream.cpu() for device, stream in state.items() if device != "seed"}

    def generator(self, device: torch.device) -> torch.Generator:
        """The stream of a device, begun when first used."""
        generator = self._generators.get(device)
        if generator is None:
            generator = torch.Generator(device).manual_seed(self._seed)
            if (saved := self._saved.pop(str(device), None)) is not None:
                generator.set_state(saved)
            self._generators[device] = generator
        return generator

    def __getstate__(self) -> dict[str, Tensor]:
        return self.state()

    def __setstate__(self, state: dict[str, Tensor]) -> None:
        self.load_state(state)


class Stochastic(nn.Module):
    """Base of every layer that draws. It draws from `noise` only.

    Attributes:
        noise: The network's source of randomness, shared by its layers.
        scope: What one draw of the layer covers at inference.
        mode: How the layer behaves now; set by `surrogate`, `straight_through` and `mean_network`.
    """

    noise: Noise
    scope: Scope = "sample"
    mode: Mode = "random"
    _kl: Mapping[str, Tensor] | None = MappingProxyType({})  # None: has KL terms, but no training pass has made them

    @property
    def random(self) -> bool:
        """Whether two evaluation passes of this layer can differ in its present mode."""
        raise NotImplementedError

    @property
    def hard(self) -> bool:
        """Whether the layer, by itself, chooses at evaluation, in steps that a gradient does not see; most do not."""
        return False

    def kl(self) -> Mapping[str, Tensor]:
        """KL terms of the last forward pass in training mode, scalars in nats; most layers have none.

        Raises:
            RuntimeError: no forward pass in training mode has been made.
        """
        if self._kl is None:
            raise RuntimeError(f"`kl` needs a forward pass in training mode first, but {type(self).__name__} had none")
        return self._kl

    def __getstate__(self) -> dict[str, Any]:
        # A copy does not belong to the autograd graph of the original's last pass.
        return self.__dict__ | ({"_kl": None} if "_kl" in self.__dict__ else {})


def stochastic_layers(network: nn.Module) -> list[Stochastic]:
    """All layers of a network that draw in some mode."""
    return [layer for layer in network.modules() if isinstance(layer, Stochastic)]


@contextmanager
def _mode(network: nn.Module, mode: Mode) -> Iterator[None]:
    before = [(layer, layer.mode) for layer in stochastic_layers(network)]
    try:
        for layer, _ in before:
            layer.mode = mode
        yield
    finally:
        for layer, old in before:
            layer.mode = old


def surrogate(network: nn.Module) -> AbstractContextManager[None]:
    """Context in which the network is a smooth stand-in for itself, for an adaptive attack to differentiate.

    LWTA weighs its units by the mean gate and the IBP its blocks by the posterior mean. Parametric and input
    noise stay
    random: their surrogate is the mean over the draws that the attack takes.
    """
    return _mode(network, "surrogate")


def straight_through(network: nn.Module) -> AbstractContextManager[None]:
    """Context in which the network predicts as it does by itself, with the gradient of its surrogate beside its own.

    Hard gates are stepped over by the gradient of the mean gate (Bengio et al. 2013, 1308.3432, section 2). The rest
    behaves as by itself.
    """
    return _mode(network, "straight")


def mean_network(network: nn.Module) -> AbstractContextManager[None]:
    """Context in which nothing is random: mean gates, and parametric and input noise off."""
    return _mode(network, "mean")


def is_hard(network: nn.Module) -> bool:
    """Whether the network by itself makes choices that a gradient does not see."""
    return any(layer.hard for layer in stochastic_layers(network))


def is_random(network: nn.Module) -> bool:
    """Whether two evaluation passes of the network on one input can differ in its present mode."""
    return any(layer.random for layer in stochastic_layers(network))


def expandable(network: nn.Module) -> bool:
    """Whether K draws can be had in one pass over the batch repeated K times.

    True if each layer that is random in evaluation draws for each image; one draw per forward pass needs K
    passes.
    """
    return all(layer.scope == "sample" for layer in stochastic_layers(network) if layer.random)


def repeat_batch(x: Tensor, draws: int) -> Tensor:
    """A batch `[N, ...]` after itself, `draws` times: `[draws * N, ...]`."""
    return x.repeat(draws, *[1] * (x.dim() - 1))


def average_draws(logits: Tensor, draws: int) -> Tensor:
    """Probabilities `[N, classes]`: mean softmax over the draws of a repeated batch `[draws * N, ...]`."""
    return logits.softmax(dim=1).view(draws, -1, logits.shape[1]).mean(dim=0)
