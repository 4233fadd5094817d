"""`python -m benchmarks.faults points|kills|disk|memory`: what a search survives."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

import optuna

from benchmarks.faults import points
from benchmarks.faults.driven import Driven
from benchmarks.faults.kills import Campaign
from benchmarks.faults.shortage import short_of_disk, short_of_memory
from benchmarks.faults.verdict import most_killed, table, verdict
from benchmarks.processes import adopt_orphans, kill_descendants
from robustsearch.runfolder import RunFolder

COMPARED = 5
"""Trials that are trained once more, without a death."""
SHORTAGES = {"disk": short_of_disk, "memory": short_of_memory}


def all_points(sampler: str, trials: int) -> int:
    """Die at every write of a search with repeats, and go on; prints what is wrong, and how much was tried."""
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


def all_kills(folder: Path, given: argparse.Namespace) -> int:
    """Run a campaign, or go on with the one in the folder; prints its table and what is wrong."""
    start = time.monotonic()
    campaign = Campaign(folder, kills=given.kills, trials=given.trials, epochs=given.epochs, seed=given.seed)
    campaign.run(60 * given.minutes)
    drivers = campaign.search.count("start")
    print(f"{campaign.killed.total()} kills, {drivers} drivers, {time.monotonic() - start:.0f} s")
    print(*table(campaign.strikes), sep="\n")
    return judge(campaign.search, most_killed(campaign.strikes, COMPARED))


def judge(search: Driven, compared: list[str]) -> int:
    """Print what is wrong with a search that has ended; whether anything is."""
    wrong = verdict(search.folder, compared)
    fine = f"{search.trials} trials and the baseline: none lost or doubled, every decision made again"
    print("\n".join(wrong) or f"{fine}; by bits what they are without a fault: {', '.join(compared)}")
    return bool(wrong)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=("points", "kills", *SHORTAGES))
    parser.add_argument("--kills", type=int, default=200, metavar="N")
    parser.add_argument("--minutes", type=float, default=60, metavar="M", help="of killing")
    parser.add_argument("--trials", type=int, default=40, metavar="N")
    parser.add_argument("--epochs", type=int, default=8, metavar="E")
    parser.add_argument("--sampler", default="tpe", metavar="NAME", help="of `points`")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="of `kills`: kept, and gone on with where it is there"
    )
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if given.which == "points":
        return all_points(given.sampler, given.trials)
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="robustsearch-faults-") as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        try:
            if given.which == "kills":
                return all_kills(folder, given)
            with SHORTAGES[given.which](folder, trials=given.trials, epochs=given.epochs) as search:
                return judge(search, ["baseline", "0000", "0001"])
        finally:
            kill_descendants()


if __name__ == "__main__":
    sys.exit(main())
