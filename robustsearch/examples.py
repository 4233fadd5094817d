"""`python -m robustsearch.examples`: what the figures of a trained network are drawn from, as arrays in a run folder.

RUN/portraits/TRIAL-EPOCH.npz holds, of one network on the test set (`analysis.figures` calls this command):

    about           JSON: trial, epoch, defence, dataset, split, class names, radii, how many draws
    labels          [N]
    attacks         [A] names, the first is `clean`; then those of the protocol
    predicted       [A, N] class, and
    confidence      [A, N] its probability, of one deployed prediction
    shown           [A, E] places of images that stay right, then of some that turn wrong; -1 where there are too few
    originals       [A, E, C, H, W] these images, and
    perturbed       [A, E, C, H, W] what the attack made of them
    radii_NORM      [R], accuracy_NORM_ATTACK [R], distances_NORM [N]: see `evaluation.boundary`; NORM is linf or l2
    slice_along     [G], slice_probability [S, G, G], slice_right [S, G, G], slice_labels [S]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cli import Parser
from .errors import RunError, UserError
from .runfolder import RunFolder

IMAGES, BOUNDARY_IMAGES = 200, 40
EXAMPLES = 8
SLICES, POINTS = 2, 25
PREDICTIONS, GRADIENT_DRAWS = 5, 2
"""Of the boundary of a random network: predictions behind the correctness of an image, passes in a gradient."""
RADII = (0.25, 0.5, 1.0, 2.0, 4.0)
"""In units of the dataset's epsilon, or of its l_2 budget."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Parser(
        "python -m robustsearch.examples",
        usage="python -m robustsearch.examples RUN --trial ID [options]",
        description="Compute what the figures of a trained network show: examples, confidences, distances, slices.",
    )
    root.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    root.add_argument("--trial", metavar="ID", action="append", required=True, help="a trial; may be repeated")
    root.add_argument("--protocol", default="standard", metavar="NAME", help="whose attacks (standard)")
    root.add_argument("--images", type=int, default=IMAGES, metavar="N", help=f"at most so many images ({IMAGES})")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all is written, 2 where the input is wrong."""
    given = parser().parse_args(arguments)
    try:
        for path in compute(given.run, given.trial, given.protocol, given.images):
            print(path, flush=True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compute(run: Path, trials: list[str], protocol_name: str, images: int) -> list[Path]:
    """Write the arrays of each trial at its last epoch, and return their files.

    Raises:
        UserError: the run, a trial or the protocol is unknown, or there is no image to show.
    """
    import numpy as np

    from . import data, results
    from .evaluation.protocols import protocol
    from .examine import load_network

    chosen = protocol(protocol_name)
    if images < 1:
        raise UserError(f"`--images` must be at least 1, but got {images}")
    folder = RunFolder(run)
    settings = folder.info().get("settings", {})
    epochs = {
        row["trial"]: row["epoch"] for row in results.read(folder.results).to_pylist() if row["robust"] is not None
    }
    if unknown := [trial for trial in trials if trial not in epochs]:
        raise RunError(f"the trial must be one of {', '.join(sorted(epochs))}, but got {unknown[0]!r}")
    directory = settings.get("data_dir")
    dataset = data.load(
        settings.get("dataset", ""),
        data_dir=Path(directory) if directory else None,
        fraction=settings.get("fraction", 1.0),
    )
    paths = []
    for trial in trials:
        network, recipe = load_network(folder.network(trial, epochs[trial]), dataset)
        arrays, about = portray(network, recipe, dataset, replace(chosen, images=images))
        about |= {"run": folder.name, "trial": trial, "epoch": epochs[trial], "protocol": protocol_name}
        path = folder.portrait(trial, epochs[trial])
        path.parent.mkdir(exist_ok=True)
        np.savez_compressed(path, about=np.array(json.dumps(about)), **arrays)
        paths.append(path)
    return paths


def portray(network: Any, recipe: Any, dataset: Any, protocol: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of one network in evaluation mode, and what `about` says of them."""
    import numpy as np
    import torch

    from .evaluation.boundary import boundary, plane
    from .evaluation.methods import applies, craft
    from .models.stochastic import is_random
    from .seeds import derive
    from .trial import sample

    device = next(network.parameters()).device
    images, labels = sample(dataset.test, protocol.images, device)
    network.noise.seed(derive(0, "portrait"))
    generator = torch.Generator(device).manual_seed(derive(0, "portrait"))
    radii = {"linf": protocol.epsilon or dataset.epsilon, "l2": dataset.epsilon_l2}
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
    with torch.no_grad():
        predictions = [network.predict(pictures, recipe.draws) for pictures in made.values()]
    predicted = torch.stack([each.argmax(dim=1) for each in predictions])
    correct = predicted == labels
    everything = torch.ones_like(correct[0])
    shown = [_places(kept, correct[0] if place else everything) for place, kept in enumerate(correct)]
    places = torch.tensor([[max(place, 0) for place in row] for row in shown])
    arrays = {
        "labels": labels,
        "predicted": predicted,
        "confidence": torch.stack([each.amax(dim=1) for each in predictions]),
        "shown": torch.tensor(shown),
        "originals": torch.stack([images[row] for row in places]),
        "perturbed": torch.stack([each[row] for each, row in zip(made.values(), places, strict=True)]),
    }
    few = slice(0, min(BOUNDARY_IMAGES, len(images)))
    for norm, unit in (("linf", dataset.epsilon), ("l2", dataset.epsilon_l2)):
        found = boundary(
            network,
            images[few],
            labels[few],
            norm=norm,  # type: ignore[arg-type]
            radii=[unit * each for each in RADII],
            draws=recipe.draws,
            predictions=PREDICTIONS,
            gradient_draws=GRADIENT_DRAWS,
            generator=generator,
        )
        arrays |= {f"radii_{norm}": torch.tensor(found.radii), f"distances_{norm}": found.distances}
        arrays |= {f"accuracy_{norm}_{name}": values for name, values in found.accuracy.items()}
    right = (predicted[0] == labels).nonzero().flatten().tolist()[:SLICES] or [0]
    planes = [
        plane(
            network,
            images[place],
            int(labels[place]),
            made["pgd"][place],
            reach=4 * dataset.epsilon_l2,
            points=POINTS,
            draws=recipe.draws,
            predictions=PREDICTIONS,
            generator=generator,
        )
        for place in right
    ]
    arrays |= {
        "slice_along": planes[0].along,
        "slice_probability": torch.stack([each.probability for each in planes]),
        "slice_right": torch.stack([each.right for each in planes]),
        "slice_labels": labels[right],
    }
    about = {
        "defence": recipe.describe(),
        "dataset": dataset.name,
        "split": "test",
        "classes": list(dataset.class_names),
        "epsilon": radii["linf"],
        "epsilon_l2": radii["l2"],
        "unit_linf": dataset.epsilon,
        "draws": recipe.draws,
        "random": is_random(network),
        "predictions": PREDICTIONS if is_random(network) else 1,
    }
    return {name: np.asarray(value.cpu()) for name, value in arrays.items()} | {"attacks": np.array(list(made))}, about


def _places(correct: Any, asked: Any) -> list[int]:
    """Places among those asked for: half of them right, half wrong; -1 for those that are missing."""
    found = []
    for kept in (asked & correct, asked & ~correct):
        places = kept.nonzero().flatten().tolist()[: EXAMPLES // 2]
        found += places + [-1] * (EXAMPLES // 2 - len(places))
    return found


if __name__ == "__main__":
    sys.exit(main())
