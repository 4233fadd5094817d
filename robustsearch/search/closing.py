"""How a run ends: its front is examined under the full protocol, shown and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

from ..errors import RunError
from ..runfolder import RunFolder
from .settings import FINAL_OF_DESIGN, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from .. import data


def say(out: Console, *lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)


def examine(folder: RunFolder, dataset: data.Dataset, settings: Settings, gpus: float, out: Console) -> None:
    """The full protocol and the masking checks for each member of the front; for a design, `examine_design`."""
    from robustsearch.analysis import front  # type: ignore[import-not-found]

    from .. import results
    from ..devices import comparable
    from .final import PROTOCOL, SPLIT, disagreements, distinct, examine_points

    if settings.seeds:
        examine_design(folder, dataset, settings, gpus, out)
        return
    try:
        points = front.front_table(comparable(results.read(folder.results)))
    except RunError:
        return  # nothing was measured, as the end of the run says
    front_rows = front.front_rows(points)
    members = distinct(front_rows)
    plain_epoch = max((row["epoch"] for row in points.to_pylist() if row["role"] == "baseline"), default=None)
    ties = len(front_rows) - len(members)
    besides = f" ({ties} more are as fast as a more robust one)" if ties else ""
    say(out, f"Examining {len(members)} on the front{besides}: protocol {PROTOCOL}, {settings.final_images} images")
    rungs = {(row["trial"], row["epoch"]): row["robust"] for row in members}
    for row in examine_points(folder, members, plain_epoch, dataset, settings, gpus, PROTOCOL):
        verdict = "MASKED" if row["masked"] else "no masking found"
        say(
            out,
            f"  {row['trial']:<8} epoch {row['epoch']:>3}  robust {100 * row['robust']:.1f}% "
            f"(at its rung {100 * rungs[row['trial'], row['epoch']]:.1f}%)  {verdict}",
        )
    examined = results.read(folder.evaluations).to_pylist()
    full = [row for row in examined if (row["protocol"], row["split"], row["variant"]) == (PROTOCOL, SPLIT, None)]
    differ, pairs = disagreements(members, full)
    say(out, f"The rungs and the full protocol order {differ} of {pairs} pairs of them differently")


def examine_design(folder: RunFolder, dataset: data.Dataset, settings: Settings, gpus: float, out: Console) -> None:
    """Every trial of a design at its last epoch, under an adaptive protocol, unless its rungs were measured so."""
    from .. import results
    from .final import examine_points

    if settings.protocol == FINAL_OF_DESIGN:
        return
    last = {row["trial"]: row for row in results.read(folder.results).to_pylist() if row["robust"] is not None}
    say(out, f"Evaluating {len(last)} trials: protocol {FINAL_OF_DESIGN}, {settings.final_images} images")
    for row in examine_points(folder, list(last.values()), None, dataset, settings, gpus, FINAL_OF_DESIGN):
        found = f"robust {100 * row['robust']:.1f}%, l_2 {100 * row['robust_l2']:.1f}%"
        say(out, f"  {row['trial']:<8} epoch {row['epoch']:>3}  {found}")


def draw(folder: RunFolder, out: Console) -> None:
    """Show the front, draw it where a person looks for it, and write the report of the run."""
    from robustsearch.analysis import front, load, pareto, report

    place = Path(folder.place)
    try:
        run = load.load(place)
        points = front.front_table(run.table)
        pareto.show(run, points, out)
        *_, page = pareto.write(run, points, None, folder.figures)
        say(out, f"Front, interactive: {folder.public(page)}")
    except RunError as error:
        say(out, str(error))
    say(
        out,
        f"Report: {folder.public(report.write(place))}",
        f"TensorBoard: tensorboard --logdir {folder.public(folder.trials)}",
    )


def kept(folder: RunFolder) -> dict[str, Any]:
    """What a search comes to and no log can tell: evaluations by name; and size and CRC-32 of the study's file."""
    study = folder.study_file.read_bytes() if folder.study_file.exists() else b""
    return {
        "evaluations": sorted(path.name for path in folder.evaluations.glob("*.parquet")),
        "study": [len(study), crc32(study)],
    }


def is_complete(folder: RunFolder) -> bool:
    """Whether the search has come to its end, and what it had then is still there and whole."""
    from .. import events, results

    logged = events.read(folder.events_file)[0]
    if not logged or logged[-1].kind != "end" or (then := logged[-1].data.get("kept")) is None:
        return False
    size, crc = then["study"]
    study = folder.study_file.read_bytes()[:size] if folder.study_file.exists() else b""  # others may append to it
    return crc32(study) == crc and all(results.is_whole(folder.evaluations / name) for name in then["evaluations"])


def draw_again(folder: RunFolder, settings: Settings) -> int:
    """Show and draw a complete run as at its end; returns the number of crashed trials."""
    from robustsearch.analysis import pareto

    from .ledger import Ledger

    out = pareto.console()
    with folder.locked():
        folder.write_info(folder.info())
        with Ledger(folder, max_latency=settings.max_latency) as ledger:  # writes what the results have lost
            say(out, f"{folder.name} is complete: {len(ledger.entries)} trials. It is drawn again.")
        draw(folder, out)
    return ledger.crashed
