"""The machines of `cluster/onprem.yaml`, and the cluster that `ray up` makes of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installed import ROOT, half_way, network
from machines import Lan, wait_for

ADDRESSES = {"desk": "192.168.0.1", "head": "192.168.0.10", "w1": "192.168.0.11", "w2": "192.168.0.12"}
"""Those of the file, and of the desk from which it is used."""
FILE = "/shared/onprem.yaml"
"""The file on the machines; only the user is another."""
OWN = """
case $(hostname) in
    w*) echo "export RAY_OVERRIDE_RESOURCES='{\\"CPU\\": 2, \\"GPU\\": 1}'" >> ~/.bashrc ;;
    head) echo "export RAY_health_check_failure_threshold=3" >> ~/.bashrc ;;
esac
"""
"""A worker shows Ray the processors of a small GPU machine: trials are placed by what Ray is told of those. The head
takes a machine for lost that is silent three times (each takes 13 s) instead of five."""


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """The machines, on which nothing runs yet; where they cannot be made, skips."""
    text = (ROOT / "cluster" / "onprem.yaml").read_text()
    assert text.count("ssh_user: robustsearch") == 1
    assert all(address in text for name, address in ADDRESSES.items() if name != "desk")
    shared = {"onprem.yaml": text.replace("ssh_user: robustsearch", "ssh_user: root").encode()}
    with network(tmp_path, OWN, addresses=ADDRESSES, shared=shared, modules=("aiohttp",)) as lan:
        yield lan


def trial_on_w2(folder: Path, job: subprocess.Popen[bytes], log: Path) -> str:
    """A trial of a job that is half way on w2, as soon as there is one."""

    def there() -> list[str]:
        assert job.poll() is None, log.read_text()
        return half_way(folder, "w2")

    (trial,) = wait_for("a trial on w2", there, seconds=300, every=0.2)
    return trial


def up(lan: Lan, note: Callable[[str], None]) -> None:
    """`ray up`, until both workers have joined; `note` is told how far it is."""
    desk = lan.machines["desk"]
    desk.run("ray get-auth-token --generate > /dev/null", timeout=120)
    note("the token is there")
    desk.run(f"cd {ROOT} && ray up --yes {FILE}", timeout=400)
    note("up")
    wait_for(  # cheaper than to ask Ray, while the machines have work to do
        "Ray starts on both workers",
        lambda: all("raylet" in lan.machines[name].run("ps ax", timeout=20) for name in ("w1", "w2")),
        seconds=300,
    )
    wait_for(
        "both workers join",
        lambda: "/2.0 GPU" in desk.run(f"ray exec {FILE} 'ray status'", timeout=120, check=False),
        seconds=300,
        every=1,
    )
    note("both workers joined")
