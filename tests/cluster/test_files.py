"""The files of `cluster/`, as Ray, AWS, Kubernetes and Slurm themselves describe what they take."""

from __future__ import annotations

import gzip
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from robustsearch import run
from robustsearch.search.settings import settings_of

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "cluster"
LAUNCHED = ["onprem.yaml", "config.yaml"]
CRD = ROOT.parent / "shared" / "data" / "ray.io_rayjobs.yaml.gz"


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_s_launcher_takes_it(name: str) -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    file = read(name)
    prepared = util.prepare_config(file)
    util.validate_config(prepared)
    with pytest.raises(Exception, match="Additional properties are not allowed"):
        util.validate_config(prepared | {"setup_command": []})


def test_aws_knows_every_field_of_its_instances() -> None:
    session = pytest.importorskip("botocore.session")
    validate = pytest.importorskip("botocore.validate")
    shape = session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape
    counts = {"MinCount": 1, "MaxCount": 1}
    for kind in read("config.yaml")["available_node_types"].values():
        assert not validate.ParamValidator().validate(kind["node_config"] | counts, shape).has_errors()
        wrong = kind["node_config"] | counts | {"InstanceTyp": "g5.xlarge"}
        assert validate.ParamValidator().validate(wrong, shape).has_errors()


def test_aws_workers_scale_from_zero_and_are_spot() -> None:
    config = read("config.yaml")
    head, gpu = (config["available_node_types"][name] for name in ("head", "gpu"))
    assert gpu["min_workers"] == 0 < gpu["max_workers"] <= config["max_workers"]
    assert gpu["node_config"]["InstanceMarketOptions"]["MarketType"] == "spot"
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    assert config["provider"]["cache_stopped_nodes"] is False


def test_the_role_may_do_what_the_file_needs() -> None:
    policy = json.loads((FOLDER / "aws-policy.json").read_text())
    allowed = {
        action
        for statement in policy["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {"ec2:RunInstances", "ec2:TerminateInstances", "ec2:CreateTags", "iam:PassRole"} <= allowed
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"} <= allowed
    assert not [action for action in allowed if action.endswith(":*") or action == "*"]


@pytest.mark.parametrize("name", LAUNCHED)
def test_the_launched_files_set_what_a_search_needs(name: str) -> None:
    config = read(name)
    starts = [config[key][-1] for key in ("head_start_ray_commands", "worker_start_ray_commands")]
    assert all("RAY_memory_monitor_refresh_ms=0" in start for start in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert any("RAY_AUTH_MODE=token" in command for command in config["setup_commands"])
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert ("RAY_enable_autoscaler_v2=0" in starts[0]) == (name == "onprem.yaml")
    for command in [*starts, *config["setup_commands"]]:
        subprocess.run(["bash", "-n", "-c", command], check=True)


@pytest.mark.parametrize("name", LAUNCHED)
def test_all_of_the_project_and_little_else_is_copied(name: str, tmp_path: Path) -> None:
    """`/data` is the folder of datasets; `robustsearch/data` is code."""
    if not shutil.which("rsync"):
        pytest.skip("needs rsync")
    kept = ["robustsearch/data/dataset.py", "robustsearch/run.py", "pyproject.toml", "cluster/onprem.yaml"]
    left = ["data/cifar10.npz", "runs/first/run.json", ".git/config", ".venv/bin/python", "robustsearch/__pycache__/x"]
    for path in (*kept, *left):
        (tmp_path / "from" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / path).touch()
    excluded = [part for pattern in read(name)["rsync_exclude"] for part in ("--exclude", pattern)]
    subprocess.run(["rsync", "-a", *excluded, f"{tmp_path}/from/", f"{tmp_path}/to/"], check=True)
    found = {str(path.relative_to(tmp_path / "to")) for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert found == set(kept)


def strict(schema: Any) -> Any:
    """A CRD's schema, which by itself allows unknown fields everywhere, with none allowed."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema = {"additionalProperties": False} | schema
    return {
        key: {name: strict(inner) for name, inner in part.items()} if key == "properties" else strict(part)
        for key, part in schema.items()
    }


@pytest.mark.timeout(300)
def test_kuberay_takes_it() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    if not CRD.exists():
        pytest.skip("needs KubeRay's description of a RayJob")
    with gzip.open(CRD) as file:
        crd = yaml.load(file, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    schema = strict(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft7Validator(schema)
    job = read("kuberay.yaml")
    assert not [error.message for error in validator.iter_errors(job)]
    for wrong in (
        {"shutdownAfterJobFinish": True},
        {"backoffLimit": "three"},
        {"rayClusterSpec": job["spec"]["rayClusterSpec"] | {"authOptions": {"mode": "tokn"}}},
    ):
        assert not validator.is_valid(job | {"spec": job["spec"] | wrong})


def test_kuberay_s_pods_set_what_a_search_needs() -> None:
    cluster = read("kuberay.yaml")["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["minReplicas"] == 0 < workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "RAY_memory_monitor_refresh_ms", "value": "0"} in container["env"]
        version = re.search(r"FROM rayproject/ray:([\d.]+)-", (FOLDER / "Dockerfile").read_text())
        assert version
        assert version[1] == cluster["rayVersion"]


def test_slurm_takes_it(tmp_path: Path) -> None:
    text = (FOLDER / "slurm.sbatch").read_text()
    subprocess.run(["bash", "-n", FOLDER / "slurm.sbatch"], check=True)
    directives = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", text, flags=re.MULTILINE))
    assert len(directives) == text.count("#SBATCH") == 9
    assert {"requeue", "exclusive"} <= directives.keys()
    assert directives["ntasks-per-node"] == "1"  # one Ray a node
    assert directives["open-mode"] == "append"
    assert re.fullmatch(r"\d+:\d\d:\d\d", directives["time"])
    assert "RAY_memory_monitor_refresh_ms=0" in text
    assert "RAY_AUTH_MODE=token" in text


def test_sbatch_itself_reads_it(tmp_path: Path) -> None:
    """As far as it comes without a controller: a directive that it does not know ends it before that."""
    if not shutil.which("sbatch"):
        pytest.skip("needs Slurm's sbatch")
    lines = ("ClusterName=x", "SlurmctldHost=x(127.0.0.1)", "NodeName=x", "PartitionName=x Nodes=x", "GresTypes=gpu")
    (tmp_path / "slurm.conf").write_text("\n".join((*lines, "MessageTimeout=2", "")))
    wrong = tmp_path / "wrong.sbatch"
    wrong.write_text((FOLDER / "slurm.sbatch").read_text().replace("--requeue", "--requeues"))
    said = [
        subprocess.run(
            ["sbatch", path],
            env=os.environ | {"SLURM_CONF": str(tmp_path / "slurm.conf")},
            capture_output=True,
            text=True,
        ).stderr
        for path in (FOLDER / "slurm.sbatch", wrong)
    ]
    assert "Unable to contact slurm controller" in said[0]
    assert "unrecognized option '--requeues'" in said[1]


def commands(text: str) -> list[list[str]]:
    """The arguments of every `python -m robustsearch.run` in a text, whose lines may be continued or folded."""
    flat = re.sub(r"\\?\n\s+(?=--)", " ", text)
    return [shlex.split(line) for line in re.findall(r"python -m robustsearch\.run ([^'`\n]*)", flat)]


@pytest.mark.parametrize("name", ["kuberay.yaml", "slurm.sbatch"])
def test_the_search_it_runs_is_one_that_can_begin_and_resume(name: str) -> None:
    (arguments,) = commands((FOLDER / name).read_text())
    given = vars(run.parser().parse_args(arguments))
    assert given["resume"]
    assert given["address"] == "auto"
    settings_of({key: value for key, value in given.items() if key not in ("resume", "address", "storage", "name")})
