"""Workers that cannot even be imported: the search ends, and says where to look. One that dies between two trials."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustsearch import results
from robustsearch.errors import WorkersError
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import LOST, RungScheduler

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks are no part of the package
from benchmarks.faults.driven import TINY

BROKEN = """
import sys
if any("default_worker.py" in word for word in sys.orig_argv):
    sys.modules["robustsearch.search.worker"] = None
"""
"""An installation in which Ray's workers, and nobody else, find no `robustsearch.search.worker`."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_workers_that_die_before_they_begin_end_the_search_which_can_be_resumed(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(BROKEN)
    command = [sys.executable, "-m", "robustsearch.run", "--space", "lwta", "--trials", "1", "--concurrency", "1"]
    done = subprocess.run(
        [*command, "--name", "broken"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(broken)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 3, done.stderr
    assert f"{LOST} of 'baseline' died one after the other" in done.stderr
    assert "ModuleNotFoundError: import of robustsearch.search.worker halted" in done.stderr
    assert "python -m robustsearch.run --resume --name broken" in done.stderr
    (log,) = re.findall(r"All of them: (\S+);", done.stderr)
    assert Path(log).read_text().count("Failure # ") == LOST
    run = RunFolder(tmp_path / "runs" / "broken")
    assert '"kind": "tell"' not in run.events_file.read_text()


DYING = """
import importlib.util, os, signal, sys

class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "robustsearch.search.worker":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def then(module):
            execute(module)
            take_over = module.Worker.reset_config

            def reset_config(worker, config):
                try:
                    os.close(os.open(os.environ["DIES_ONCE"], os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    return take_over(worker, config)
                os.kill(os.getpid(), signal.SIGKILL)

            module.Worker.reset_config = reset_config

        spec.loader.exec_module = then
        return spec

sys.meta_path.insert(0, Hook())
"""
"""An installation in which the first worker that is to take over another trial is killed."""


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_trial_whose_worker_dies_as_it_takes_it_over_is_not_lost(tmp_path: Path) -> None:
    """Ray 2.60 starts no other worker for it, as it does for all others."""
    (tmp_path / "sitecustomize.py").write_text(DYING)
    (tmp_path / "tiny.py").write_text(TINY)
    command = [sys.executable, "-m", "robustsearch.run", "--space", "tiny.py", "--fraction", "0.2", "--trials", "1"]
    done = subprocess.run(
        [*command, "--epochs", "1", "--concurrency", "1", "--name", "dying", "--final-images", "0", "--repeats", "0"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path), "DIES_ONCE": str(tmp_path / "died")},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    rows = results.read(tmp_path / "runs" / "dying" / "results").to_pylist()
    assert {row["trial"]: row["state"] for row in rows} == {"baseline": "completed", "0000": "completed"}


def test_losses_between_which_an_epoch_ends_or_of_different_trials_are_not_added_up(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.write_info({})
    said = tmp_path / "error.txt"
    said.write_text("Failure # 1\nno such module")
    epoch = {"rows": [], "ended": None, "reason": None, "epoch": 1}
    with Ledger(folder) as ledger:
        trials = []
        for name in ("0000", "0001"):
            ledger.ask(name, "search", Recipe(), 0, 0)
            trials.append(SimpleNamespace(config={"trial": name}, error_file=str(said)))
        scheduler = RungScheduler(ledger, eta=None, changed=lambda entry: None)
        for _ in range(2):
            for trial in trials * (LOST - 1):
                scheduler.on_trial_error(None, trial)
            for trial in trials:
                assert scheduler.on_trial_result(None, trial, epoch) == RungScheduler.CONTINUE
        for _ in range(LOST - 1):
            scheduler.on_trial_error(None, trials[1])
        scheduler.on_trial_error(None, trials[0])
        with pytest.raises(WorkersError, match=r"'0001'.*no such module.*error\.txt"):
            scheduler.on_trial_error(None, trials[1])
