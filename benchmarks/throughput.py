"""How many trials a cluster gets through: `python -m benchmarks.throughput [--workers 2 4 8]`.

Nodes are logical ones of this machine, of one CPU each, beside a head without any. A trial sleeps for a time in each
epoch, so that workers do not compete for this machine's cores; all else of a search is real: Ray Tune, its placement,
the searcher, the scheduler's reports, event log, results and study. Prints, for each number of workers, the time of all
trials against the ideal, which is sleeping alone: from the first trial's start, and with the start of the workers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import optuna
from ray import tune

from benchmarks.problems import EPOCHS, EPSILON, PROBLEMS
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Ledger
from robustsearch.search.placement import DRIVER_ENVIRONMENT, find_place
from robustsearch.search.scheduler import RungScheduler
from robustsearch.search.searcher import OptunaSearcher, open_study
from robustsearch.search.settings import Settings


class Sleeper(tune.Trainable):  # type: ignore[misc]
    """A trial whose epochs take no work, and which reports one row at its end, the same as all others."""

    def setup(self, config: dict[str, Any], *, seconds: float) -> None:
        """Begin the trial that `config` names."""
        self._seconds = seconds
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial into this process."""
        self._epoch = 0
        return True

    def step(self) -> dict[str, Any]:
        """Sleep for an epoch."""
        time.sleep(self._seconds)
        self._epoch += 1
        row = {"epoch": self._epoch, "robust": 0.5, "latency_p50": 1.0, "n": 200}
        rows = [row] if self._epoch == EPOCHS else []
        return {"rows": rows, "epoch": self._epoch, "ended": None, "reason": None}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing, as a search's own workers."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing."""


def measure(workers: int, trials: int, seconds: float, folder: RunFolder) -> tuple[float, float]:
    """Seconds from the first trial's start, and from the start of everything, to the last trial's end."""
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        for _ in range(workers):
            cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        place = find_place(Settings("zdt1"), folder.root, address=cluster.address)
        folder.write_info({})
        heard: list[float] = []
        with Ledger(folder) as ledger:
            searcher = OptunaSearcher(
                PROBLEMS["zdt1"]().space,
                ledger,
                open_study(folder),
                baseline=None,
                overrides={},
                epsilon=EPSILON,
                sampler="random",
                trials=trials,
                repeats=0,
                seed=0,
            )
            scheduler = RungScheduler(ledger, eta=None, changed=lambda entry: heard.append(time.monotonic()))
            start = time.monotonic()
            tune.Tuner(
                tune.with_resources(tune.with_parameters(Sleeper, seconds=seconds), place.request()),
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler,
                    num_samples=-1,
                    reuse_actors=True,
                    max_concurrent_trials=place.concurrency,
                ),
                run_config=tune.RunConfig(
                    name="tune",
                    storage_path=str(folder.root / ".tune"),
                    verbose=0,
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # as in a run
                ),
            ).fit()
            states = {entry.state for entry in ledger.entries.values()}
            if place.concurrency != workers or len(ledger.entries) != trials or states != {"completed"}:
                raise RuntimeError(f"every trial must be completed, {workers} at a time, but they are {states}")
        return heard[-1] - (heard[0] - seconds), heard[-1] - start
    finally:
        ray.shutdown()
        cluster.shutdown()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4, 8], metavar="N")
    parser.add_argument("--trials-per-worker", type=int, default=4, metavar="N")
    parser.add_argument("--seconds", type=float, default=1.0, metavar="S", help=f"of an epoch; a trial has {EPOCHS}")
    given = parser.parse_args()
    for name, value in DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    print("| workers | trials | ideal, s | measured, s | of ideal % | with the workers' start, s | of ideal % |")
    print("|---|---|---|---|---|---|---|")
    for workers in given.workers:
        trials = workers * given.trials_per_worker
        ideal = given.trials_per_worker * EPOCHS * given.seconds
        with tempfile.TemporaryDirectory() as temporary:
            running, whole = measure(workers, trials, given.seconds, RunFolder(Path(temporary) / "throughput"))
        print(
            f"| {workers} | {trials} | {ideal:.0f} | {running:.1f} | {100 * ideal / running:.1f} | {whole:.1f} "
            f"| {100 * ideal / whole:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
