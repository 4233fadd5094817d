"""`cluster/slurm.sbatch` under Slurm on three machines: one is lost, the job is requeued, and goes on with its run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed import HOME, ROOT, check_resumed, events, half_way, network, timeline, whole
from machines import PATH, Lan, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1800)]

NODES = {"n1": "10.77.0.11", "n2": "10.77.0.12", "n3": "10.77.0.13"}
LISTED = "\n".join(f"NodeName={name} NodeAddr={address}" for name, address in NODES.items())
CONF = f"""
ClusterName=tests
SlurmctldHost=n1({NODES["n1"]})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=20
AuthInfo=cred_expire=30
MpiDefault=none
NodeName=DEFAULT CPUs=2 RealMemory=1000 Gres=gpu:1 State=UNKNOWN
{LISTED}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
SLURM = f"""
printf '{"".join(f"{address} {name}{chr(92)}n" for name, address in NODES.items())}' >> /etc/hosts
mkdir -p /run/munge /var/log/munge /var/lib/munge /var/spool/slurmctld /var/spool/slurmd /etc/slurm /etc/munge
cp /shared/slurm.conf /etc/slurm/slurm.conf
echo 'Name=gpu File=/dev/null' > /etc/slurm/gres.conf
echo 'CgroupPlugin=cgroup/v1' > /etc/slurm/cgroup.conf
cp /shared/.keys/munge.key /etc/munge/munge.key
chown -R root:root /etc/munge /run/munge /var/log/munge /var/lib/munge
chmod 700 /etc/munge /var/log/munge; chmod 755 /run/munge; chmod 400 /etc/munge/munge.key
export PATH={PATH}
munged --force
test "$(hostname)" != n1 || slurmctld -L /shared/.slurmctld.log
slurmd -L /shared/.slurmd-$(hostname).log -N $(hostname)
"""


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """The network."""
    shared = {"slurm.conf": CONF.encode(), ".keys/munge.key": bytes(range(256)) * 4}
    programs = ("munged", "slurmctld", "slurmd", "sbatch")
    with network(tmp_path, SLURM, addresses=NODES, shared=shared, programs=programs) as lan:
        yield lan


def test_a_node_is_lost_and_the_requeued_job_goes_on(lan: Lan) -> None:
    note = timeline()
    head = lan.machines["n1"]
    home = lan.shared / "home"  # which the nodes share, with what is installed there
    home.mkdir()
    head.run("cp -a ~/.robustsearch ~/.config /shared/home/", timeout=60)
    head.run(f"sed -i 's#{HOME}#/shared/home/.robustsearch#' /shared/home/.robustsearch/bin/{{ray,pip}}", timeout=20)
    text = (ROOT / "cluster" / "slurm.sbatch").read_text()
    asked = "--space lwta --dataset cifar10 --trials 100 --epochs 30"
    assert text.count(asked) == 1
    small = (
        "--space /shared/small.py --fraction 0.5 --trials 2 --epochs 8 --scheduler none --repeats 0 --final-images 0"
    )
    (lan.shared / "slurm.sbatch").write_text(text.replace(asked, f"{small} --gpus-per-trial 1"))
    wait_for("three idle nodes", lambda: head.run("sinfo -h -o '%t %D'", timeout=30).strip() == "idle 3", seconds=120)
    note("three nodes idle")
    shows = """RAY_OVERRIDE_RESOURCES='{"CPU": 2, "GPU": 1}'"""
    said = head.run(
        f"cd {ROOT} && HOME=/shared/home ROBUSTSEARCH_STORAGE=/shared/runs {shows} "
        "sbatch --output=/shared/slurm-%j.log /shared/slurm.sbatch",
        timeout=60,
    )
    job = re.findall(r"\d+", said)[0]
    folder = lan.shared / "runs" / f"slurm-{job}"

    def log() -> str:
        path = lan.shared / f"slurm-{job}.log"
        return path.read_text() if path.exists() else ""

    def state() -> str:
        return head.run(f"squeue -h -j {job} -o %T", timeout=30, check=False).strip()

    def on_n3() -> list[str]:
        assert state() in ("PENDING", "CONFIGURING", "RUNNING"), log()
        return half_way(folder, "n3")

    (lost,) = wait_for("a trial on the third node", on_n3, seconds=500)
    lan.machines["n3"].power_off()
    note(f"a node lost, with trial {lost}")
    wait_for("the job is requeued", lambda: state() == "PENDING", seconds=300)
    note("requeued")
    lan.machine("n3", NODES["n3"])
    wait_for("it goes on", lambda: len(events(folder, "start")) == 2, seconds=600)
    note("the search goes on")
    wait_for("its end", lambda: state() in ("", "COMPLETED"), seconds=600, every=2)
    note("ended")
    assert log().count("3 at a time") == 2
    assert len(events(folder, "start")) == 2
    assert events(folder, "end")
    whole(folder)
    check_resumed(folder, lost)
