"""A cloud on this host: moto answers for AWS, and each instance that it says it runs is a machine at that address."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from machines import Lan, Machine, wait_for

ADDRESS = "172.31.255.1"
"""Of the service itself, within moto's own network of 172.31.0.0/16."""
ACCESS = f"""
cat >> ~/.bashrc <<'END'
export AWS_ENDPOINT_URL=http://{ADDRESS}:5000 AWS_ACCESS_KEY_ID=testing AWS_SECRET_ACCESS_KEY=testing
export AWS_DEFAULT_REGION=us-west-2
END
test ! -e /shared/.keys/$(hostname).pub || cat /shared/.keys/$(hostname).pub >> ~/.ssh/authorized_keys
"""
"""What a machine of this cloud knows: where AWS is, and whom to let in."""

SERVER = """
from moto.ec2.responses.instances import InstanceResponse
from moto.server import main
told = InstanceResponse._get_param
InstanceResponse._get_param = lambda self, name, *rest, **more: told(
    self, "MaxCount" if name == "MinCount" else name, *rest, **more
)
main(["-H", "0.0.0.0", "-p", "5000"])
"""
"""moto, which starts no more than the fewest instances that would do, starts as many as it may, as AWS does."""

MIRROR = """
import os, time, boto3
from pathlib import Path
s3, seen = boto3.client("s3"), {}
while True:
    for bucket in s3.list_buckets()["Buckets"]:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket["Name"]):
            for each in page.get("Contents", []):
                path = Path("/shared/s3", bucket["Name"], each["Key"])
                if seen.get(path) == each["ETag"]:
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                new = path.with_name(f".{path.name}.part")
                s3.download_file(bucket["Name"], each["Key"], new)
                if path in seen and path.name == "checkpoint.pt":
                    os.replace(path, f"{path}.previous")
                os.replace(new, path)
                seen[path] = each["ETag"]
    time.sleep(0.5)
"""
"""What is in S3, as files that this host sees; a checkpoint that is replaced is kept, as in a run folder."""

INSTANCES = """
import json, time, boto3
ec2 = boto3.client("ec2")
while True:
    pairs = ec2.describe_key_pairs(IncludePublicKey=True)["KeyPairs"]
    keys = {key["KeyName"]: key.get("PublicKey", "") for key in pairs}
    alive = {}
    for reservation in ec2.describe_instances()["Reservations"]:
        for each in reservation["Instances"]:
            if each["State"]["Name"] in ("pending", "running"):
                alive[each["InstanceId"]] = [
                    each["InstanceType"], each["PrivateIpAddress"], keys.get(each.get("KeyName"), ""),
                    each.get("InstanceLifecycle"),
                ]
    print(json.dumps(alive), flush=True)
    time.sleep(1)
"""


class Cloud:
    """Machines that come and go with moto's instances; a context."""

    def __init__(self, lan: Lan) -> None:
        self._lan = lan
        self._service = lan.machine("cloud", ADDRESS)
        self._processes: list[subprocess.Popen[str]] = []
        self._closing = False
        self.machines: dict[str, Machine] = {}
        """By instance."""
        self.kinds: dict[str, tuple[str, str | None]] = {}
        """Instance type and lifecycle (`spot`), of each instance that there ever was."""
        self.error: BaseException | None = None
        for name, script in (("moto", SERVER), ("mirror", MIRROR), ("instances", INSTANCES)):
            (lan.shared / f".{name}.py").write_text(script)
        self._python("moto")
        wait_for("moto", lambda: ":5000" in self._service.run("ss -ltn", timeout=20), seconds=120)
        self._python("mirror")
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def _python(self, name: str) -> subprocess.Popen[str]:
        line = f"exec ~/.robustsearch/bin/python /shared/.{name}.py 2> /shared/.{name}.log"
        process = subprocess.Popen(self._service.command(line), stdout=subprocess.PIPE, text=True)
        self._processes.append(process)
        return process

    def _watch(self) -> None:
        """Follow what moto says it runs."""
        try:
            stream = self._python("instances").stdout
            assert stream
            for line in stream:
                alive = json.loads(line)
                for identity, (kind, address, key, lifecycle) in alive.items():
                    if identity not in self.machines and identity not in self.kinds and not self._closing:
                        name = self.name(identity)
                        (self._lan.keys / f"{name}.pub").write_text(f"{key.strip()}\n")
                        self.kinds[identity] = (kind, lifecycle)
                        self.machines[identity] = self._lan.machine(name, address)
                for identity in set(self.machines) - set(alive):
                    self.machines.pop(identity).power_off()
        except BaseException as error:
            self.error = error

    def name(self, identity: str) -> str:
        """The host name of an instance."""
        return f"i{identity[-6:]}"

    def of(self, kind: str) -> list[str]:
        """The instances of a type that are up."""
        assert self.error is None, self.error
        return [identity for identity in list(self.machines) if self.kinds[identity][0] == kind]

    def take_back(self, identity: str) -> None:
        """What AWS does with a spot instance that it needs elsewhere."""
        ask = f'import boto3; boto3.client("ec2").terminate_instances(InstanceIds=["{identity}"])'
        self._service.run(f"~/.robustsearch/bin/python -c '{ask}'", timeout=60)

    def bucket(self, name: str) -> Path:
        """What is in a bucket, as `MIRROR` keeps it."""
        return self._lan.shared / "s3" / name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._closing = True
        self._service.power_off()
        for process in self._processes:
            process.kill()
            process.wait()
        self._watcher.join(timeout=60)
        for process in self._processes:
            assert process.stdout
            process.stdout.close()
