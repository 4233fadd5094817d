"""What a large search costs its driver: `python -m benchmarks.scale [--trials 10000] [--workers 256]`.

Simulates the search with lost workers, and with the real ledger, event log, results and study on disk, so that all that
is left out is Ray and the training. Prints, for each tenth of the events, the driver's CPU time for one event, the
memory of the process and the length of the log: flat lines are linear cost.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import optuna

from benchmarks.problems import EPOCHS, EPSILON, PROBLEMS
from robustsearch.runfolder import RunFolder
from robustsearch.search.halving import rungs
from robustsearch.search.ledger import Ledger
from robustsearch.search.live import Attained
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.searcher import OptunaSearcher, open_study
from robustsearch.search.simulate import simulate


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000, metavar="N")
    parser.add_argument("--workers", type=int, default=256, metavar="N")
    parser.add_argument("--losses", type=float, default=0.02, metavar="P", help="workers lost between two reports")
    parser.add_argument("--sampler", default="random", metavar="NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the run folder goes (a temporary one)")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    problem = PROBLEMS["zdt1"]()
    with tempfile.TemporaryDirectory(dir=given.out) as temporary:
        folder = RunFolder(Path(temporary) / "scale")
        folder.write_info({})
        with Ledger(folder) as ledger:
            searcher = OptunaSearcher(
                problem.space,
                ledger,
                open_study(folder),
                baseline=None,
                overrides={},
                epsilon=EPSILON,
                sampler=given.sampler,
                trials=given.trials,
                repeats=0,
                seed=0,
            )
            attained = Attained(ledger)
            scheduler = RungScheduler(ledger, eta=2, changed=attained.update)
            curves = problem.curves(rungs(EPOCHS, 2, 3))
            print("| events | CPU ms an event (median of blocks) | memory, MB | log, MB | Optuna's journal, MB |")
            print("|---|---|---|---|---|")
            rows, blocks, before = [], [], time.process_time()
            for count, _ in enumerate(
                simulate(searcher, scheduler, curves, workers=given.workers, losses=given.losses), 1
            ):
                if count % 20 == 0:
                    now = time.process_time()
                    blocks.append(1000 * (now - before) / 20)
                    before = now
                if count % max(1, given.trials // 5) == 0:
                    rows.append(count)
                    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                    sizes = [path.stat().st_size / 1e6 for path in (folder.events_file, folder.study_file)]
                    print(
                        f"| {count} | {statistics.median(blocks):.2f} | {memory:.0f} | {sizes[0]:.1f} | "
                        f"{sizes[1]:.1f} |",
                        flush=True,
                    )
                    blocks = []
            states = [entry.state for entry in ledger.entries.values()]
            counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
            print(f"\n{len(states)} trials ({counted}), {len(ledger.log.events)} events")


if __name__ == "__main__":
    main()
