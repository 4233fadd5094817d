"""One search, from its settings to its results: Ray Tune places and repeats trials, everything else is ours."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import data
from ..ablation.gaining import RULE
from ..errors import UserError
from ..pareto import SPAN
from ..patience import trouble_in
from ..runfolder import RunFolder
from . import elsewhere
from .assemble import make_scheduler, make_searcher, plan_of, sampler_of
from .closing import draw, draw_again, examine, is_complete, kept, say
from .lifeline import lifeline
from .machine import check_memory
from .placement import DRIVER_ENVIRONMENT, LOCAL_ENVIRONMENT, WORKER_ENVIRONMENT, Place, connect, find_place
from .settings import Settings

if TYPE_CHECKING:
    from ..trial import Plan
    from .spaces import Sample, Space


def search(settings: Settings, folder: RunFolder, *, address: str | None = None, resume: bool = False) -> int:
    """Run or resume a search; returns the number of crashed trials. What is complete is only drawn again.

    Raises:
        UserError: the settings cannot be run; nothing has started, and a new folder is not made.
        StorageError: the run folder could not be written for long; it can be resumed.
        WorkersError: worker after worker dies; it can be resumed.
        KeyboardInterrupt: interrupted; the folder can be resumed.
    """
    settings.check()
    if resume and is_complete(folder):
        with _told():
            return draw_again(folder, settings)
    for name, value in (DRIVER_ENVIRONMENT | ({} if address else LOCAL_ENVIRONMENT)).items():
        os.environ.setdefault(name, value)
    import optuna
    import ray

    from . import spaces
    from .searcher import make_study, warm_start

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = spaces.of(settings)
    dataset = data.of_settings(asdict(settings))
    samples = space.sample(dataset.epsilon, settings.seed)
    for sample in samples:
        if len(dataset.train) < sample.recipe.training.batch_size:
            raise UserError(
                f"training needs at least one batch of {sample.recipe.training.batch_size} images, but "
                f"{dataset.name} has {len(dataset.train)}"
            )
    if not resume:
        folder.check_place()
        if settings.warm_start:
            warm_start(make_study(folder.name), RunFolder(Path(settings.warm_start)), samples)  # finds mistakes now

    environment = WORKER_ENVIRONMENT | {"OMP_NUM_THREADS": str(settings.cpus_per_trial)}
    os.environ.update(environment)  # a local cluster's workers inherit it
    connect(address, environment)
    try:
        place = find_place(settings, None if folder.store else folder.root, address=address)
        if address is None and not resume:  # which cannot be told to take fewer at a time
            check_memory(place.concurrency)
        with _told(), folder.locked(), lifeline(folder):
            if folder.store and resume:
                folder.store.fetch()  # now that nobody else writes there
            folder.write_info(folder.info() if resume else _info(settings, folder, space, dataset, place))
            return _run(settings, folder, space, samples, dataset, place)
    finally:
        ray.shutdown()


@contextmanager
def _told() -> Iterator[None]:
    """Trouble with storage or workers as what it is, whatever it was wrapped in, as Tune does."""
    try:
        yield
    except Exception as error:
        if trouble := trouble_in(error):
            raise trouble from error
        raise


def _info(settings: Settings, folder: RunFolder, space: Space, dataset: data.Dataset, place: Place) -> dict[str, Any]:
    """What `run.json` says."""
    from ..latency import device_name
    from .ledger import versions

    return {
        "name": folder.name,
        "command": shlex.join(["python", "-m", "robustsearch.run", *sys.argv[1:]]),
        "summary": space.summary,
        "settings": asdict(settings),
        **{name: getattr(settings, name) for name in ("space", "protocol", "epochs", "trials", "seed")},
        "dataset": dataset.name,
        "epsilon": dataset.epsilon,
        "epsilon_l2": dataset.epsilon_l2,
        "driver": device_name("cpu"),
        "device": place.device,
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _run(
    settings: Settings,
    folder: RunFolder,
    space: Space,
    samples: list[Sample],
    dataset: data.Dataset,
    place: Place,
) -> int:
    from ray import tune

    from robustsearch.analysis import pareto  # type: ignore[import-not-found]

    from .console import Progress
    from .ledger import Ledger
    from .live import Attained, SearchBoard
    from .restore import restore_study
    from .worker import Worker

    plan = plan_of(settings, dataset)
    out = pareto.console()
    say(
        out,
        f"{space.name}: {space.summary}",
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.validation)} validation images, "
        f"epsilon {dataset.epsilon:.4g}.",
        *place.lines(folder.info().get("device")),
        *_intentions(settings, space, samples, plan, place.concurrency),
        f"Run folder: {folder.place}",
    )
    with Ledger(folder, max_latency=settings.max_latency) as ledger:
        ledger.start(folder.info())
        attained = Attained(ledger)
        board = SearchBoard(folder.trials / "search", attained)
        study = None
        if not space.design:
            study, done = restore_study(folder, settings, ledger, samples, dataset.epsilon)
            if done:
                say(out, done)
        searcher = make_searcher(settings, ledger, study, dataset.epsilon)
        progress = Progress(out, ledger, attained, lambda: searcher.left, settings.epochs, board.write)
        drivers = len(ledger.log.of("start"))
        worker = tune.with_parameters(
            Worker,
            place=folder.place_anywhere,
            dataset=dataset,
            plan=plan,
            threads=settings.cpus_per_trial,
            driver=drivers,
        )
        tune.Tuner(
            tune.with_resources(worker, place.request()),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=make_scheduler(settings, ledger, progress.changed),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=place.concurrency,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str((folder.root / ".tune").resolve()),
                verbose=0,
                callbacks=elsewhere.callbacks(settings.log_to, folder),
                # Trials save themselves; what Tune saves at their end goes to a folder that the driver alone may have.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                failure_config=tune.FailureConfig(max_failures=-1),  # worker and scheduler count
            ),
        ).fit()
        board.close()
        if ledger.running or searcher.left:
            raise KeyboardInterrupt
        if attained.hypervolume is not None:
            say(
                out,
                f"Attained {100 * attained.hypervolume:.1f}% robust accuracy, averaged over latencies from the plain "
                f"network's to {SPAN:g} times that, in {attained.epochs} epochs of training",
            )
        if settings.final_images:
            examine(folder, dataset, settings, place.gpus, out)
        ledger.log.append("end", kept=kept(folder))
    draw(folder, out)
    return ledger.crashed


def _intentions(settings: Settings, space: Space, samples: list[Sample], plan: Plan, concurrency: int) -> list[str]:
    """What is going to be run."""
    if settings.seeds:
        size = space.size(plan.epsilon, settings.seeds)
        what = f"{size.trials} of {settings.epochs} epochs, each of {size.rows}; none is stopped"
        return [f"{what}; {concurrency} at a time.", *([RULE] if space.path(plan.epsilon) else [])]
    sampler = sampler_of(settings, samples)
    return [
        f"{settings.trials} trials and the baseline of {settings.epochs} epochs, measured after "
        f"{', '.join(map(str, plan.rungs))}; {sampler}, {settings.scheduler}; {concurrency} at a time.",
        f"At most {settings.most_repeats} more with further seeds, while it is uncertain what is on the front.",
    ]
