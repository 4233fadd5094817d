"""`python -m robustsearch.run`: search a space of defence recipes for robust accuracy against latency."""

from __future__ import annotations

import argparse
import io
import re
import sys
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from robustsearch import search_spaces  # type: ignore[attr-defined]  # the folder, as installed

from .cli import Parser
from .errors import RunError, StorageError, UserError, WorkersError
from .names import checked_name
from .runfolder import RunFolder
from .storage import is_url

DESCRIPTION = """\
Search a space of defence recipes: each trial trains a WideResNet with a sampled
recipe, is attacked, and is timed; the front trades robust accuracy for latency."""

EXAMPLES = """\
examples:
  python -m robustsearch.run --space lwta
  python -m robustsearch.run --ablate RUN:0007       what each part of that recipe does
  python -m robustsearch.run --resume --name RUN     go on where it was killed"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    root = Parser(
        "python -m robustsearch.run",
        usage="python -m robustsearch.run --space NAME [options]",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    root.argument_default = argparse.SUPPRESS  # only what is given changes a setting
    add = root.add_argument
    add("--space", metavar="NAME", help=f"{', '.join(search_spaces.names())} or a .py file")
    add("--ablate", metavar="RUN:TRIAL", help="instead: what each part of this trial's recipe does")
    add("--design", metavar="NAME", help="leave-one-out (default), one-in, path, random-path, gaining-path")
    add("--dataset", metavar="NAME", help="digits (default), fashion-mnist, cifar10, cifar100, svhn, FILE.npz")
    add("--data-dir", metavar="DIR", help="where the dataset's files are (default: data)")
    add("--fraction", type=float, metavar="F", help="share of the dataset's images to use (1)")
    add("--trials", type=int, metavar="N", help="recipes to try, beside the plain baseline (12)")
    add("--seeds", type=int, metavar="N", help="seeds of each row of an ablation (3)")
    add("--epochs", type=int, metavar="E", help="epochs of a trial that is never stopped (12)")
    add("--seed", type=int, metavar="S", help="seed of the search and of its trials (0)")
    add("--sampler", metavar="NAME", help="auto (default), tpe, gp, nsga2, random")
    add("--scheduler", metavar="NAME", help="mo-asha (default) stops trials early; none does not")
    add("--eta", type=int, metavar="E", help="rungs E times apart, at each the best 1 in E go on (2)")
    add("--grace", type=int, metavar="G", help="epochs before the first rung, at least (4)")
    add("--repeats", type=int, metavar="N", help="further seeds of uncertain front members, at most (N/3)")
    add("--max-latency", type=float, metavar="MS", help="p50 above which a recipe is infeasible")
    add("--warm-start", metavar="RUN", help="folder of an earlier run, whose trials teach the sampler")
    add("--protocol", metavar="NAME", help="at the rungs: quick (default), standard, full, report")
    add("--engine", metavar="NAME", help="of timed predictions: auto (default), eager, compile, onnxruntime")
    add("--final-images", type=int, metavar="N", help="images of the last examination (64; an ablation's 200)")
    add("--cpus-per-trial", type=int, metavar="C", help="CPU cores and threads of a trial (1)")
    add("--gpus-per-trial", type=float, metavar="G", help="GPUs, or a part of one (0.25 where there are any)")
    add("--concurrency", type=int, metavar="K", help="trials at a time (as many as fit)")
    add("--log-to", metavar="NAME", help="log trials in mlflow or wandb (Weights & Biases) too")
    add("--storage", metavar="DIR", help="where run folders go: DIR (runs) or s3://BUCKET/PATH")
    add("--name", metavar="NAME", help="name of the run folder (SPACE-DATASET-TIME)")
    add("--dry-run", action="store_true", help="say what it takes and start nothing")
    add("--like", metavar="RUN", help="--dry-run: earlier run that gives times and variance")
    add("--resolution", type=float, metavar="P", help="--dry-run: seeds that find a difference of P points")
    add("--price", type=float, metavar="X", help="--dry-run: of the cluster an hour")
    add("--resume", action="store_true", help="go on with this --name; with its --space, or begin it")
    add("--address", metavar="ADDR", help="a running Ray cluster: auto, or HOST:PORT")
    return root


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 0 done, 1 a trial crashed, 2 bad input, 3 disk, workers or Ray lost, 130 interrupted."""
    given = vars(parser().parse_args(arguments))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # the log of a job is read while it grows
    place = {
        name: given.pop(name, default) for name, default in (("storage", "runs"), ("name", None), ("address", None))
    }
    resume, dry = given.pop("resume", False), given.pop("dry_run", False)
    question: dict[str, Any] = {name: given.pop(name) for name in ("like", "resolution", "price") if name in given}
    begun: RunFolder | None = None
    try:
        from .search.settings import Settings, settings_of
        from .search.tuner import search

        if question and not dry:
            raise UserError(f"`--{next(iter(question))}` is a question to `--dry-run`, but that was not given")
        if resume:
            folder = _resumed(place, given | ({"dry_run": dry} if dry else {}))
            resume = folder.exists()
        if resume:
            known = {field.name for field in fields(Settings)}
            settings = Settings(**{k: v for k, v in folder.info()["settings"].items() if k in known})
            _check_same(given, settings)
        else:
            if not given.keys() & {"space", "ablate"}:
                there = ", ".join(search_spaces.names())
                raise UserError(f"a search needs a space: add --space {there} or a .py file")
            settings = settings_of(given)
            if dry:
                return _forecast(settings, question, place["address"])
            folder = _new(place, settings)
        begun = folder
        crashed = search(settings, folder, address=place["address"], resume=resume)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (StorageError, WorkersError) as error:
        print(begun.farewell(error) if begun and begun.has_begun_here() else f"error: {error}", file=sys.stderr)
        return 3
    except KeyboardInterrupt:
        goes_on = f"; to go on: {begun.resume_command}" if begun and begun.has_begun_here() else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return 130
    if crashed:
        print(f"{crashed} trials crashed; their reasons are in the results (state 'crashed')", file=sys.stderr)
    return 1 if crashed else 0


def _forecast(settings: Any, question: Any, address: str | None) -> int:
    from .search.dry import Question, forecast

    print(*forecast(settings, Question(**question), address), sep="\n")
    return 0


def _new(place: dict[str, Any], settings: Any) -> RunFolder:
    name = place["name"]
    if name is None:
        stems = (Path(settings.space).stem, Path(settings.dataset).stem)
        name = "-".join((*stems, datetime.now().strftime("%Y%m%d-%H%M%S")))
        name = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return _folder(place, name)


def _resumed(place: dict[str, Any], given: dict[str, Any]) -> RunFolder:
    if place["name"] is None:
        raise UserError("`--resume` needs the `--name` of a run")
    if given and ("space" not in given or "dry_run" in given):
        options = ", ".join(_option(name) for name in given)
        raise UserError(f"a run is resumed as it was set, so `--resume` takes no other settings, but got {options}")
    folder = _folder(place, place["name"])
    if given and not folder.exists():
        return folder  # a scheduler of jobs begins a run and resumes it by one command
    folder.refresh()
    if not isinstance(folder.info().get("settings"), dict):
        raise RunError(f"run.json must hold the settings of the run, but {folder.info_file} does not")
    return folder


def _check_same(given: dict[str, Any], settings: Any) -> None:
    for name, value in given.items():
        if value != (was := getattr(settings, name, None)):
            raise UserError(f"a run is resumed as it was set, with {_option(name)} {was}, but got {value}")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _folder(place: dict[str, Any], name: str) -> RunFolder:
    storage = place["storage"]
    if is_url(storage):
        bare, question, options = storage.partition("?")
        return RunFolder.at(f"{bare.rstrip('/')}/{checked_name(name, 'a run')}{question}{options}")
    if "://" in storage:
        raise UserError(f"`--storage` must be a folder that every node can write, or s3://..., but got {storage!r}")
    folder = Path(storage).expanduser() / checked_name(name, "a run")
    if folder.is_symlink():
        raise RunError(f"a run must lie in the folder of its storage, but {folder} is a link to {folder.readlink()}")
    return RunFolder(folder)


if __name__ == "__main__":
    sys.exit(main())
