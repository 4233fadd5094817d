"""A driver whose Ray is killed ends at once, and says how to go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import signal
from pathlib import Path
import ray
from robustsearch.runfolder import RunFolder
from robustsearch.search.lifeline import lifeline

ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
with lifeline(RunFolder(Path("shelf/half"))):
    print("open", flush=True)
    signal.pause()
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("name", "said"), [("raylet", "Ray's raylet"), ("gcs_server", "Ray's head")])
def test_the_end_of_rays_own_process_ends_the_driver_with_the_way_to_go_on(
    tmp_path: Path, name: str, said: str
) -> None:
    driver = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert driver.stdout
    assert driver.stdout.readline() == "open\n"
    found = subprocess.run(
        ["pgrep", "--parent", str(driver.pid), "--exact", name], capture_output=True, text=True, check=True
    )
    os.kill(int(found.stdout), signal.SIGKILL)
    _, words = driver.communicate(timeout=60)
    assert driver.returncode == 3
    assert f"error: {said}" in words
    assert "to go on: python -m robustsearch.run --resume --name half --storage shelf" in words
