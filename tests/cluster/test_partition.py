"""A worker of `cluster/onprem.yaml` is cut off and comes back, while it goes on writing to the shared folder."""

from __future__ import annotations

import pytest
from installed import events, hosts, search, submitted, timeline, tunnel, whole
from machines import Lan, wait_for
from onprem import FILE, lan, trial_on_w2, up

__all__ = ["lan"]

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200)]


def test_what_both_sides_write_is_there_once(lan: Lan) -> None:
    """The part that is cut off trains on: for a while two processes have one trial, and its files."""
    note = timeline()
    desk = lan.machines["desk"]
    up(lan, note)
    folder, log = lan.shared / "runs" / "first", lan.folder / "job.log"
    with tunnel(desk, FILE), submitted(desk, "first", search("first", 2, "--gpus-per-trial 1"), log) as job:
        cut = trial_on_w2(folder, job, log)
        lan.unplug("w2")
        note(f"w2 is cut off, with trial {cut}")
        wait_for(
            "the trial goes on elsewhere",
            lambda: hosts(folder, cut) == ["w2", "w1"] or job.poll() is not None,
            seconds=400,
        )
        note(f"it is on {hosts(folder, cut)}")
        lan.replug("w2")
        assert job.wait(timeout=400) == 0, log.read_text()
        note("the search ends")
    frame = whole(folder)
    reports = [(event["trial"], event["row"]["epoch"]) for event in events(folder, "report")]
    assert len(reports) == len(set(reports)) == len(frame)
    wait_for(
        "w2 gives up what it was", lambda: "raylet" not in lan.machines["w2"].run("ps ax", timeout=20), seconds=120
    )
    note("w2 has ended its part")
