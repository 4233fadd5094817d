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
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from .cli import Parser
from .errors import RunError, UserError
from .runfolder import RunFolder

IMAGES = 200
"""Images that each attack meets, at most, unless told otherwise."""


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
    from .portray import portray

    chosen = protocol(protocol_name)
    if images < 1:
        raise UserError(f"`--images` must be at least 1, but got {images}")
    folder = RunFolder.fetched(run)
    settings = folder.info().get("settings", {})
    epochs = {
        row["trial"]: row["epoch"] for row in results.read(folder.results).to_pylist() if row["robust"] is not None
    }
    if unknown := [trial for trial in trials if trial not in epochs]:
        raise RunError(f"the trial must be one of {', '.join(sorted(epochs))}, but got {unknown[0]!r}")
    dataset = data.of_settings(settings)
    paths = []
    for trial in trials:
        network, recipe = load_network(folder.fetched_network(trial, epochs[trial]), dataset)
        arrays, about = portray(network, recipe, dataset, replace(chosen, images=images))
        about |= {"run": folder.name, "trial": trial, "epoch": epochs[trial], "protocol": protocol_name}
        path = folder.portrait(trial, epochs[trial])
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".{path.name}")
        named: dict[str, Any] = {"about": np.array(json.dumps(about)), **arrays}
        np.savez_compressed(part, **named)
        os.replace(part, path)
        paths.append(path)
    return paths


if __name__ == "__main__":
    sys.exit(main())
