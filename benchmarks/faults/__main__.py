"""`python -m benchmarks.faults points|kills`: what a search survives."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import optuna

from benchmarks.faults import kills, points
from robustsearch.runfolder import RunFolder


def all_points(sampler: str, trials: int) -> int:
    """Die at every write of a search with repeats, and go on; prints what is wrong, and how much was tried."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    tried = wrong = 0
    with tempfile.TemporaryDirectory(prefix="robustsearch-points-") as temporary:
        base = Path(temporary)
        (base / "two.py").write_text(points.SPACE)
        chosen = points.settings(base / "two.py", trials=trials, sampler=sampler, repeats=1)

        def run(name: str) -> RunFolder:
            folder = RunFolder(base / name)
            folder.write_info({})
            return folder

        whole = points.Death()
        points.drive(run("whole"), chosen, whole)
        for when in points.WHEN:
            for at in range(whole.count):
                folder = run(f"{when}-{at}")
                points.drive(folder, chosen, points.Death(at, when))
                points.drive(folder, chosen, points.Death())
                found = points.faults(folder, chosen)
                tried, wrong = tried + 1, wrong + bool(found)
                for line in found:
                    print(f"{when} write {at}: {line}")
    print(f"{sampler}, {trials} trials: {tried} deaths at {whole.count} writes, {wrong} of them with a loss")
    return bool(wrong)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("points", "kills"))
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--minutes", type=float, default=60, metavar="M", help="of killing")
    parser.add_argument("--trials", type=int, default=40, metavar="N")
    parser.add_argument("--epochs", type=int, default=8, metavar="E")
    parser.add_argument("--sampler", default="tpe", metavar="NAME", help="of `points`")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    given = parser.parse_args()
    if given.which == "points":
        return all_points(given.sampler, given.trials)
    return kills.main(given.kills, given.minutes, given.trials, given.epochs, given.seed)


if __name__ == "__main__":
    sys.exit(main())
