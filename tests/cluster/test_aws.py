"""`cluster/config.yaml` on a cloud of machines, the run in S3: from no worker to two and back to none.

On the way one of the two is taken back, and then the driver is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import ACCESS, Cloud
from installed import (
    HOME,
    ROOT,
    check_resumed,
    events,
    half_way,
    hosts,
    network,
    search,
    steps,
    submitted,
    timeline,
    tunnel,
    whole,
)
from machines import Lan, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

BUCKET = "robustsearch-tests"
EPOCHS = 24
"""Enough that two trials which began at a time are half way at a time."""
ROLE = f"""
import boto3
iam = boto3.client("iam")
iam.create_role(RoleName="robustsearch", AssumeRolePolicyDocument="{{}}")
iam.put_role_policy(
    RoleName="robustsearch", PolicyName="robustsearch", PolicyDocument=open("{ROOT}/cluster/aws-policy.json").read()
)
iam.create_instance_profile(InstanceProfileName="robustsearch")
iam.add_role_to_instance_profile(InstanceProfileName="robustsearch", RoleName="robustsearch")
boto3.client("s3").create_bucket(Bucket="{BUCKET}", CreateBucketConfiguration={{"LocationConstraint": "us-west-2"}})
"""
"""The commands of docs/cluster.md, once per account."""


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[Lan]:
    """The network of the cloud."""
    with network(tmp_path, ACCESS, modules=("aiohttp", "boto3", "moto", "flask")) as lan:
        yield lan


def test_up_from_zero_a_spot_instance_taken_back_the_driver_killed_and_down(lan: Lan) -> None:
    note = timeline()
    text = (ROOT / "cluster" / "config.yaml").read_text()
    for old, new in (
        ("ssh_user: ubuntu", "ssh_user: root"),
        ("  type: aws\n", "  type: aws\n  use_internal_ips: true\n"),  # the desk is in the cloud's own network
        ("idle_timeout_minutes: 5", "idle_timeout_minutes: 1"),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    (lan.shared / "config.yaml").write_text(text)
    (lan.shared / "role.py").write_text(ROLE)
    file, log, again = "/shared/config.yaml", lan.folder / "job.log", lan.folder / "again.log"
    command = search("first", 2, "--gpus-per-trial 1 --concurrency 2", storage=f"s3://{BUCKET}/runs", epochs=EPOCHS)
    with Cloud(lan) as cloud:
        folder = cloud.bucket(BUCKET) / "runs" / "first"
        desk = lan.machine("desk", "172.31.255.2")
        desk.run(f"{HOME}/bin/python /shared/role.py", timeout=120)
        desk.run("ray get-auth-token --generate > /dev/null", timeout=120)
        note("the cloud answers")
        (lan.folder / "up.log").write_text(desk.run(f"cd {ROOT} && ray up --yes {file}", timeout=600))
        note("up")
        (head,) = cloud.of("m5.large")
        assert cloud.of("g5.xlarge") == []
        with tunnel(desk, file):
            with submitted(desk, "first", command, log) as job:

                def on_both() -> dict[str, str]:
                    """A trial that is half way, by the instance that it is on, once there are two."""
                    assert job.poll() is None, log.read_text()
                    workers = cloud.of("g5.xlarge")
                    found = {each: trial for each in workers for trial in half_way(folder, cloud.name(each))}
                    return found if len(found) == 2 else {}

                wait_for("a worker comes", lambda: cloud.of("g5.xlarge"), seconds=300)
                note("the first worker boots")
                wait_for("the other one", lambda: len(cloud.of("g5.xlarge")) == 2, seconds=60)
                note("two workers boot")
                both = wait_for("a trial on each", on_both, seconds=600, every=0.2)
                by_trial = sorted((trial, instance) for instance, trial in both.items())
                (other, kept), (trial, lost) = by_trial  # the baseline, which is the longest, comes last
                cloud.take_back(lost)
                note(f"a worker taken back, with trial {trial}; {other} is on the other one")
                epoch = steps(folder, other)[-1][-1]
                wait_for("the other one goes on", lambda: steps(folder, other)[-1][-1] > epoch, seconds=300)
                wait_for("the trial goes on", lambda: len(hosts(folder, trial)) > 1, seconds=600)
                note(f"it goes on, on {hosts(folder, trial)}")
                assert hosts(folder, other) == [cloud.name(kept)]
                cloud.machines[head].run("pkill -KILL -f '[r]obustsearch.run'", timeout=20)
                assert job.wait(timeout=120) != 0
                assert not events(folder, "end")
                note("the driver is killed")
            with submitted(desk, "first-again", command, again) as job:
                assert job.wait(timeout=900) == 0, again.read_text()
        note("the search ends")
        assert all("2 at a time" in shown.read_text() for shown in (log, again))
        wait_for("the last objects", lambda: events(folder, "end"), seconds=60)
        assert len(events(folder, "start")) == 2
        whole(folder, EPOCHS)
        first, *others = hosts(folder, trial)
        assert first == cloud.name(lost)
        assert others
        assert first not in others
        check_resumed(folder, trial, EPOCHS)
        workers = [kind for kind in cloud.kinds.values() if kind[0] == "g5.xlarge"]
        assert len(workers) >= 2
        assert set(workers) == {("g5.xlarge", "spot")}
        wait_for("the workers go", lambda: not cloud.of("g5.xlarge"), seconds=300)
        note("no worker is left")
        assert cloud.of("m5.large") == [head]
        desk.run(f"ray down --yes {file}", timeout=300)
        wait_for("the head goes", lambda: not cloud.machines, seconds=60)
        note("down")
