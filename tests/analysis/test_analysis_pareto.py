"""The command: its files, its table, its answers to wrong input, and what it imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robustsearch.analysis.pareto import main

ROOT = Path(__file__).parents[2]


def test_the_command_writes_four_files_and_prints_the_front(hand_folder: Path, capsys) -> None:
    assert main([str(hand_folder)]) == 0
    printed, complaints = capsys.readouterr()
    paths = [hand_folder / "figures" / f"pareto.{suffix}" for suffix in ("png", "svg", "pdf", "html")]
    assert all(path.stat().st_size > 1000 for path in paths)
    assert printed.splitlines()[-4:] == [str(path) for path in paths]
    assert "50.0 [46.0, 54.0]" in printed
    assert "60.0 [56.0, 64.0]" in printed
    assert "55.0" not in printed  # dominated
    assert "Hypervolume 2.6" in " ".join(printed.split())
    assert complaints == ""


@pytest.mark.slow
def test_colour_and_folder_can_be_chosen(hand_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "deep" / "er"
    assert main([str(hand_folder), "--color", "activation", "--out", str(out)]) == 0
    assert sorted(path.name for path in out.iterdir()) == [f"pareto.{s}" for s in ("html", "pdf", "png", "svg")]
    assert "activation" in (out / "pareto.svg").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_third_objective_has_files_of_its_own(make_run, make_row, tmp_path: Path, capsys) -> None:
    sizes = {"0000": 466_714, "0001": 77_850}
    folder = make_run([make_row(trial, 1, 0.5, 1.0, parameters=size) for trial, size in sizes.items()])
    assert main([str(folder), "--third", "parameters", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"pareto-parameters.{s}" for s in ("html", "pdf", "png", "svg")
    ]
    printed = capsys.readouterr().out
    assert "77,850" in printed
    assert "466,714" not in printed  # as robust, as fast, and larger
    assert "Third objective: fewer parameters" in " ".join(printed.split())
    assert "parameters" in (tmp_path / "pareto-parameters.svg").read_text(encoding="utf-8")
    assert main([str(folder), "--third", "seed"]) == 2
    assert "`--third` must be one of parameters, macs" in complaint(capsys)


@pytest.mark.slow
def test_without_a_front_the_baseline_is_drawn(make_run, make_row, capsys) -> None:
    rows = [
        make_row("baseline", 1, 0.1, 2.0, role="baseline"),
        make_row("0001", 0, None, None, state="diverged"),
    ]
    folder = make_run(rows, info={})
    assert main([str(folder)]) == 0
    assert "No point of the search was measured" in capsys.readouterr().out
    assert (folder / "figures" / "pareto.png").exists()


def complaint(capsys) -> str:
    printed, complaints = capsys.readouterr()
    assert printed == ""
    (line,) = complaints.splitlines()
    assert line.startswith("error: ")
    return str(line)


@pytest.mark.parametrize(
    ("rows", "info", "rule"),
    [
        ([], None, "with a run.json"),
        ([], {}, "has none yet"),
        ([("0001", 0, None, None)], {}, "at least one measured trial"),
    ],
)
def test_what_cannot_be_drawn_is_answered_with_one_line(make_run, make_row, capsys, rows, info, rule: str) -> None:
    folder = make_run([make_row(*row, state="crashed") for row in rows], info=info)
    assert main([str(folder)]) == 2
    assert rule in complaint(capsys)
    assert not (folder / "figures").exists()


def test_no_folder(tmp_path: Path, capsys) -> None:
    assert main([str(tmp_path / "absent")]) == 2
    assert "must be a folder" in complaint(capsys)


def test_an_unknown_field(hand_folder: Path, capsys) -> None:
    assert main([str(hand_folder), "--color", "lr"]) == 2
    line = complaint(capsys)
    assert "training.lr" in line
    assert "'lr'" in line


def test_an_empty_field_is_unknown(hand_folder: Path, capsys) -> None:
    assert main([str(hand_folder), "--color", ""]) == 2
    assert "must be one of" in complaint(capsys)


def test_a_folder_that_cannot_be_written(hand_folder: Path, tmp_path: Path, capsys) -> None:
    taken = tmp_path / "file"
    taken.write_text("")
    assert main([str(hand_folder), "--out", str(taken)]) == 2
    assert "`--out` must be a folder that can be written" in complaint(capsys)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "where"), [("analysis", ROOT), ("robustsearch.analysis", ROOT.parent)])
def test_the_analysis_imports_nothing_heavy(module: str, where: Path) -> None:
    code = f"import json, sys, {module}.pareto, {module}.load; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=where, capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert f"{module}.front_page" in loaded
    assert not {"torch", "ray", "optuna", "plotly", "matplotlib.pyplot"} & loaded


@pytest.mark.slow
def test_the_module_is_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.pareto", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a run is a folder with a run.json")
