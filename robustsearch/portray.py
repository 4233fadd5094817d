"""What a trained network does, as arrays for figures: examples, confidences, distances to its boundary, slices."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .data import Dataset
from .evaluation.boundary import boundary, plane
from .evaluation.methods import applies, craft
from .evaluation.protocols import Protocol
from .models.build import Network
from .models.stochastic import is_random
from .recipe import Norm, Recipe
from .seeds import derive
from .trial import sample

BOUNDARY_IMAGES = 40
EXAMPLES = 8
SLICES, POINTS = 2, 25
PREDICTIONS, GRADIENT_DRAWS = 5, 2
"""Of the boundary of a random network: predictions behind the correctness of an image, passes in a gradient."""
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)
"""In units of the dataset's epsilon, or of its l_2 budget."""

Arrays = dict[str, Tensor]


def portray(
    network: Network, recipe: Recipe, dataset: Dataset, protocol: Protocol
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """The arrays of a network in evaluation mode, and what `about` says of them; see `examples` for both."""
    device = next(network.parameters()).device
    images, labels = sample(dataset.test, protocol.images, device)
    network.noise.seed(derive(0, "portrait"))
    generator = torch.Generator(device).manual_seed(derive(0, "portrait"))
    radii: dict[Norm, float] = {"linf": protocol.epsilon or dataset.epsilon, "l2": dataset.epsilon_l2}
    made = _attacked(network, images, labels, protocol, radii, generator)
    with torch.no_grad():
        predictions = torch.stack([network.predict(pictures, recipe.draws) for pictures in made.values()])
    arrays = _examples(made, predictions, labels)
    few = slice(0, BOUNDARY_IMAGES)
    arrays |= _boundaries(network, recipe, dataset, images[few], labels[few], generator)
    right = (arrays["predicted"][0] == labels).nonzero().flatten()[:SLICES]
    right = right if len(right) else torch.zeros(1, dtype=torch.long, device=device)
    arrays |= _slices(network, recipe, dataset, images[right], labels[right], made["pgd"][right], generator)
    random = is_random(network)
    about = {
        "defence": recipe.describe(),
        "dataset": dataset.name,
        "split": "test",
        "classes": list(dataset.class_names),
        "epsilon": radii["linf"],
        "epsilon_l2": radii["l2"],
        "unit_linf": dataset.epsilon,
        "draws": recipe.draws,
        "random": random,
        "predictions": PREDICTIONS if random else 1,
    }
    plain: dict[str, NDArray[Any]] = {name: value.cpu().numpy() for name, value in arrays.items()}
    return plain | {"attacks": np.array(list(made))}, about


def _attacked(
    network: Network,
    images: Tensor,
    labels: Tensor,
    protocol: Protocol,
    radii: dict[Norm, float],
    generator: torch.Generator,
) -> Arrays:
    """The images under each attack of the protocol, by its column; the first are `clean`."""
    made = {"clean": images}
    for adversary in protocol.adversaries:
        if applies(adversary, network):
            made[adversary.column] = craft(
                adversary,
                network,
                images,
                labels,
                epsilon=radii[adversary.norm],
                gradient_draws=protocol.gradient_draws,
                generator=generator,
            )
    return made


def _examples(made: Arrays, predictions: Tensor, labels: Tensor) -> Arrays:
    """Predicted classes and their confidences, and images to show of each attack."""
    predicted = predictions.argmax(dim=2)
    correct = predicted == labels
    everything = torch.ones_like(correct[0])
    shown = torch.tensor([_places(kept, correct[0] if row else everything) for row, kept in enumerate(correct)])
    places = shown.clamp(min=0)
    return {
        "labels": labels,
        "predicted": predicted,
        "confidence": predictions.amax(dim=2),
        "shown": shown,
        "originals": made["clean"][places],
        "perturbed": torch.stack([pictures[row] for pictures, row in zip(made.values(), places, strict=True)]),
    }


def _places(correct: Tensor, asked: Tensor) -> list[int]:
    """Places among those asked for: half of them right, half wrong; -1 for those that are missing."""
    found: list[int] = []
    for kept in (asked & correct, asked & ~correct):
        places = kept.nonzero().flatten().tolist()[: EXAMPLES // 2]
        found += places + [-1] * (EXAMPLES // 2 - len(places))
    return found


def _boundaries(
    network: Network, recipe: Recipe, dataset: Dataset, images: Tensor, labels: Tensor, generator: torch.Generator
) -> Arrays:
    """Distances and accuracies against the radius, in both norms."""
    arrays: Arrays = {}
    units: dict[Norm, float] = {"linf": dataset.epsilon, "l2": dataset.epsilon_l2}
    for norm, unit in units.items():
        found = boundary(
            network,
            images,
            labels,
            norm=norm,
            radii=[unit * each for each in RADII],
            draws=recipe.draws,
            predictions=PREDICTIONS,
            gradient_draws=GRADIENT_DRAWS,
            generator=generator,
        )
        arrays |= {f"radii_{norm}": torch.tensor(found.radii), f"distances_{norm}": found.distances}
        arrays |= {f"accuracy_{norm}_{name}": values for name, values in found.accuracy.items()}
    return arrays


def _slices(
    network: Network,
    recipe: Recipe,
    dataset: Dataset,
    images: Tensor,
    labels: Tensor,
    adversarial: Tensor,
    generator: torch.Generator,
) -> Arrays:
    """Planes through images, four l_2 budgets wide to each side."""
    planes = [
        plane(
            network,
            image,
            label,
            target,
            reach=4 * dataset.epsilon_l2,
            points=POINTS,
            draws=recipe.draws,
            predictions=PREDICTIONS,
            generator=generator,
        )
        for image, label, target in zip(images, labels.tolist(), adversarial, strict=True)
    ]
    return {
        "slice_along": planes[0].along,
        "slice_probability": torch.stack([each.probability for each in planes]),
        "slice_right": torch.stack([each.right for each in planes]),
        "slice_labels": labels,
    }
