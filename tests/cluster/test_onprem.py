"""`cluster/onprem.yaml` as it stands: three machines, a search of this project on them, one of them lost on the way."""

from __future__ import annotations

import pytest
from installed import check_resumed, hosts, search, submitted, timeline, tunnel, whole
from machines import Lan, wait_for
from onprem import FILE, lan, trial_on_w2, up

__all__ = ["lan"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def test_up_a_search_that_loses_a_machine_and_down(lan: Lan) -> None:
    note = timeline()
    machines = lan.machines
    desk = machines["desk"]
    up(lan, note)
    alone = "python -m robustsearch.run --space lwta --storage ~/runs --address auto"
    refused = machines["head"].run(alone, timeout=240, check=False)
    assert "`--storage` must be a folder that all nodes share" in refused
    assert "cannot access" in machines["head"].run("ls -d ~/runs", timeout=20, check=False)
    note("a folder of one node's own is refused")
    folder, log = lan.shared / "runs" / "first", lan.folder / "job.log"
    with (
        tunnel(desk, FILE),
        submitted(desk, "first", search("first", 2, "--gpus-per-trial 1"), log) as job,
    ):
        lost = trial_on_w2(folder, job, log)
        machines["w2"].power_off()
        note(f"a machine lost, with trial {lost}")
        assert job.wait(timeout=400) == 0, log.read_text()
    note("the search ends")
    shown = log.read_text()
    assert "2 at a time" in shown
    assert "3 nodes alive" in shown
    frame = whole(folder)
    assert frame["robust"].notna().all()
    assert hosts(folder, lost) == ["w2", "w1"]
    check_resumed(folder, lost)

    desk.run(f"ray down --yes {FILE}", timeout=240)
    note("down")
    assert "raylet" not in machines["head"].run("ps ax", timeout=20)
    wait_for("the worker ends", lambda: "raylet" not in machines["w1"].run("ps ax", timeout=20), seconds=120)
    note("the worker has ended")
