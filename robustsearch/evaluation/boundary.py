"""Where the decision boundary lies: distances to it, accuracy against the radius, and slices of planes around an image.

A distance is that of the nearest wrong image found, so an upper bound of the true one: each attack gives a candidate,
at the smallest radius at which it breaks an image, and the segment to it is bisected down to where the network turns
wrong. In l_2 the minimum-norm attack of Carlini & Wagner (2016, 1608.04644) with a search for c is one candidate more.

A random network is wrong where fewer than half of its fresh predictions are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..attacks.gradient import crafting
from ..models.build import Network
from ..models.stochastic import is_random
from ..recipe import Norm
from .methods import applies, craft
from .protocols import STRAIGHT, Adversary
from .robust import correctness

Score = Callable[[Tensor, Tensor], Tensor]
"""`(images [N, C, H, W], labels [N]) -> share of fresh predictions that are right [N]`."""

BISECTIONS = 8
"""A distance is known to 1/256 of the candidate's."""

ATTACKS: dict[Norm, tuple[Adversary, ...]] = {
    norm: (
        Adversary("fgsm", "fgsm", norm),
        Adversary("pgd", "pgd", norm, steps=10),
        replace(STRAIGHT, norm=norm, steps=10),
    )
    for norm in ("linf", "l2")
}
NEAREST = Adversary("cw", "cw", "l2", steps=25, searches=4, c=1.0)


@dataclass(frozen=True)
class Boundary:
    """What was found in one norm; lengths in pixel units of [0, 1]."""

    radii: list[float]
    accuracy: dict[str, Tensor]
    """Attack to its accuracy at each radius `[R]`; for `cw` the share of images that it does not break within it."""
    distances: Tensor
    """Of each image `[N]`: 0 where it is wrong already, infinite where no attack broke it."""


def boundary(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    norm: Norm,
    radii: Sequence[float],
    draws: int,
    predictions: int,
    gradient_draws: int,
    generator: torch.Generator,
) -> Boundary:
    """Attack images `[N, C, H, W]`, labels `[N]`, at each radius.

    Args:
        network: in evaluation mode.
        images: in [0, 1].
        labels: their classes.
        norm: `linf` or `l2`.
        radii: ascending.
        draws: passes behind one prediction.
        predictions: fresh predictions behind the correctness of an image.
        gradient_draws: passes averaged in an attack's gradient.
        generator: of the attacks' random starts.
    """

    def score(pictures: Tensor, targets: Tensor) -> Tensor:
        with crafting(network):
            return correctness(network, pictures, targets, draws=draws, predictions=predictions)

    def attack(adversary: Adversary, radius: float) -> Tensor:
        return craft(
            adversary,
            network,
            images,
            labels,
            epsilon=radius,
            gradient_draws=gradient_draws,
            generator=generator,
        )

    natural = score(images, labels)
    distances = torch.where(natural > 0.5, torch.inf, 0.0).double()
    accuracy: dict[str, Tensor] = {}
    for adversary in ATTACKS[norm]:
        if not applies(adversary, network):
            continue
        found, nearest = [], images.clone()
        left = distances > 0
        for radius in radii:
            candidate = attack(adversary, radius)
            correct = score(candidate, labels)
            found.append(correct.mean())
            broken = left & (correct <= 0.5)
            nearest[broken], left = candidate[broken], left & ~broken
        accuracy[adversary.column] = torch.stack(found)
        wrong = (distances > 0) & ~left
        distances = torch.minimum(distances, _bisected(score, images, nearest, labels, wrong, norm))
    if norm == "l2":
        candidate = attack(NEAREST, max(radii))
        lengths = torch.where(score(candidate, labels) <= 0.5, length(candidate - images, norm), torch.inf)
        lengths = torch.where(natural > 0.5, lengths, 0.0)
        accuracy["cw"] = torch.stack([(lengths > radius).double().mean() for radius in radii])
        distances = torch.minimum(distances, lengths)
    return Boundary(list(radii), accuracy, distances)


def length(difference: Tensor, norm: Norm) -> Tensor:
    """Norms `[N]` of differences `[N, C, H, W]`, float64."""
    flat = difference.flatten(1).double()
    return flat.abs().amax(dim=1) if norm == "linf" else flat.norm(dim=1)


def _bisected(score: Score, images: Tensor, candidate: Tensor, labels: Tensor, wrong: Tensor, norm: Norm) -> Tensor:
    """Distances `[N]` to where the segment to each candidate that is wrong turns wrong; infinite for the others."""
    chosen = wrong.nonzero().squeeze(1)
    distances = torch.full((len(images),), torch.inf, dtype=torch.float64, device=images.device)
    if not len(chosen):
        return distances
    start, way, targets = images[chosen], candidate[chosen] - images[chosen], labels[chosen]
    low, high = torch.zeros(len(chosen), device=images.device), torch.ones(len(chosen), device=images.device)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        broken = score(start + middle[:, None, None, None] * way, targets) <= 0.5
        low, high = torch.where(broken, low, middle), torch.where(broken, middle, high)
    distances[chosen] = high * length(way, norm)
    return distances


@dataclass(frozen=True)
class Slice:
    """The plane through an image, along an adversarial and a random direction, both of unit l_2 length."""

    along: Tensor
    """Positions `[G]` on both axes, pixel units; 0 is the image."""
    probability: Tensor
    """Of the true class, averaged over draws, `[G, G]`: row by random direction, column by adversarial."""
    right: Tensor
    """Share of single predictions that are right, `[G, G]`."""


def plane(
    network: Network,
    image: Tensor,
    label: int,
    adversarial: Tensor,
    *,
    reach: float,
    points: int,
    draws: int,
    predictions: int,
    generator: torch.Generator,
) -> Slice:
    """The slice through `image` `[C, H, W]` and `adversarial` `[C, H, W]`, from -reach to reach in both directions.

    The random direction is normal, made orthogonal to the other. Pixels are clipped to [0, 1]: what is shown is what a
    camera could deliver, so that the plane bends at the ends of the range.
    """
    ahead = _unit(adversarial - image)
    aside = torch.randn(image.shape, generator=generator, device=image.device)
    aside = _unit(aside - (aside * ahead).sum() * ahead)
    along = torch.linspace(-reach, reach, points, device=image.device)
    steps = along[:, None, None, None, None] * aside + along[None, :, None, None, None] * ahead
    pictures = (image + steps).clamp(0, 1).flatten(0, 1)
    probability, right = [], []
    with torch.no_grad(), crafting(network):
        for part in torch.split(pictures, 128):
            made = torch.stack([network.predict(part, draws) for _ in range(predictions if is_random(network) else 1)])
            probability.append(made[..., label].mean(dim=0))
            right.append((made.argmax(dim=-1) == label).double().mean(dim=0))
    shape = (points, points)
    return Slice(along, torch.cat(probability).view(shape), torch.cat(right).view(shape))


def _unit(direction: Tensor) -> Tensor:
    """Of l_2 length 1; a direction of no length stays."""
    unit: Tensor = direction / direction.norm().clamp(min=1e-12)
    return unit
