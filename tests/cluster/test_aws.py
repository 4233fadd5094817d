"""`cluster/config.yaml` on a cloud of machines, the run in S3: from no worker to two, one taken back, back to none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud import ACCESS, Cloud
from installed import HOME, ROOT, events, half_way, hosts, network, search, steps, submitted, timeline, tunnel
from machines import Lan, wait_for
from pyarrow.dataset import dataset

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]

BUCKET = "robustsearch-tests"
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


def test_up_from_zero_a_spot_instance_taken_back_and_down(lan: Lan) -> None:
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
    file, log = "/shared/config.yaml", lan.folder / "job.log"
    command = search("first", 2, "--gpus-per-trial 1 --concurrency 2", storage=f"s3://{BUCKET}/runs")
    with Cloud(lan) as cloud:
        folder = cloud.bucket(BUCKET) / "runs" / "first"
        desk = lan.machine("desk", "172.31.255.2")
        desk.run(f"{HOME}/bin/python /shared/role.py", timeout=120)
        desk.run("ray get-auth-token --generate > /dev/null", timeout=120)
        note("the cloud answers")
        (lan.folder / "up.log").write_text(desk.run(f"cd {ROOT} && ray up --yes {file}", timeout=600))
        note("up")
        assert len(cloud.of("m5.large")) == 1
        assert cloud.of("g5.xlarge") == []
        with (
            tunnel(desk, file),
            submitted(desk, "first", command, log) as job,
        ):

            def on_spot() -> list[tuple[str, str]]:
                assert job.poll() is None, log.read_text()
                return [
                    (identity, trial)
                    for identity in cloud.of("g5.xlarge")
                    for trial in half_way(folder, cloud.name(identity))
                ]

            wait_for("a worker comes", lambda: cloud.of("g5.xlarge"), seconds=300)
            note("the first worker boots")
            wait_for("the other one", lambda: len(cloud.of("g5.xlarge")) == 2, seconds=60)
            note("two workers boot")
            wait_for("a trial on one", on_spot, seconds=600, every=0.2)
            identity, trial = on_spot()[0]
            cloud.take_back(identity)
            note(f"a worker taken back, with trial {trial}")
            wait_for("the trial goes on", lambda: len(hosts(folder, trial)) > 1, seconds=600)
            note("it goes on")
            assert job.wait(timeout=900) == 0, log.read_text()
        note("the search ends")
        shown = log.read_text()
        assert "2 at a time" in shown
        wait_for("the last objects", lambda: events(folder, "end"), seconds=60)
        frame = dataset(sorted(map(str, (folder / "results").glob("*.parquet")))).to_table().to_pandas()
        assert not frame.duplicated(["trial", "epoch"]).any()
        assert set(frame["trial"]) == {"baseline", "0000", "0001"}
        assert set(frame["state"]) == {"completed"}
        first, *others = hosts(folder, trial)
        assert first == cloud.name(identity)
        assert others
        assert first not in others
        after = steps(folder, trial)[-1]
        assert after[0] > 2  # from its checkpoint
        assert after == list(range(after[0], 9))
        workers = [kind for kind in cloud.kinds.values() if kind[0] == "g5.xlarge"]
        assert len(workers) >= 2
        assert set(workers) == {("g5.xlarge", "spot")}
        wait_for("the workers go", lambda: not cloud.of("g5.xlarge"), seconds=300)
        note("no worker is left")
        assert len(cloud.of("m5.large")) == 1
        desk.run(f"ray down --yes {file}", timeout=300)
        wait_for("the head goes", lambda: not cloud.machines, seconds=60)
        note("down")
