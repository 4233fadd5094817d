"""The report's figures of trained networks, and where their decision boundary lies.

    python -m analysis.figures RUN [--trial ID ...] [--protocol NAME] [--out DIR]

Of each trial (by default a design's first seed, a search's front) it draws, as PNG, SVG and PDF in RUN/figures:
`examples-ID` (clean beside PGD), `attacks-ID` (right and wrong under each attack), `confidence-ID` (histograms and
calibration), `radii-ID` (accuracy against epsilon), `slices-ID` (planes around images); and of all of them together
`distances` and `accuracy`. What the networks do is computed first, where it is not there yet (`robustsearch.examples`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from robustsearch.errors import UserError

from . import boundary_figures, portrait_figures
from .load import load
from .paper import save
from .pareto import unwritable
from .portraits import Portrait, chosen, portraits

OF_ONE: dict[str, Callable[[Portrait], tuple[Figure, str]]] = {
    "examples": portrait_figures.examples,
    "attacks": portrait_figures.attacks,
    "confidence": portrait_figures.confidence,
    "radii": portrait_figures.radii,
    "slices": portrait_figures.slices,
}
OF_ALL: dict[str, Callable[[Sequence[Portrait]], tuple[Figure, str]]] = {
    "distances": boundary_figures.distances,
    "accuracy": boundary_figures.accuracy,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 2 where the input is wrong."""
    parser = argparse.ArgumentParser(prog="python -m analysis.figures", description="Draw what trained networks do.")
    parser.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    parser.add_argument("--trial", metavar="ID", action="append", help="a trial; may be repeated")
    parser.add_argument("--protocol", metavar="NAME", default="standard", help="whose attacks (standard)")
    parser.add_argument("--out", metavar="DIR", type=Path, help="folder for the figures (default: RUN/figures)")
    arguments = parser.parse_args(argv)
    try:
        run = load(arguments.run)
        found = portraits(run, chosen(run, arguments.trial), arguments.protocol)
        for path in write(found, arguments.out or run.folder / "figures"):
            print(path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def write(found: Sequence[Portrait], folder: Path) -> list[Path]:
    """Draw every figure into a folder.

    Raises:
        UserError: the folder cannot be written.
    """
    paths = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in OF_ALL.items():
            figure, terms = draw(found)
            paths += save(figure, folder, name, f"{name.capitalize()} of {found[0].about['run']}", terms)
        for portrait in found:
            for name, draw_one in OF_ONE.items():
                figure, terms = draw_one(portrait)
                title = f"{name.capitalize()} of {portrait.trial}"
                paths += save(figure, folder, f"{name}-{portrait.trial}", title, terms)
    except OSError as error:
        raise unwritable(folder, error) from error
    return paths


if __name__ == "__main__":
    sys.exit(main())
