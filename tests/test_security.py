"""The rules of docs/security.md: what is read runs no code, what is named stays in its folder, ports on loopback."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from robustsearch import results, run
from robustsearch.errors import RunError
from robustsearch.names import checked_name
from robustsearch.runfolder import RunFolder
from robustsearch.search.placement import DRIVER_ENVIRONMENT, LOCAL_ENVIRONMENT

ROOT = Path(__file__).parents[1]
SOURCES = [path for folder in ("robustsearch", "analysis", "search_spaces") for path in (ROOT / folder).rglob("*.py")]
UNPICKLERS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "shelve.open", "marshal.loads"}


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def keyword(call: ast.Call, name: str) -> object:
    return next((ast.literal_eval(each.value) for each in call.keywords if each.arg == name), None)


def test_nothing_that_is_loaded_is_run() -> None:
    """Plain pickles are only those of CIFAR, read by an unpickler that refuses all but arrays."""
    loads = 0
    for path in SOURCES:
        for name, call in calls(path):
            if name == "torch.load":
                loads += 1
                assert keyword(call, "weights_only") is True, path
            if name in ("np.load", "numpy.load"):
                loads += 1
                assert keyword(call, "allow_pickle") is False, path
            assert name not in UNPICKLERS, f"{path} calls {name}"
            assert name not in ("eval", "exec", "os.system", "yaml.load"), f"{path} calls {name}"
            assert keyword(call, "shell") is None or name != "subprocess.run", path
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases):
                assert path.name == "published.py"
                assert "find_class" in {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
    assert loads >= 4


OUTSIDE = ["..", "../up", "a/b", "/etc/passwd", ".hidden", "", "a\0b", "a\nb", "..\\up", "~root"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match="name must be letters"):
        checked_name(name, "a run")
    with pytest.raises(RunError, match="name must be letters"):
        RunFolder(tmp_path).checkpoint(name)
    with pytest.raises(RunError, match="name must be letters"):
        results.write_trial(tmp_path / "results", name, [{"trial": name, "epoch": 1}])
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_a_link_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "x").symlink_to(tmp_path / "elsewhere")
    assert run.main(["--space", "lwta", "--storage", str(tmp_path / "runs"), "--name", "x"]) == 2
    assert "must lie in the folder" in capsys.readouterr().err
    assert run.main(["--resume", "--storage", str(tmp_path / "runs"), "--name", "x"]) == 2
    assert list((tmp_path / "elsewhere").iterdir()) == []


PORTS = """
import os
from pathlib import Path
from robustsearch.search.placement import connect

connect(None, {})
import ray

ray.get(ray.remote(lambda: None).remote())
parents = {}
for entry in Path("/proc").iterdir():
    if entry.name.isdigit():
        try:
            parents[entry.name] = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            pass
ours = {str(os.getpid())}
while more := {child for child, parent in parents.items() if parent in ours} - ours:
    ours |= more
sockets = set()
for pid in ours:
    try:
        sockets |= {os.readlink(each) for each in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        pass
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            print(fields[1].rpartition(":")[0])
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.timeout(200)
def test_a_local_search_listens_on_loopback_alone() -> None:
    """As the kernel lists it: 127.0.0.1, for IPv6 mapped."""
    environment = os.environ | DRIVER_ENVIRONMENT | LOCAL_ENVIRONMENT
    done = subprocess.run(
        [sys.executable, "-c", PORTS], capture_output=True, text=True, timeout=180, env=environment, check=True
    )
    addresses = done.stdout.split()
    assert len(addresses) > 3
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}
