"""Certified l_2 radius of a randomly smoothed network: CERTIFY of Cohen, Rosenfeld & Kolter 2019 (1902.02918, 3.2).

The smoothed classifier g answers with the class that most single noisy passes vote for,

    g(x) = argmax_c p_c(x),    p_c(x) = P(f(x + delta, omega) = c),    delta ~ N(0, sigma^2 I).

Theorem 1: with p_A the probability of the top class, g answers the same on x + d for every d with
||d||_2 < sigma * Phi^-1(p_A), here with the runner-up bounded by 1 - p_A, as in the paper. A sample gives
p_lower <= p_A with probability at least 1 - alpha (Clopper & Pearson 1934); where p_lower <= 1/2 there is no
radius, and CERTIFY abstains. n votes for one class give sigma * Phi^-1(alpha^(1/n)): 3.2 sigma at most for 10,000.

What else may be random. The theorem is stated for "any deterministic or random function f". The proof asks only
that p_c is a Gaussian average, p_c(x) = E_delta h_c(x + delta), of some h_c with values in [0, 1], and this
holds for h_c(z) = P_omega(f(z, omega) = c) with all other randomness omega (Gumbel noise of LWTA gates, noise on
weights) integrated out. Two conditions, both kept here:

* omega is independent of delta and of x, and f sees x only through x + delta. So the Gaussian noise comes first,
  unclipped, before normalisation and every other layer, as `Network` has it. That the odds of a gate depend on its
  features is allowed: these are a function of x + delta.
* The n votes for an image are independent, or Clopper-Pearson does not hold. So a draw of the weights, which a pass
  shares, gives each image one vote; and noise whose sigma is that of the batch (PNI on inputs or activations) couples
  the images of a pass, so there a pass holds one image, as a deployed prediction at batch 1 does.

Votes are hard: a mean of probabilities is another classifier, of which Clopper-Pearson says nothing. So a radius
is one of g and not of the K-draw mean that `Network.predict` deploys. Each radius is wrong with probability at
most alpha: of N certified images at most N * alpha are expected to be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import torch
from scipy import special
from torch import Tensor
from torch.nn import functional as F

from ..attacks.gradient import crafting
from ..errors import UserError
from ..models.build import Network
from ..models.pni import PNILayer
from ..models.smoothing import GaussianNoise
from ..models.stochastic import expandable, repeat_batch
from .robust import accuracy

N0 = 100
"""Votes that choose the class, as in the paper."""
ALPHA = 0.001
"""Probability with which one radius may be wrong, as in the paper."""
PASS = 256
"""Images a pass; bounds the memory."""


@dataclass(frozen=True)
class Certificate:
    """What CERTIFY says of each image."""

    label: Tensor
    """`[N]`: the class that g answers with; -1 where it abstains."""
    radius: Tensor
    """`[N]`, float64: l_2 radius in pixel units of [0, 1] within which it does; 0 where it abstains."""


def lower_bound(votes: int, n: int, alpha: float) -> float:
    """One-sided Clopper-Pearson bound: p_lower <= p with probability >= 1 - alpha, from `votes` ~ Binomial(n, p).

    It is the p at which so many votes or more have probability alpha: a quantile of Beta(votes, n - votes + 1).
    """
    return float(special.betaincinv(votes, n - votes + 1, alpha)) if votes else 0.0


def certified_radius(votes: int, n: int, *, sigma: float, alpha: float) -> float:
    """Radius sigma * Phi^-1(p_lower), in the unit of sigma, for `votes` of `n` for the class; 0 is an abstention."""
    return max(0.0, sigma * float(special.ndtri(lower_bound(votes, n, alpha))))


def certify(
    network: Network,
    images: Tensor,
    *,
    n: int,
    n0: int = N0,
    alpha: float = ALPHA,
    progress: Callable[[float], object] = lambda share: None,
) -> Certificate:
    """Certify images `[N, C, H, W]` in [0, 1]: `n0` votes choose the class, `n` fresh ones bound its probability.

    All draws come from `network.noise`, in evaluation mode. Calls `progress` with the share done, in (0, 1].

    Raises:
        UserError: the network has no Gaussian input noise at inference, or a number is out of range.
    """
    sigma = _sigma(network)
    if n0 < 1 or n < 1:
        raise UserError(f"`n0` and `n` must be at least 1, but got {n0} and {n}")
    if not 0 < alpha < 1:
        raise UserError(f"`alpha` must be in (0, 1), but got {alpha:g}")
    total, done = len(images) * (n0 + n), 0

    def advance(votes: int) -> None:
        nonlocal done
        done += votes
        progress(done / total)

    labels, radii = [], []
    for chunk in torch.split(images, _images_a_pass(network)):
        top = count_votes(network, chunk, n0, advance).argmax(dim=1)
        for_top = count_votes(network, chunk, n, advance).gather(1, top[:, None]).squeeze(1)
        radius = [certified_radius(votes, n, sigma=sigma, alpha=alpha) for votes in for_top.tolist()]
        radii.append(torch.tensor(radius, dtype=torch.float64))
        labels.append(torch.where(radii[-1] > 0, top.cpu(), -1))
    return Certificate(torch.cat(labels), torch.cat(radii))


@torch.no_grad()
def count_votes(
    network: Network, images: Tensor, draws: int, advance: Callable[[int], object] = lambda votes: None
) -> Tensor:
    """Votes `[N, classes]`, int64, of `draws` >= 1 independent single passes over each of N images.

    Calls `advance` with the votes of each pass. At most as many images as `certify` gives to a pass.
    """
    at_once = max(1, _images_a_pass(network) // len(images)) if expandable(network) else 1
    counts: Tensor | None = None
    left = draws
    with crafting(network):
        while left:
            copies = min(left, at_once)
            logits = network(repeat_batch(images, copies))
            votes = F.one_hot(logits.argmax(dim=1), logits.shape[1]).view(copies, len(images), -1).sum(dim=0)
            counts = votes if counts is None else counts + votes
            left -= copies
            advance(copies * len(images))
    assert counts is not None
    return counts


def certified_columns(certificate: Certificate, labels: Tensor, *, epsilon_l2: float) -> dict[str, float | str]:
    """Columns of a results row: certified accuracy at `epsilon_l2` > 0, average radius, abstentions, all radii.

    An image counts at a radius if it is certified there and its label `[N]` right. Of the average certified radius
    (Zhai et al. 2020, 2001.02378) each other image adds 0.
    """
    radius = torch.where(certificate.label == labels.cpu(), certificate.radius, 0.0)
    return {
        **accuracy("certified", (radius >= epsilon_l2).double()),
        "certified_radius": float(radius.mean()),
        "certified_abstained": float((certificate.label < 0).double().mean()),
        "certified_radii": json.dumps([round(value, 6) for value in radius.tolist()]),
    }


def _sigma(network: Network) -> float:
    noise = network.smoothing
    if not (isinstance(noise, GaussianNoise) and noise.random):
        raise UserError(
            "a certificate needs Gaussian input noise at inference (`smoothing` with `at_inference`), "
            "but the network has none"
        )
    return noise.sigma


def _images_a_pass(network: Network) -> int:
    """`PASS`, or one where images of a pass share the sigma of their noise."""
    coupled = any(isinstance(layer, PNILayer) and layer.where != "weights" for layer in network.modules())
    return 1 if coupled else PASS
