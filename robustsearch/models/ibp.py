"""Indian buffet process prior over LWTA blocks, so that a network can drop the blocks it does not need.

Prior: u_b ~ Beta(alpha, 1), pi_b = prod_{i <= b} u_i, z_b ~ Bernoulli(pi_b): the stick-breaking construction
of Teh, Görür & Ghahramani (2007), as used for LWTA by Panousis et al. (ICML 2019, section 3). Posterior: u_b ~
Kumaraswamy(a_b, c_b), z_b ~ Bernoulli(sigmoid(t_b)). Everything below is per block, `[B]`, and sticks are
kept as logarithms: pi_b of a late block is smaller than any float.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .stochastic import Noise, Stochastic, at_least_float32

CONCRETE_TEMPERATURE = 0.67
"""tau of the binary-concrete z in training (Maddison et al. 2017, 1611.00712: 2/3)."""

EULER_GAMMA = 0.5772156649015329


def kumaraswamy_log_sample(a: Tensor, c: Tensor, x: Tensor) -> Tensor:
    """The inverse CDF at x, as log u: u = (1 - (1 - x)^(1/c))^(1/a) ~ Kumaraswamy(a, c), x ~ U(0, 1)."""
    return torch.log(-torch.expm1(torch.log1p(-x) / c)) / a


def kumaraswamy_kl(a: Tensor, c: Tensor, alpha: float) -> Tensor:
    """KL(Kumaraswamy(a, c) || Beta(alpha, 1)) of each stick, nats (Nalisnick & Smyth 2017, 1605.06197).

    Its infinite series has the factor beta - 1, which is 0 here: the form is exact.
    """
    mean_log = (1 - alpha / a) * (-EULER_GAMMA - torch.digamma(c) - 1 / c)
    return mean_log + torch.log(a * c / alpha) - (c - 1) / c


def log_probabilities(log_u: Tensor) -> Tensor:
    """Logarithms of pi_b = prod_{i <= b} u_i, over the blocks `[B]`; below 0, so log(1 - pi_b) is finite."""
    return log_u.cumsum(dim=0).clamp_max(-torch.finfo(log_u.dtype).eps)


def bernoulli_kl(logit: Tensor, log_pi: Tensor) -> Tensor:
    """KL(Bernoulli(sigmoid(logit)) || Bernoulli(pi)) of each block, whole (published code drops a half)."""
    q = torch.sigmoid(logit)
    log_not_pi = torch.log(-torch.expm1(log_pi))
    return q * (F.logsigmoid(logit) - log_pi) + (1 - q) * (F.logsigmoid(-logit) - log_not_pi)


class BlockPrior(Stochastic):
    """Weights z `[B]` of the blocks of one layer.

    Training: one binary-concrete draw per forward pass, z = sigmoid((t + logit r) / 0.67), with the KL terms
    `sticks` and `z`. The prior pi of the z term is one Monte Carlo draw of the sticks from their posterior, as the ELBO
    has the expectation of that KL over u: unbiased, and the only path by which z teaches the sticks.

    Evaluation (and the surrogate): the posterior mean z = sigmoid(t), 0 below the cut-off. It is
    deterministic, so a removed block can leave the network for good and a kept one can be folded into the
    next layer (see `deploy`).

    The logits t are few and travel far: from as much as 5 to below logit(cutoff) = -4.6 before a block leaves. Their
    gradient is small, q (1 - q) (t - logit pi_b) / n_train from the KL term, and spans orders of magnitude from the
    first block to the last, so that at the weights' learning rate of SGD they hardly move in a training of a hundred
    steps. They have an Adam of their own (`recipe.IBP.lr`), whose step does not depend on the gradient's scale. The
    sticks do not: where they keep up with t they rise to meet it, and the network ends with more blocks.
    """

    scope = "forward"

    def __init__(self, blocks: int, *, alpha: float, cutoff: float, noise: Noise, dense: bool = False) -> None:
        """Initial values as published; t is drawn from torch's global generator, as any layer's weights.

        Args:
            blocks: Number of blocks, B.
            alpha: Concentration of the sticks, > 0.
            cutoff: A block with sigmoid(t) below it is removed at inference, in (0, 1).
            noise: Source of the draws.
            dense: Initial sticks for a dense layer instead of a convolution.
        """
        super().__init__()
        self.noise, self.alpha, self.cutoff = noise, alpha, cutoff
        raw_a, raw_c = (float(blocks), 2.0) if dense else (2.0, 0.5453)
        self.raw_a = nn.Parameter(torch.full((blocks,), raw_a))
        self.raw_c = nn.Parameter(torch.full((blocks,), raw_c))
        self.t = nn.Parameter(torch.empty(blocks).uniform_(0.1, 5))
        self._kl = None

    @property
    def random(self) -> bool:
        """Never: evaluation takes the posterior mean."""
        return False

    def kept(self) -> Tensor:
        """Which blocks survive the cut-off, bool `[B]`."""
        return torch.sigmoid(self.t.detach()) >= self.cutoff

    def forward(self) -> Tensor:
        """Weights z `[B]` in [0, 1]."""
        if self.training:
            self._kl = self._kl_terms()
            if self.mode == "random":
                r = self.noise.uniform(self.t.shape, self.t)
                return torch.sigmoid((self.t + torch.logit(r)) / CONCRETE_TEMPERATURE)
        return torch.sigmoid(self.t) * self.kept()

    def _kl_terms(self) -> dict[str, Tensor]:
        single = at_least_float32(self.t.dtype)
        a, c = F.softplus(self.raw_a.to(single)), F.softplus(self.raw_c.to(single))
        log_u = kumaraswamy_log_sample(a, c, self.noise.uniform(a.shape, a))
        return {
            "sticks": kumaraswamy_kl(a, c, self.alpha).sum(),
            "z": bernoulli_kl(self.t.to(single), log_probabilities(log_u)).sum(),
        }
