"""What every stochastic layer must do, as a table: one line joins a layer, a gate or a kind of noise to the suite.

A `Member` says how its layer is made and, in numpy and closed form, what it should compute: the law of its output in
training and at inference, its mean network, and the log ratios whose mean its KL terms are. `test_conformance.py`
holds the layer to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import special, stats
from torch import Tensor
from torch.nn import functional as F

from robustsearch.models.ibp import BlockPrior
from robustsearch.models.lwta import LWTA
from robustsearch.models.pni import PNIConv2d, PNILayer, PNILinear
from robustsearch.models.smoothing import GaussianNoise
from robustsearch.models.stochastic import Noise, Stochastic, stochastic_layers

Law = Callable[[Any, np.ndarray, np.ndarray], Iterator[float]]
"""`(layer, batch [N, ...], outputs [draws, ...])` to p-values; the images of the batch are equal. An output that is
impossible fails at once."""
Exact = Callable[[Any, np.ndarray], np.ndarray]
"""`(layer, x [N, ...])` to the output, where that is certain."""
LogRatios = Callable[[Any, np.ndarray, np.random.Generator, int], dict[str, np.ndarray]]
"""`(layer, x [N, ...], generator, draws)` to draws `[draws]` of log q / p by the name of the KL term."""

COORDINATES = 6
"""Coordinates of an output that are tested, at most; the first ones."""


@dataclass(frozen=True)
class Member:
    """One line of the table."""

    name: str
    make: Callable[[Noise], Stochastic]
    shape: tuple[int, ...] | None
    """Of one input; None for a layer that takes none."""
    training: Law
    inference: Law
    mean: Exact
    """The mean network, and the surrogate where `smooth`."""
    smooth: bool = False
    """The surrogate is the mean network; else it keeps the law of inference, and the attack averages over draws."""
    averages_to_mean: bool = False
    """The mean over draws at inference is the mean network's output."""
    log_ratios: LogRatios | None = None
    compiled: bool = False
    """Stands for its family where torch.compile is tried, which takes seconds."""

    @property
    def shared(self) -> bool:
        """Images of a pass share a draw, so that each draw is a pass, and its laws take seconds."""
        return any(part.scope == "forward" for part in stochastic_layers(self.build()))

    def build(self, seed: int = 0) -> Stochastic:
        """The layer, with its own noise of this seed; in training mode."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.make(Noise(seed))

    def inputs(self, images: int = 1, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """Arguments for the layer: features `[N, *shape]`, channels-last as in a network, or none."""
        if self.shape is None:
            return ()
        x = 0.7 * torch.randn(images, *self.shape, generator=torch.Generator().manual_seed(7)) + 0.2
        return (x.to(dtype, memory_format=torch.channels_last if x.dim() == 4 else torch.preserve_format),)


# Laws -------------------------------------------------------------------------------------------------------------


def certain(exact: Exact) -> Law:
    """Always the same output."""

    def law(layer: Any, batch: np.ndarray, y: np.ndarray) -> Iterator[float]:
        np.testing.assert_allclose(y, np.broadcast_to(exact(layer, batch[:1]), y.shape), rtol=1e-5, atol=1e-6)
        yield 1.0

    return law


def winner(scale: float) -> Law:
    """One unit u of each block passes, with probability softmax(h / scale)_u: chi-square."""

    def law(lwta: LWTA, batch: np.ndarray, y: np.ndarray) -> Iterator[float]:
        h = _sets(batch[:1], lwta.units)[0]
        weighed = h * _sets(np.broadcast_to(_z(lwta, batch[:1]), batch[:1].shape), lwta.units)[0]
        for x, weight, outputs in zip(h, weighed, _sets(y, lwta.units).swapaxes(0, 1), strict=True):
            if not weight.any():
                assert not outputs.any()
                continue
            gates = outputs / weight
            winners = gates.round()
            np.testing.assert_allclose(gates, winners, atol=1e-5)
            assert ((winners == 0) | (winners == 1)).all()
            assert (winners.sum(axis=1) == 1).all()
            yield stats.chisquare(winners.sum(axis=0), len(y) * special.softmax(x / scale)).pvalue

    return law


def gumbel_softmax(tau: float) -> Law:
    """Xi = softmax((h + G) / tau), times the binary-concrete z of its block: two-sample Kolmogorov-Smirnov."""

    def law(lwta: LWTA, batch: np.ndarray, y: np.ndarray) -> Iterator[float]:
        rng = np.random.default_rng(11)
        h = _sets(batch[:1], lwta.units)[0]
        xi = special.softmax((h + rng.gumbel(size=(len(y), *h.shape))) / tau, axis=2)
        expected = _unsets(xi * h, batch.shape[1:])
        if lwta.ibp is not None:
            t = _numpy(lwta.ibp.t)
            z = _concrete(t, rng, len(y)).repeat(lwta.units, axis=1)
            expected *= z.reshape(*z.shape, *[1] * (expected.ndim - 2))
        yield from _two_samples(y, expected)

    return law


def binary_concrete(prior: BlockPrior, _: np.ndarray, z: np.ndarray) -> Iterator[float]:
    """P(z <= x) = sigmoid(tau logit(x) - t), tau = 0.67 (Maddison et al. 2017, appendix B)."""
    for t, draws in zip(_numpy(prior.t), z.T, strict=True):
        yield stats.kstest(draws, lambda x, t=t: special.expit(0.67 * special.logit(x) - t)).pvalue


def gaussian(mean_std: Callable[[Any, np.ndarray], tuple[np.ndarray, np.ndarray]], *, independent: bool) -> Law:
    """Normal, with this mean and standard deviation in each coordinate; `independent` tests all of them as one."""

    def law(layer: Any, batch: np.ndarray, y: np.ndarray) -> Iterator[float]:
        mean, std = mean_std(layer, batch)
        eta = ((y - mean) / std).reshape(len(y), -1)
        for coordinate in eta.T[:COORDINATES]:
            yield stats.kstest(coordinate, "norm").pvalue
        if independent:
            yield stats.kstest(eta[:200].ravel(), "norm").pvalue

    return law


def _two_samples(y: np.ndarray, expected: np.ndarray) -> Iterator[float]:
    one, other = y.reshape(len(y), -1), expected.reshape(len(expected), -1)
    for coordinate in range(min(COORDINATES, one.shape[1])):
        yield stats.ks_2samp(one[:, coordinate], other[:, coordinate]).pvalue


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def _sets(h: np.ndarray, units: int) -> np.ndarray:
    """Competing units: `[N, B*U, ...]` to `[N, B * pixels, U]`."""
    blocks = h.reshape(len(h), h.shape[1] // units, units, -1)
    return blocks.swapaxes(2, 3).reshape(len(h), -1, units)


def _unsets(sets: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `_sets`: `[N, B * pixels, U]` to `[N, *shape]`."""
    blocks = shape[0] // sets.shape[2]
    return sets.reshape(len(sets), blocks, -1, sets.shape[2]).swapaxes(2, 3).reshape(len(sets), *shape)


def _concrete(t: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    return special.expit((t + rng.logistic(size=(draws, len(t)))) / 0.67)


def _z(lwta: LWTA, x: np.ndarray) -> np.ndarray:
    """Posterior mean of the blocks, for each channel, broadcasting to x; 1 without the prior."""
    z = np.ones(lwta.blocks) if lwta.ibp is None else posterior_mean(lwta.ibp, x)
    return z.repeat(lwta.units).reshape(-1, *[1] * (x.ndim - 2))


# Mean networks and KL terms ---------------------------------------------------------------------------------------


def mean_gate(lwta: LWTA, x: np.ndarray) -> np.ndarray:
    """softmax(h) h, times the posterior mean of the block."""
    sets = _sets(x, lwta.units)
    return _unsets(special.softmax(sets, axis=2) * sets, x.shape[1:]) * _z(lwta, x)


def largest(lwta: LWTA, x: np.ndarray) -> np.ndarray:
    """The largest unit of each block alone, times the posterior mean of the block."""
    sets = _sets(x, lwta.units)
    return _unsets(np.where(sets == sets.max(axis=2, keepdims=True), sets, 0), x.shape[1:]) * _z(lwta, x)


def posterior_mean(prior: BlockPrior, _: np.ndarray) -> np.ndarray:
    """sigmoid(t), 0 below the cut-off."""
    q = special.expit(_numpy(prior.t))
    return np.where(q >= prior.cutoff, q, 0)


def gate_ratios(lwta: LWTA, x: np.ndarray, rng: np.random.Generator, draws: int) -> dict[str, np.ndarray]:
    """Log q_u + log U of winners u ~ q, summed over the blocks, mean over images and pixels; and those of the prior."""
    q = special.softmax(_sets(x, lwta.units), axis=2)
    u = (rng.uniform(size=(draws, *q.shape[:2], 1)) > q.cumsum(axis=2)[None]).sum(axis=3).clip(max=lwta.units - 1)
    log_q = np.log(np.take_along_axis(np.broadcast_to(q, (draws, *q.shape)), u[..., None], axis=3))[..., 0]
    total = (log_q + np.log(lwta.units)).sum(axis=2).mean(axis=1) * lwta.blocks / q.shape[1]
    prior = {} if lwta.ibp is None else prior_ratios(lwta.ibp, x, rng, draws)
    return {"gate": total, **prior}


def prior_ratios(prior: BlockPrior, _: np.ndarray, rng: np.random.Generator, draws: int) -> dict[str, np.ndarray]:
    """Log ratios of the sticks u (Kumaraswamy against Beta(alpha, 1)) and of z (Bernoulli), summed over the blocks."""
    a, c = (np.log1p(np.exp(_numpy(raw))) for raw in (prior.raw_a, prior.raw_c))
    q, alpha = special.expit(_numpy(prior.t)), prior.alpha
    u = (1 - rng.uniform(size=(draws, len(a))) ** (1 / c)) ** (1 / a)
    sticks = np.log(a * c * u ** (a - 1) * (1 - u**a) ** (c - 1)) - np.log(alpha * u ** (alpha - 1))
    z, pi = rng.uniform(size=u.shape) < q, u.cumprod(axis=1)
    return {
        "sticks": sticks.sum(axis=1),
        "z": (np.log(np.where(z, q, 1 - q)) - np.log(np.where(z, pi, 1 - pi))).sum(axis=1),
    }


def _apply(layer: PNILayer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    if isinstance(layer, PNIConv2d):
        return F.conv2d(x, weight, bias, layer.stride, layer.padding)
    return F.linear(x, weight, bias)


def without_noise(layer: PNILayer, x: np.ndarray) -> np.ndarray:
    """The plain layer."""
    bias = None if layer.bias is None else layer.bias.double()
    return _numpy(_apply(layer, torch.from_numpy(x), layer.weight.double(), bias))


def pni_moments(layer: PNILayer, batch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each output, which is linear in the noise."""
    x, weight, alpha = torch.from_numpy(batch), layer.weight.detach().double(), layer.alpha.detach().double()
    clean = without_noise(layer, batch)
    if layer.where == "weights":
        variance = _apply(layer, x[:1] ** 2, (alpha * weight.std()).expand_as(weight) ** 2)
    elif layer.where == "inputs":
        variance = _apply(layer, (alpha * x.std()).expand_as(x[:1]) ** 2, weight**2)
    else:
        variance = (alpha * clean.std(ddof=1)).expand(clean.shape[1:])[None] ** 2
    return clean[:1], _numpy(variance.sqrt())


# The table --------------------------------------------------------------------------------------------------------


def _lwta(units: int, gate: str, scale: float | None = None, *, ibp: bool = False) -> Callable[[Noise], Stochastic]:
    def make(noise: Noise) -> Stochastic:
        prior = _prior(8 // units)(noise) if ibp else None
        return LWTA(8, units, temperature=0.67, gate=gate, gate_noise=scale, noise=noise, ibp=prior)

    return make


def _prior(blocks: int, *, dense: bool = False) -> Callable[[Noise], BlockPrior]:
    """Blocks of probabilities on both sides of the cut-off, and of 1/2."""

    def make(noise: Noise) -> BlockPrior:
        prior = BlockPrior(blocks, alpha=1.5, cutoff=0.3, noise=noise, dense=dense)
        prior.t.data = torch.linspace(2.0, -1.5 if blocks > 2 else 0.3, blocks)
        return prior

    return make


def _pni(kind: str, where: Any, granularity: Any) -> Callable[[Noise], Stochastic]:
    def make(noise: Noise) -> Stochastic:
        settings: dict[str, Any] = {"where": where, "granularity": granularity, "alpha": 0.25, "noise": noise}
        layer: PNIConv2d | PNILinear = (
            PNIConv2d(2, 3, 3, stride=2, padding=1, size=(4, 3), **settings)
            if kind == "conv"
            else PNILinear(5, 4, **settings)
        )
        layer.alpha.data.uniform_(0.1, 0.6)
        return layer

    return make


def _smoothing(*, at_inference: bool) -> Callable[[Noise], Stochastic]:
    return lambda noise: GaussianNoise(0.2, at_inference, noise)


def _unchanged(_: Any, x: np.ndarray) -> np.ndarray:
    return x


FORMS = {"dense": (8,), "conv": (8, 1, 2)}
GATES: dict[str, tuple[Any, ...]] = {
    "sample": ("sample", None, winner(1.0)),
    "mean": ("mean", None, certain(mean_gate)),
    "argmax": ("argmax", None, certain(largest)),
    "noisy-0": ("noisy", 0.0, certain(largest)),
    "noisy-0.5": ("noisy", 0.5, winner(0.5)),
    "noisy-3": ("noisy", 3.0, winner(3.0)),
}
RELAXED = gumbel_softmax(0.67)
X = gaussian(lambda layer, batch: (batch[:1], np.array(layer.sigma)), independent=True)

MEMBERS = [
    *(
        Member(
            f"lwta-{units}-{form}-{name}{'-ibp' if ibp else ''}",
            _lwta(units, gate, scale, ibp=ibp),
            shape,
            RELAXED,
            law,
            mean_gate,
            smooth=True,
            averages_to_mean=name in ("sample", "mean"),
            log_ratios=gate_ratios,
            compiled=(units, form, ibp) == (2, "conv", True),
        )
        for units in (2, 4)
        for form, shape in FORMS.items()
        for name, (gate, scale, law) in GATES.items()
        for ibp in ((False, True) if name == "sample" else (False,))
    ),
    *(
        Member(
            f"prior-{'dense' if dense else 'conv'}",
            _prior(4, dense=dense),
            None,
            binary_concrete,
            certain(posterior_mean),
            posterior_mean,
            smooth=True,
            averages_to_mean=True,
            log_ratios=prior_ratios,
        )
        for dense in (False, True)
    ),
    *(
        Member(
            f"pni-{kind}-{where}-{granularity}",
            _pni(kind, where, granularity),
            shape,
            law,
            law,
            without_noise,
            averages_to_mean=True,
            compiled=(kind, where, granularity) == ("conv", "weights", "channel"),
        )
        for kind, shape in {"conv": (2, 4, 3), "linear": (5,)}.items()
        for where in ("weights", "inputs", "activations")
        for granularity in ("layer", "channel", "element")
        for law in [gaussian(pni_moments, independent=where == "activations")]
    ),
    Member(
        "smoothing", _smoothing(at_inference=True), (1, 4, 3), X, X, _unchanged, averages_to_mean=True, compiled=True
    ),
    Member("training-noise", _smoothing(at_inference=False), (1, 4, 3), X, certain(_unchanged), _unchanged),
]
"""Every stochastic layer, gate and kind of noise."""
