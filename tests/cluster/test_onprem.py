"""`cluster/onprem.yaml` as it stands: three machines, a search of this project on them, one of them lost on the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from installed import ROOT, SPACE, half_way, hosts, search, setup, steps, submitted, tunnel
from machines import Lan, NoMachines, missing, wait_for

ADDRESSES = {"desk": "192.168.0.1", "head": "192.168.0.10", "w1": "192.168.0.11", "w2": "192.168.0.12"}
"""Those of the file, and of the desk from which it is used."""
GPUS = """
case $(hostname) in w*) echo "export RAY_OVERRIDE_RESOURCES='{\\"CPU\\": 2, \\"GPU\\": 1}'" >> ~/.bashrc ;; esac
"""
"""A worker shows Ray the processors of a small GPU machine: trials are placed by what Ray is told of those."""

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """The network."""
    if reason := missing():
        pytest.skip(reason)
    pytest.importorskip("aiohttp", reason="needs ray[default]")
    try:
        lan = Lan(tmp_path, setup=setup(GPUS), visible=(ROOT,))
    except NoMachines as error:
        pytest.skip(str(error))
    with lan:
        yield lan


def test_up_a_search_that_loses_a_machine_and_down(lan: Lan) -> None:
    try:
        machines = {name: lan.machine(name, address) for name, address in ADDRESSES.items()}
    except NoMachines as error:
        pytest.skip(str(error))
    desk = machines["desk"]
    (lan.shared / "small.py").write_text(SPACE)
    text = (ROOT / "cluster" / "onprem.yaml").read_text()
    assert text.count("ssh_user: robustsearch") == 1
    assert all(address in text for name, address in ADDRESSES.items() if name != "desk")
    (lan.shared / "onprem.yaml").write_text(text.replace("ssh_user: robustsearch", "ssh_user: root"))
    file = "/shared/onprem.yaml"

    desk.run("ray get-auth-token --generate > /dev/null", timeout=120)
    desk.run(f"cd {ROOT} && ray up --yes {file}", timeout=400)
    wait_for(
        "both workers join",
        lambda: "/2.0 GPU" in desk.run(f"ray exec {file} 'ray status'", timeout=120, check=False),
        seconds=300,
        every=3,
    )
    refused = desk.run(
        f"ray exec {file} 'python -m robustsearch.run --space lwta --storage ~/runs --address auto'",
        timeout=240,
        check=False,
    )
    assert "`--storage` must be a folder that all nodes share" in refused
    assert "cannot access" in machines["head"].run("ls -d ~/runs", timeout=20, check=False)

    folder, log = lan.shared / "runs" / "first", lan.folder / "job.log"
    with (
        tunnel(desk, file),
        submitted(desk, "first", search("first", 2, "--gpus-per-trial 1"), log) as job,
    ):

        def on_w2() -> list[str]:
            assert job.poll() is None, log.read_text()
            return half_way(folder, "w2")

        wait_for("a trial on w2", on_w2, seconds=300, every=0.2)
        (lost,) = on_w2()
        machines["w2"].power_off()
        assert job.wait(timeout=400) == 0, log.read_text()
    shown = log.read_text()
    assert "2 at a time" in shown
    assert "3 nodes alive" in shown
    frame = pd.read_parquet(folder / "results")
    assert not frame.duplicated(["trial", "epoch"]).any()
    assert set(frame["trial"]) == {"baseline", "0000", "0001"}
    assert set(frame["state"]) == {"completed"}
    assert frame.groupby("trial")["epoch"].max().eq(8).all()
    assert frame["robust"].notna().all()
    assert hosts(folder, lost) == ["w2", "w1"]
    after = steps(folder, lost)[-1]
    assert after[0] > 2  # from its checkpoint
    assert after == list(range(after[0], 9))

    desk.run(f"ray down --yes {file}", timeout=240)
    assert "raylet" not in machines["head"].run("ps ax", timeout=20)
    wait_for("the worker ends", lambda: "raylet" not in machines["w1"].run("ps ax", timeout=20), seconds=120)
