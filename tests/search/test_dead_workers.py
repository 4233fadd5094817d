"""Workers that cannot even be imported: the search ends, and says where to look."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from robustsearch.runfolder import RunFolder
from robustsearch.search.scheduler import LOST

BROKEN = """
import sys
if any("default_worker.py" in word for word in sys.orig_argv):
    sys.modules["robustsearch.search.worker"] = None
"""
"""An installation in which Ray's workers, and nobody else, find no `robustsearch.search.worker`."""


@pytest.mark.slow
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
