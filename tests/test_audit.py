"""The audit command: its verdicts, what it writes, and how it refuses bad input."""

from __future__ import annotations

import json
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from robustsearch import data
from robustsearch.audit import main
from robustsearch.data import to_tensor
from robustsearch.evaluation.intervals import wilson

MODULE = '''
from contextlib import contextmanager
import torch
from torch import nn

calls = []

class Round(nn.Module):
    def forward(self, x):
        return (8 * x).round() / 8

class Zero(nn.Module):
    """No slope anywhere, and nothing like the identity: no standard surrogate helps."""
    hard = True
    def forward(self, x):
        return 1 - (8 * x).round() / 8 if self.hard else 1 - x

class Hooked(nn.Sequential):
    def surrogate(self):
        @contextmanager
        def soft():
            calls.append(True)
            self[0].hard = False
            yield
            self[0].hard = True
        return soft()

def body():
    return nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))

def plain():
    return nn.Sequential(nn.Identity(), body())

def rounded():
    return nn.Sequential(Round(), body())

def hooked():
    return Hooked(Zero(), body())

def narrow():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def colour():
    return nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten(), nn.Linear(36, 10))

def infinite():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Threshold(1e9, float("inf")))

def broken():
    raise RuntimeError("no disk\\nsecond line")

def nothing():
    return "a network"
'''
KEYS = {"masked", "naive_accuracy", "robust_accuracy", "checks", "n", "interval", "epsilon", "seed", "versions"}


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    """A plainly trained network's, for `plain`; the other bodies have the same names."""
    dataset = data.load("digits")
    images, labels = to_tensor(dataset.train.images, torch.device("cpu")), torch.from_numpy(dataset.train.labels.copy())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        body = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 10))
        optimizer = torch.optim.Adam(body.parameters(), lr=3e-3)
        for _ in range(4):
            for batch in torch.randperm(len(images)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(body(images[batch]), labels[batch]).backward()
                optimizer.step()
    return {f"1.{name}": value.detach() for name, value in body.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, torch.Tensor]) -> Path:
    """The current directory, with `mynet.py` and its weights."""
    (tmp_path / "mynet.py").write_text(MODULE)
    torch.save(weights, tmp_path / "w.pt")
    torch.save({"state_dict": {f"1.{k[2:]}": v for k, v in weights.items()}, "epoch": 4}, tmp_path / "nested.pt")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "mynet", raising=False)
    return tmp_path


def audit(*options: str, model: str = "mynet:plain", images: int = 40, weights: str = "w.pt") -> int:
    given = ["--model", model, "--dataset", "digits", "--images", str(images), *options]
    return main(given + (["--weights", weights] if weights else []))


def verdict(folder: Path, *options: str, model: str = "mynet:plain", weights: str = "w.pt") -> dict[str, object]:
    assert audit("--json", "v.json", *options, model=model, weights=weights) == 0
    return json.loads((folder / "v.json").read_text())  # type: ignore[no-any-return]


@pytest.mark.slow
def test_an_honest_network_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verdict(folder, "--seed", "3", weights="nested.pt")
    assert set(found) == KEYS
    assert found["masked"] is False
    assert (found["n"], found["seed"], found["epsilon"]) == (40, 3, data.load("digits").epsilon)
    assert found["interval"] == list(wilson(found["robust_accuracy"], 40))  # type: ignore[arg-type]
    assert all(check["passed"] for check in found["checks"])  # type: ignore[attr-defined, index]
    assert set(found["checks"][0]) == {"name", "value", "threshold", "passed", "reason"}  # type: ignore[index]
    printed = capsys.readouterr().out
    assert "The accuracy holds:" in printed
    assert f"{found['robust_accuracy']:.1%}" in printed


@pytest.mark.slow
def test_quantised_inputs_are_masked_and_attacked_all_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    honest, found = verdict(folder), verdict(folder, model="mynet:rounded")
    assert found["masked"] is True
    assert found["naive_accuracy"] > 0.8  # type: ignore[operator]
    assert found["robust_accuracy"] <= honest["robust_accuracy"] + 0.15  # type: ignore[operator]
    failed = {check["name"] for check in found["checks"] if not check["passed"]}  # type: ignore[attr-defined, index]
    assert {"zero gradients", "through identity"} <= failed
    assert "Masked: the naive" in capsys.readouterr().out


@pytest.mark.slow
def test_a_model_s_own_surrogate_is_used(folder: Path) -> None:
    found = verdict(folder, model="mynet:hooked")
    assert sys.modules["mynet"].calls
    names = {check["name"]: check for check in found["checks"]}  # type: ignore[attr-defined, index]
    assert names["zero gradients"]["value"] == 0
    assert names["naive minus robust"]["threshold"] is None
    assert not any(name.startswith("through") for name in names)


@pytest.mark.slow
def test_a_claim_is_checked(folder: Path) -> None:
    assert verdict(folder, "--claimed", "0.99", "--epsilon", "0.3")["masked"] is True


@pytest.mark.slow
def test_the_test_split_is_what_is_audited(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Its labels are wrong here, and right in the training images."""
    dataset = data.load("digits")
    wrong = (dataset.test.labels + 1) % 10
    np.savez(
        "d.npz", x_train=dataset.train.images, y_train=dataset.train.labels, x_test=dataset.test.images, y_test=wrong
    )
    given = ["--model", "mynet:plain", "--weights", "w.pt", "--dataset", "d.npz", "--images", "20", "--json", "v.json"]
    assert main(given) == 0
    assert json.loads((folder / "v.json").read_text())["naive_accuracy"] < 0.2


@pytest.mark.slow
def test_the_figure_is_a_png(folder: Path) -> None:
    assert audit("--figure", "f.png", images=20) == 0
    content = (folder / "f.png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (900, 600)


class Evil:
    """Runs code when a pickle of it is read."""

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, ("ran.txt", "w")


def test_weights_that_need_code_are_refused_and_not_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": Evil()}, "evil.pt")
    (folder / "evil.pkl").write_bytes(pickle.dumps(Evil()))
    for name in ("evil.pt", "evil.pkl"):
        assert audit(weights=name) == 2
        assert capsys.readouterr().err.startswith("error: `--weights` must ")
    assert not (folder / "ran.txt").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "mynet"}, "`--model` must be MODULE:FACTORY, but got 'mynet'"),
        ({"model": "absent_module:f"}, "'absent_module' raised ModuleNotFoundError"),
        ({"model": "mynet:absent"}, "but it has no 'absent' to call"),
        ({"model": "mynet:broken"}, "must return an nn.Module, but raised RuntimeError: no disk\n"),
        ({"model": "mynet:nothing"}, "must return an nn.Module, but returned str"),
        ({"model": "mynet:narrow", "weights": ""}, "but returned [2, 3]"),
        ({"model": "mynet:colour", "weights": ""}, "the model must turn images [2, 1, 8, 8] into"),
        ({"model": "mynet:infinite", "weights": ""}, "but some are not finite"),
        ({"model": "mynet:narrow"}, "`--weights` must fit the model, but w.pt does not"),
        ({"weights": "absent.pt"}, "`--weights` must be an existing file, but got 'absent.pt'"),
        ({"weights": "mynet.py"}, "`--weights` must "),
        ({"images": 5}, "`--images` must be at least 20, but got 5"),
        ({"options": ("--epsilon", "8")}, "`--epsilon` must be in (0, 1], but got 8"),
        ({"options": ("--epsilon", "nan")}, "`--epsilon` must be in (0, 1], but got nan"),
        ({"options": ("--claimed", "84")}, "`--claimed` must be in [0, 1], but got 84"),
        ({"options": ("--figure", "f.pdf")}, "`--figure` must end in .png, but got 'f.pdf'"),
        ({"options": ("--json", "absent/v.json")}, "`--json` must be in a folder that exists"),
        ({"options": ("--dataset", "mnist")}, "the dataset must be one of digits, "),
    ],
)
def test_bad_input_is_refused_with_the_rule_and_the_value(
    folder: Path, capsys: pytest.CaptureFixture[str], options: dict[str, object], message: str
) -> None:
    assert audit(*options.pop("options", ()), **options) == 2  # type: ignore[misc, arg-type]
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_an_unknown_option_is_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--model", "a:b"])
    assert "--dataset" in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_finds_a_module_of_the_current_directory(folder: Path) -> None:
    command = [sys.executable, "-m", "robustsearch.audit", "--model", "mynet:nothing", "--dataset", "digits"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: mynet:nothing must return an nn.Module, but returned str\n")
