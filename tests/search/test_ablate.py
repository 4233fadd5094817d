"""Ablating a trial of an earlier run by one command: its settings, its rows, and that it runs and goes on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from robustsearch import results
from robustsearch.recipe import LWTA, PNI, Model, Recipe, Training
from robustsearch.run import main
from robustsearch.runfolder import RunFolder
from robustsearch.search import spaces
from robustsearch.search.assemble import make_searcher, plain
from robustsearch.search.ledger import Ledger
from robustsearch.search.settings import Settings, settings_of

RECIPE = Recipe(
    model=Model(depth=10), lwta=LWTA(gate="mean"), pni=PNI(), training=Training(epochs=1, batch_size=40), draws=2
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """What a run of one trial leaves behind."""
    folder = RunFolder(tmp_path_factory.mktemp("runs") / "tiny")
    folder.write_info({"settings": {"dataset": "digits", "fraction": 0.1, "epochs": 1, "trials": 40, "seed": 5}})
    row = {"trial": "0003", "epoch": 1, "robust": 0.5, "recipe": RECIPE.to_json()}
    results.write_trial(folder.results, "0003", [row])
    return folder


def test_settings_come_from_the_run_unless_given(run: RunFolder) -> None:
    found = settings_of({"ablate": f"{run.root}:0003"})
    assert (found.space, found.design, found.base) == ("tiny-0003", "leave-one-out", RECIPE.to_json())
    assert (found.dataset, found.fraction, found.epochs, found.protocol) == ("digits", 0.1, 1, "quick")
    # all; without depth, LWTA and its gate, the gate, PNI and the draws that need it, attacks, batch size, draws
    assert (found.seeds, found.trials, found.scheduler, found.final_images) == (3, 3 * 8, "none", 200)
    given = settings_of({"ablate": f"{run.root}:0003", "design": "one-in", "epochs": 4, "seeds": 2, "fraction": 0.2})
    assert (given.epochs, given.fraction, given.trials) == (4, 0.2, 2 * 6)


def test_its_rows_need_the_earlier_run_no_more(run: RunFolder) -> None:
    """What `--resume` and `replay` read is in run.json: settings alone."""
    settings = Settings(**vars(settings_of({"ablate": f"{run.root}:0003", "design": "path", "epochs": 5, "seeds": 1})))
    space = spaces.of(settings)
    rows = space.rows(0.1)
    assert next(iter(rows.values())) == plain(1)
    assert list(rows.values())[-1] == RECIPE
    assert space.summary == "Ablation (path) of WRN-10-1, LWTA-2 mean, PNI weights layer, K=2."
    searcher = make_searcher(settings, Ledger(None), None, 0.1)
    config = searcher.suggest("a")
    assert isinstance(config, dict)
    assert config["trial"] == "start-s0"
    assert Recipe.from_json(config["recipe"]) == plain(5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--ablate", "{run}"], "must be RUN:TRIAL"),
        (["--ablate", "{run}:0009"], r"results of \(0003\), but got '0009'"),
        (["--ablate", "{run}:0003", "--design", "halves"], "one of leave-one-out, .* but got 'halves'"),
        (["--ablate", "{run}:0003", "--space", "lwta"], "takes no `--space`, but got 'lwta'"),
        (["--ablate", "{run}:0003", "--trials", "4"], "is a design, which takes no `--trials`"),
        (["--space", "lwta", "--design", "path"], "is that of an `--ablate`"),
        (["--ablate", "nowhere:0003"], "has none"),
    ],
)
def test_mistakes_are_said(
    run: RunFolder, options: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([option.format(run=run.root) for option in options] + ["--storage", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    assert not list(tmp_path.iterdir())
