"""Every command of docs/cluster.md is one, with options that it has."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from robustsearch import run
from robustsearch.search.settings import settings_of

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "cluster.md").read_text()
LINES = [
    shlex.split(line, comments=True)
    for block in re.findall(r"```bash\n(.*?)```", GUIDE, flags=re.DOTALL)
    for line in block.splitlines()
]
KNOWN = {"ray", "python", "export", "aws", "tensorboard", "docker", "kubectl", "squeue", "tail", "scontrol", "scancel"}


def of(program: str) -> list[list[str]]:
    return [line[1:] for line in LINES if line and line[0] == program]


def test_nothing_else_is_called() -> None:
    assert {line[0] for line in LINES if line} == KNOWN | {"ROBUSTSEARCH_STORAGE=/shared/runs"}


def test_ray_takes_its_commands() -> None:
    click = pytest.importorskip("click")
    cli = pytest.importorskip("ray.scripts.scripts").cli
    seen = set()
    for line in of("ray"):
        command, name = cli, "ray"
        while isinstance(command, click.Group):
            name, *line = line
            command = command.commands[name]
        with click.Context(command, info_name=name) as context:
            command.parse_args(context, line)
        seen.add(name)
    assert seen == {"get-auth-token", "up", "exec", "dashboard", "submit", "logs", "stop", "down"}


def test_our_commands_take_their_options() -> None:
    submitted = [line[line.index("--") + 1 :] for line in of("ray") if "--" in line]
    ours = [*submitted, *(["python", *line] for line in of("python"))]
    assert len(ours) >= 4
    for _, option, module, *arguments in ours:
        assert option == "-m"
        if module != "robustsearch.run":
            assert (ROOT / f"{module.replace('.', '/')}.py").exists()
            continue
        given = vars(run.parser().parse_args(arguments))
        assert given["address"] == "auto"
        assert given["resume"]
        if "space" in given:
            place = ("address", "resume", "storage", "name")
            settings_of({name: value for name, value in given.items() if name not in place})


def test_aws_has_its_commands() -> None:
    """As botocore, on which the command line of AWS is built, describes them."""
    session = pytest.importorskip("botocore.session").get_session()
    for service, name, *arguments in of("aws"):
        if service == "s3":
            assert name == "mb"  # a command of the command line's own
            continue
        operation = "".join(part.capitalize() for part in name.split("-"))
        shape = session.get_service_model(service).operation_model(operation).input_shape
        given = {word[2:].replace("-", "").lower() for word in arguments if word.startswith("--")}
        assert given <= {member.lower() for member in shape.members}
        assert {member.lower() for member in shape.required_members} <= given


def test_its_files_exist() -> None:
    named = set(re.findall(r"\bcluster/[\w.-]+\.(?:yaml|json|sbatch)|cluster/Dockerfile", GUIDE))
    assert named == {f"cluster/{path.name}" for path in (ROOT / "cluster").iterdir()}
