"""`python -m robustsearch.evaluate`: examine the trained networks of a run, on the test set unless told otherwise."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .cli import Parser
from .engines import check_engine
from .errors import RunError, UserError
from .recipe import Recipe
from .runfolder import RunFolder
from .variants import variant_name, variants

DESCRIPTION = """\
Evaluate networks of a finished run under a protocol and the masking checks.
Each result is a row of RUN/evaluations; a failed check marks the trial `masked`
wherever it is shown.

With --gate or --draws the same weights predict in another way. Each way has a row
of its own, with its latency, and a failed check marks that row alone."""

VOTES = 10_000
"""Votes of a certificate for each image, unless told otherwise; the paper has 100,000."""
CERTIFIED_IMAGES = 100
"""Images to certify, unless told otherwise."""
CURVE = (0, 0.25, 0.5, 1)
"""Radii at which certified accuracy is printed, in sigma; the row has that of every image."""
PATIENCE = 10.0
"""Seconds between two lines on how far a certification is."""


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
    how = root.add_mutually_exclusive_group()
    how.add_argument("--protocol", metavar="NAME", help="quick, standard, full (default), report")
    how.add_argument(
        "--certify",
        nargs="?",
        const=VOTES,
        type=int,
        metavar="N",
        help=f"certify the l_2 radius of smoothed networks from N votes ({VOTES}) instead",
    )
    root.add_argument(
        "--gate",
        action="append",
        default=[],
        metavar="MODE",
        help="LWTA gate: sample, mean, argmax, noisy=S, or all; may be repeated",
    )
    root.add_argument("--draws", type=int, metavar="K", help="predictions averaged; 1 where nothing is random")
    root.add_argument("--split", default="test", metavar="NAME", help="test (default), or validation")
    images = f"at most so many images (the protocol's number, or {CERTIFIED_IMAGES} to certify)"
    root.add_argument("--images", type=int, metavar="N", help=images)
    root.add_argument("--engine", metavar="NAME", help="what runs the timed prediction (the run's own)")
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
    _check(given)

    from . import data, results
    from .evaluation.protocols import protocol
    from .examine import examine, examine_certified, load_network

    chosen = protocol(given.protocol or "full")
    folder = RunFolder.fetched(given.run)
    settings = folder.info().get("settings", {})
    jobs = [(point, recipe) for point in _points(folder, given) for recipe in _variants(point, given)]
    dataset = data.of_settings(settings)
    start = time.monotonic()
    for count, (point, recipe) in enumerate(jobs, 1):
        network, own = load_network(folder.fetched_network(point["trial"], point["epoch"]), dataset)
        if recipe.lwta:
            network.set_gate(recipe.lwta.gate, recipe.lwta.gate_noise)
        if given.certify is None:
            row = examine(
                network,
                recipe,
                dataset,
                protocol=chosen,
                split=given.split,
                images=given.images,
                checks=not given.no_checks,
                timed=bool(given.gate or given.draws or given.engine),
                engine=given.engine or settings.get("engine", "auto"),
            )
        else:
            row = examine_certified(
                network,
                dataset,
                split=given.split,
                images=given.images or CERTIFIED_IMAGES,
                n=given.certify,
                progress=_progress(),
            )
        row |= {"run": folder.name, "trial": point["trial"], "epoch": point["epoch"], "role": point["role"]}
        row |= {"digest": recipe.digest, "recipe": recipe.to_json(), "variant": variant_name(recipe, own)}
        row |= recipe.flat()
        path = results.write_evaluation(folder.evaluations, row)
        if folder.store:
            folder.store.push("evaluations")
        left = (time.monotonic() - start) / count * (len(jobs) - count)
        line = _line(row) if given.certify is None else _certified_line(row)
        print(f"{_name(row, recipe)}: {line}  ({count}/{len(jobs)}, ~{left:.0f} s left)\n  {path}", flush=True)
    return 0


def _check(given: argparse.Namespace) -> None:
    check_engine(given.engine or "auto")
    if given.split not in ("test", "validation"):
        raise UserError(f"the split must be test or validation, but got {given.split!r}")
    for name in ("images", "draws", "certify"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UserError(f"`--{name}` must be at least 1, but got {value}")
    if given.epoch is not None and given.trial is None:
        raise UserError(f"`--epoch` is that of a `--trial`, but got --epoch {given.epoch} alone")
    if given.certify is not None and given.engine is not None:
        raise UserError(f"a certificate is not timed, so `--certify` takes no `--engine`, but got {given.engine!r}")
    if given.certify is not None and given.draws is not None:
        raise UserError(f"a vote of `--certify` is one draw, so it takes no `--draws`, but got {given.draws}")


def _variants(point: dict[str, Any], given: argparse.Namespace) -> list[Recipe]:
    """The recipes under which to evaluate a point, the trial's own where none is asked for.

    Raises:
        UserError: the trial's recipe does not allow it.
    """
    recipe = Recipe.from_json(point["recipe"])
    if given.certify is not None and not (recipe.smoothing and recipe.smoothing.at_inference):
        raise UserError(f"`--certify` needs smoothing at inference, but trial {point['trial']} is {recipe.describe()}")
    try:
        return variants(recipe, given.gate, given.draws)
    except UserError as error:
        raise UserError(f"trial {point['trial']}: {error}") from error


def _points(folder: RunFolder, given: argparse.Namespace) -> list[dict[str, Any]]:
    """Which rows of the results to evaluate, one for each (trial, epoch).

    Raises:
        RunError: there is no such trial or rung.
    """
    from robustsearch.analysis import front, load  # type: ignore[import-not-found]

    points = front.front_table(load.load(folder.root).table)
    if given.trial is None:
        members: list[dict[str, Any]] = front.front_rows(points)
        if not members:
            raise RunError(f"a front needs at least one measured trial of the search, but {folder.root} has none")
        return members
    known: list[dict[str, Any]] = points.to_pylist()
    trials = sorted({row["trial"] for row in known})
    if given.trial not in trials:
        raise RunError(f"the trial must be one of {', '.join(trials)}, but got {given.trial!r}")
    epochs = sorted(row["epoch"] for row in known if row["trial"] == given.trial)
    epoch = epochs[-1] if given.epoch is None else given.epoch
    if epoch not in epochs:
        raise RunError(f"the epoch must be a rung of {given.trial} ({', '.join(map(str, epochs))}), but got {epoch}")
    return [row for row in known if (row["trial"], row["epoch"]) == (given.trial, epoch)]


def _progress() -> Callable[[float], None]:
    """Prints how far a certification is, and how long it still takes, now and then."""
    start = last = time.monotonic()

    def report(share: float) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= PATIENCE:
            last = now
            print(f"  {100 * share:.0f}% certified, ~{(now - start) / share * (1 - share):.0f} s left", flush=True)

    return report


def _name(row: dict[str, Any], recipe: Recipe) -> str:
    """What was evaluated; a variant with its defence."""
    variant = f" as {recipe.describe()}" if row["variant"] else ""
    return f"{row['trial']} epoch {row['epoch']}{variant}"


def _line(row: dict[str, Any]) -> str:
    """What an evaluation found, in a line."""
    verdict = {None: "masking not checked", False: "no masking found", True: "MASKED"}[row["masked"]]
    interval = f"{100 * row['robust_low']:.1f} to {100 * row['robust_high']:.1f}"
    latency = f", p50 {row['latency_p50']:.2f} ms" if "latency_p50" in row else ""
    return (
        f"natural {100 * row['natural']:.1f}%, robust {100 * row['robust']:.1f}% "
        f"({interval}, n = {row['n']}), l_2 {100 * row['robust_l2']:.1f}%{latency}, {verdict}"
    )


def _certified_line(row: dict[str, Any]) -> str:
    """What a certification found, in a line; radii in pixel units and, for the curve, in sigma."""
    radii, sigma = json.loads(row["certified_radii"]), row["smoothing.sigma"]
    curve = [f"{100 * sum(r > 0 and r >= t * sigma for r in radii) / len(radii):.1f}% at {t:g}" for t in CURVE]
    interval = f"{100 * row['certified_low']:.1f} to {100 * row['certified_high']:.1f}"
    return (
        f"certified {100 * row['certified']:.1f}% ({interval}, n = {row['n']}) at l_2 {row['epsilon_l2']:g}; "
        f"in sigma = {sigma:g}: {', '.join(curve)}; mean radius {row['certified_radius']:.3f}, "
        f"abstained {100 * row['certified_abstained']:.1f}%, {row['certified_n']} votes, alpha {row['certified_alpha']}"
    )


if __name__ == "__main__":
    sys.exit(main())
