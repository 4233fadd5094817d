"""A search on an S3 server: its driver is killed, its machine is lost, and another one goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robustsearch.analysis import load, report
from robustsearch.runfolder import RunFolder
from robustsearch.search.settings import Settings
from robustsearch.storage import Store

server = pytest.importorskip("moto.server", reason="needs moto[server]")
fs = pytest.importorskip("pyarrow.fs")

sys.path.insert(0, str(Path(__file__).parents[1]))  # benchmarks are no part of the package
from benchmarks.faults.driven import TINY  # noqa: E402
from benchmarks.faults.points import faults  # noqa: E402

COMMAND = [sys.executable, "-m", "robustsearch.run", "--storage", "s3://bucket/runs", "--name", "killed"]
SPACE = ["--space", "tiny.py", "--fraction", "0.2", "--trials", "3", "--epochs", "6", "--grace", "2", "--repeats", "0"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_driver_killed_and_its_machine_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "a-secret-key", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in keys.items() | {("AWS_ENDPOINT_URL", f"http://{host}:{port}")}:
        monkeypatch.setenv(name, value)
    fs.S3FileSystem(endpoint_override=f"http://{host}:{port}", allow_bucket_creation=True).create_dir("bucket")
    for machine in ("one", "two"):
        (tmp_path / machine).mkdir()
        (tmp_path / machine / "tiny.py").write_text(TINY)

    one = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "one" / "cache")}
    log = tmp_path / "log"
    with log.open("wb") as out:
        driver = subprocess.Popen(
            [*COMMAND, *SPACE, "--final-images", "0", "--concurrency", "1"],
            cwd=tmp_path / "one",
            env=one,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "test" / "cache"))
    store = Store("s3://bucket/runs/killed")
    deadline = time.monotonic() + 400
    while (store.get("events/00000000.jsonl") or b"").count(b'"kind": "tell"') < 2 and time.monotonic() < deadline:
        assert driver.poll() is None, log.read_text()
        time.sleep(0.2)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    before = store.get("events/00000000.jsonl")
    assert before is not None
    assert b'"kind": "end"' not in before, "the search ended before it could be killed"
    shutil.rmtree(tmp_path / "one")

    two = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "two" / "cache")}
    resumed = subprocess.run(
        [*COMMAND, "--resume"], cwd=tmp_path / "two", env=two, capture_output=True, text=True, timeout=400
    )
    assert resumed.returncode == 0, resumed.stderr
    after = store.get("events/00000000.jsonl")
    assert after is not None
    assert after.startswith(before)
    for line in ("figures/report.html", "figures/pareto.html", "trials"):
        assert f" s3://bucket/runs/killed/{line}\n" in resumed.stdout, "not where it is on this machine"

    run = load.load(Path("s3://bucket/runs/killed"))
    assert run.info["name"] == "killed"
    html = report.write(Path("s3://bucket/runs/killed"), tmp_path / "page").read_text()
    assert "python -m robustsearch.evaluate s3://bucket/runs/killed<" in html
    assert "Learning curves of" in html
    assert "holds no TensorBoard logs" not in html, "this machine has none of its own"
    monkeypatch.chdir(tmp_path / "two")
    assert faults(RunFolder(run.folder), Settings(**run.info["settings"])) == []
    assert {name.split("/")[1] for name in store.names("trials")} == {"baseline", "0000", "0001", "0002", "search"}
    kept = tmp_path / "two" / run.folder.relative_to(tmp_path / "test") / ".tune" / "tune"
    assert kept.exists()
    assert not list(kept.rglob("checkpoint_*")), "a worker on another machine does not have that folder"
    assert "figures/pareto.png" in store.names("figures")
    for name in store.names(""):
        assert b"a-secret-key" not in (store.get(name) or b""), name
    assert "a-secret-key" not in log.read_text() + resumed.stdout + resumed.stderr + json.dumps(run.info)
    moto.stop()
