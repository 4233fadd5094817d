"""Workers that cannot even be imported: the search ends, and says where to look."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from robustsearch.errors import WorkersError
from robustsearch.recipe import Recipe
from robustsearch.runfolder import RunFolder
from robustsearch.search.ledger import Ledger
from robustsearch.search.scheduler import LOST, RungScheduler

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
