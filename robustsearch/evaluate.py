"""`python -m robustsearch.evaluate`: examine the trained networks of a run, on the test set unless told otherwise."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from .cli import Parser
from .errors import RunError, UserError
from .runfolder import RunFolder

DESCRIPTION = """\
Evaluate networks of a finished run under a protocol and the masking checks.
Each result is a row of RUN/evaluations; a failed check marks the trial `masked`
wherever it is shown."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Parser(
        "python -m robustsearch.evaluate",
        usage="python -m robustsearch.evaluate RUN [options]",
        description=DESCRIPTION,
    )
    root.add_argument("run", metavar="RUN", type=Path, help="folder of the run")
    which = root.add_mutually_exclusive_group()
    which.add_argument("--front", action="store_true", help="the members of the front (default)")
    which.add_argument("--trial", metavar="ID", help="one trial, such as 0007 or baseline")
    root.add_argument("--epoch", type=int, metavar="E", help="which rung of --trial (its last)")
    root.add_argument("--protocol", default="full", metavar="NAME", help="quick, standard, full (default), report")
    root.add_argument("--split", default="test", metavar="NAME", help="test (default), or validation")
    root.add_argument("--images", type=int, metavar="N", help="at most so many images (the protocol's number)")
    root.add_argument("--no-checks", action="store_true", help="leave the masking checks out")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 0 when all is written, 2 where the input is wrong."""
    given = parser().parse_args(arguments)
    try:
        return _evaluate(given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _evaluate(given: argparse.Namespace) -> int:
    if given.split not in ("test", "validation"):
        raise UserError(f"the split must be test or validation, but got {given.split!r}")
    if given.images is not None and given.images < 1:
        raise UserError(f"`images` must be at least 1, but got {given.images}")
    if given.epoch is not None and given.trial is None:
        raise UserError(f"`--epoch` is that of a `--trial`, but got --epoch {given.epoch} alone")

    from . import data, results
    from .evaluation.protocols import protocol
    from .examine import examine, load_network

    chosen = protocol(given.protocol)
    folder = RunFolder(given.run)
    settings = folder.info().get("settings", {})
    points = _points(folder, given)
    directory = settings.get("data_dir")
    dataset = data.load(
        settings.get("dataset", ""),
        data_dir=Path(directory) if directory else None,
        fraction=settings.get("fraction", 1.0),
    )
    start = time.monotonic()
    for count, (trial, epoch) in enumerate(points, 1):
        network, recipe = load_network(folder.network(trial, epoch), dataset)
        row = examine(
            network,
            recipe,
            dataset,
            protocol=chosen,
            split=given.split,
            images=given.images,
            checks=not given.no_checks,
        )
        row |= {
            "run": folder.name,
            "trial": trial,
            "epoch": epoch,
            "role": "baseline" if trial == "baseline" else "search",
        }
        row |= {"digest": recipe.digest, "recipe": recipe.to_json()} | recipe.flat()
        path = results.write_evaluation(folder.evaluations, row)
        left = (time.monotonic() - start) / count * (len(points) - count)
        print(f"{_line(row)}  ({count}/{len(points)}, ~{left:.0f} s left)\n  {path}", flush=True)
    return 0


def _points(folder: RunFolder, given: argparse.Namespace) -> list[tuple[str, int]]:
    """Which (trial, epoch) to evaluate.

    Raises:
        RunError: there is no such trial or rung.
    """
    from robustsearch.analysis import front, load  # type: ignore[import-not-found]

    points = front.front_table(load.load(folder.root).table)
    if given.trial is None:
        members = front.front_rows(points)
        if not members:
            raise RunError(f"a front needs at least one measured trial of the search, but {folder.root} has none")
        return [(row["trial"], row["epoch"]) for row in members]
    known = [(row["trial"], row["epoch"]) for row in points.to_pylist()]
    trials = sorted({trial for trial, _ in known})
    if given.trial not in trials:
        raise RunError(f"the trial must be one of {', '.join(trials)}, but got {given.trial!r}")
    epochs = sorted(epoch for trial, epoch in known if trial == given.trial)
    epoch = epochs[-1] if given.epoch is None else given.epoch
    if epoch not in epochs:
        raise RunError(f"the epoch must be a rung of {given.trial} ({', '.join(map(str, epochs))}), but got {epoch}")
    return [(given.trial, epoch)]


def _line(row: dict[str, Any]) -> str:
    """What an evaluation found, in a line."""
    verdict = {None: "masking not checked", False: "no masking found", True: "MASKED"}[row["masked"]]
    interval = f"{100 * row['robust_low']:.1f} to {100 * row['robust_high']:.1f}"
    return (
        f"{row['trial']} epoch {row['epoch']}: natural {100 * row['natural']:.1f}%, robust {100 * row['robust']:.1f}% "
        f"({interval}, n = {row['n']}), l_2 {100 * row['robust_l2']:.1f}%, {verdict}"
    )


if __name__ == "__main__":
    sys.exit(main())
