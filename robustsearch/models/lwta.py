"""Stochastic local winner-takes-all activation (Panousis et al. 2021, 2101.01121 and 2112.02671).

U adjacent channels form a block and compete at each image and pixel; the output is y = xi * h, with a gate xi
over the units of each block and no other non-linearity. With q = softmax(h) over the units:

    training          xi = softmax((h + G) / tau), G Gumbel(0, 1)      relaxed categorical
    gate `sample`     one winner, P(u wins) = q_u exactly              argmax(h + G): the Gumbel-max trick
    gate `noisy`      one winner, argmax(h + s G)                      s = 1 is `sample`, large s uniform
    gate `argmax`     one winner, argmax(h)                            s = 0
    gate `mean`       xi = q; also the surrogate of every other gate
    straight-through  xi of the gate, with the gradient of q: for attacks on hard gates

So each gate is one rule: the scale s of the noise, and a temperature or one winner. For two units only the
difference of their logits counts, and a difference of two Gumbels is one logistic draw: half the work, the
same law. `paired` computes them in a few passes where the units lie side by side in memory, as in channels-last;
`fused`, where a C compiler is there, in one, for any U.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..recipe import GateMode, gate_of
from . import fused
from .ibp import BlockPrior
from .paired import fits, paired_gate
from .stochastic import Noise, Stochastic, at_least_float32


def gate(h: Tensor, *, scale: float, temperature: float | None, noise: Noise) -> Tensor:
    """Gate over the units of each block, `[N, B, U, ...]`, for any U.

    Args:
        h: Logits `[N, B, U, ...]`.
        scale: Scale s >= 0 of the Gumbel noise on the logits.
        temperature: Softmax temperature; None for the one-hot winner.
        noise: Source of the draws; not used where `scale` is 0.
    """
    if scale:
        h = torch.sub(h, torch.log(-torch.log(noise.uniform(h.shape, h))), alpha=scale)
    if temperature is not None:
        return torch.softmax(h / temperature, dim=2)
    winner = h.max(dim=2, keepdim=True).indices  # h.argmax is 8 times slower here, on the CPU
    return torch.zeros_like(h).scatter_(2, winner, 1.0)


def pair_gate(margin: Tensor, *, scale: float, temperature: float | None, noise: Noise) -> Tensor:
    """Gate of unit 0 of each block of two, `[N, B, ...]`, from the margin h_0 - h_1; otherwise as `gate`."""
    if scale:
        margin = torch.add(margin, noise.logistic(margin.shape, margin), alpha=scale)
    if temperature is not None:
        return torch.sigmoid(margin / temperature)
    return (margin >= 0).to(margin.dtype)


def gate_kl(h: Tensor) -> Tensor:
    """KL of q = softmax(h) to the uniform gate, nats: sum_u q_u (log q_u + log U); logits `[N, B, U, ...]`.

    Summed over the blocks, averaged over images and pixels; a scalar >= 0, 0 for equal logits.
    """
    log_q = torch.log_softmax(h, dim=2, dtype=at_least_float32(h.dtype))
    return _per_pixel((log_q.exp() * log_q).sum(dim=2) + math.log(h.shape[2]))


def pair_gate_kl(margin: Tensor) -> Tensor:
    """`gate_kl` for blocks of two, from the margin m `[N, B, ...]`: q_0 m - softplus(m) + log 2."""
    margin = margin.to(at_least_float32(margin.dtype))
    return _per_pixel(torch.sigmoid(margin) * margin - F.softplus(margin) + math.log(2))


def _per_pixel(kl: Tensor) -> Tensor:
    """Sum over blocks, mean over images and pixels, of `[N, B, ...]`."""
    return kl.mean() * kl.shape[1]


def _with_gradient_of(smooth: Tensor, value: Tensor) -> Tensor:
    """`value`, with the gradient of `smooth` added to its own."""
    return value + (smooth - smooth.detach())


class LWTA(Stochastic):
    """Stochastic local winner-takes-all, on `[N, B*U, H, W]` or `[N, B*U]`; U adjacent channels form a block.

    Attributes:
        gate: Gate at evaluation; may be changed at any time, as may `gate_noise`.
        gate_noise: Scale s of the noise of a gate that has none of its own (`noisy`), else None.
        ibp: Prior that weighs each block by z_b, or None.
    """

    def __init__(
        self,
        channels: int,
        units: int,
        *,
        temperature: float,
        gate: GateMode,
        gate_noise: float | None,
        noise: Noise,
        ibp: BlockPrior | None,
    ) -> None:
        """A layer of `channels / units` blocks; `temperature` is that of the relaxed gate in training."""
        super().__init__()
        if channels % units:
            raise ValueError(f"`units` must divide the channels, but got {units} units for {channels} channels")
        gate_of(gate, gate_noise)
        self.blocks, self.units, self.temperature = channels // units, units, temperature
        self.gate, self.gate_noise, self.noise, self.ibp = gate, gate_noise, noise, ibp
        self._kl = None

    @property
    def hard(self) -> bool:
        """Whether evaluation has winners, and not weights as for `mean`."""
        return gate_of(self.gate, self.gate_noise).temperature is None

    @property
    def random(self) -> bool:
        """Whether evaluation draws winners: for `sample` and for `noisy` with s > 0, but for smooth modes."""
        scale, _ = self.rule(training=False)
        return scale > 0

    def forward(self, h: Tensor) -> Tensor:
        """Gated features, of the shape of `h`."""
        blocks = h.view(h.shape[0], self.blocks, self.units, *h.shape[2:])
        scale, temperature = self.rule(self.training)
        if self.training and self.mode == "random" and fused.fits(h, self.units):
            y, kl = fused.relaxed(h, units=self.units, temperature=self.temperature, seed=self.noise.number(h))
            self._kl = {"gate": kl}
            return self._weighed(y)
        if self.units == 2 and self.mode != "straight" and fits(h):
            return self._paired(h, scale, temperature)
        if self.units == 2:
            first, second = blocks.unbind(dim=2)
            margin = first - second
            share = pair_gate(margin, scale=scale, temperature=temperature, noise=self.noise)
            if self.mode == "straight":
                share = _with_gradient_of(torch.sigmoid(margin), share)
            xi = torch.stack((share, 1 - share), dim=2)
        else:
            xi = gate(blocks, scale=scale, temperature=temperature, noise=self.noise)
            if self.mode == "straight":
                xi = _with_gradient_of(torch.softmax(blocks, dim=2), xi)
        if self.training:
            self._kl = {"gate": pair_gate_kl(margin) if self.units == 2 else gate_kl(blocks)}
        if self.ibp is not None:
            xi = xi * self.ibp().view(-1, *[1] * (h.dim() - 1))
        return (blocks * xi.to(h.dtype)).flatten(1, 2)

    def _paired(self, h: Tensor, scale: float, temperature: float | None) -> Tensor:
        """`forward` for blocks of two whose units lie side by side."""
        noise = None
        if scale:
            # In training the noise regularises and 2^16 values of it will do; what predicts draws finely.
            draw = self.noise.coarse_logistic if self.training else self.noise.logistic
            noise = draw((h.numel() // 2,), h)
        y, kl = paired_gate(h, noise=noise, scale=scale, temperature=temperature, with_kl=self.training)
        if kl is not None:
            self._kl = {"gate": kl}
        return self._weighed(y)

    def _weighed(self, y: Tensor) -> Tensor:
        """Gated features by the weights of their blocks."""
        factor = self.factor()
        return y if factor is None else y * factor.to(y.dtype).view(-1, *[1] * (y.dim() - 2))

    def factor(self) -> Tensor | None:
        """Weight of the block of each channel now, `[B*U]`, or None without a prior."""
        return None if self.ibp is None else self.ibp().repeat_interleave(self.units)

    def rule(self, training: bool) -> tuple[float, float | None]:
        """Noise scale s and temperature of the gate now; temperature None is one winner."""
        if self.mode in ("surrogate", "mean"):
            return 0.0, 1.0
        if training:
            return 1.0, self.temperature
        gate = gate_of(self.gate, self.gate_noise)
        assert gate.noise is not None, "`gate_of` fills it in"
        return gate.noise, gate.temperature

    def extra_repr(self) -> str:
        """Blocks, units and gate."""
        return f"blocks={self.blocks}, units={self.units}, gate={self.gate!r}, gate_noise={self.gate_noise}"
