"""One search, from its settings to its results: Ray Tune places and repeats trials, everything else is ours."""

from __future__ import annotations

import math
import os
import shlex
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import data
from ..errors import RunError, UserError
from ..evaluation.protocols import protocol
from ..pareto import SPAN
from ..recipe import Mix, Recipe, Training
from ..runfolder import RunFolder
from .halving import GRACE, rungs

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

    from .ledger import Entry, Ledger
    from .listed import ListedSearcher
    from .scheduler import RungScheduler
    from .searcher import OptunaSearcher
    from .spaces import Sample, Space

WORKER_ENVIRONMENT = {
    # One thread a core (two one-thread trials are twice as fast as one two-thread trial), and no page faults for each
    # activation: the allocator keeps what it has.
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
}
SAMPLERS = ("auto", "tpe", "gp", "nsga2", "random")
SCHEDULERS = ("mo-asha", "none")

DRIVER_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own results and TensorBoard
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # our own event log
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # killing a trial, it ends the whole search
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
SEARCH_ONLY = ("trials", "sampler", "scheduler", "eta", "grace", "repeats", "max_latency", "warm_start")
"""Settings without a meaning for a design, whose rows are all run to their end."""
SEEDS = 3
"""Of each row of a design, where the user does not say."""

MAX_FAILURES = 3
"""How often a trial whose worker died is started again, from its last epoch."""


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do; part of `run.json`, so that `--resume` needs only its name."""

    space: str
    dataset: str = "digits"
    data_dir: str | None = None
    fraction: float = 1.0
    trials: int = 12
    epochs: int = 12
    seed: int = 0
    sampler: str = "auto"
    scheduler: str = "mo-asha"
    eta: int = 2
    grace: int = GRACE
    """Epochs before which no trial is compared with others."""
    repeats: int | None = None
    """At most so many further seeds of front candidates; None: a third of the trials."""
    max_latency: float | None = None
    """p50 in ms above which a recipe is infeasible; None is no limit."""
    warm_start: str | None = None
    """Folder of an earlier run of the same space, whose trials the sampler starts from."""
    protocol: str = "quick"
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    """None: a quarter of a GPU where the cluster has any, else none."""
    final_images: int = 64
    """Images of the full protocol for each member of the front, at the end; 0 leaves it out."""
    concurrency: int | None = None
    """None: as many as the cluster holds."""
    seeds: int | None = None
    """Seeds of each row of a design; None in a search."""

    @property
    def most_repeats(self) -> int:
        """Further seeds of front candidates, at most."""
        return self.trials // 3 if self.repeats is None else self.repeats

    def check(self) -> None:
        """Find what can be found before anything is loaded.

        Raises:
            UserError: a value breaks its rule.
        """
        if self.seeds is not None and self.seeds < 1:
            raise UserError(f"`seeds` must be at least 1, but got {self.seeds}")
        for name in ("trials", "epochs", "grace", "cpus_per_trial"):
            if getattr(self, name) < 1:
                raise UserError(f"`{name}` must be at least 1, but got {getattr(self, name)}")
        if self.concurrency is not None and self.concurrency < 1:
            raise UserError(f"`concurrency` must be at least 1, but got {self.concurrency}")
        if self.eta < 2:
            raise UserError(f"`eta` must be at least 2, but got {self.eta}")
        if not 0 <= self.seed < 2**31:
            raise UserError(f"`seed` must be in [0, 2**31), but got {self.seed}")
        if self.final_images < 0:
            raise UserError(f"`final_images` must be at least 0, but got {self.final_images}")
        if self.gpus_per_trial is not None and self.gpus_per_trial < 0:
            raise UserError(f"`gpus_per_trial` must be at least 0, but got {self.gpus_per_trial}")
        if self.repeats is not None and self.repeats < 0:
            raise UserError(f"`repeats` must be at least 0, but got {self.repeats}")
        if self.max_latency is not None and not 0 < self.max_latency < math.inf:
            raise UserError(f"`max_latency` must be above 0 ms, but got {self.max_latency:g}")
        if self.sampler not in SAMPLERS:
            raise UserError(f"the sampler must be one of {', '.join(SAMPLERS)}, but got {self.sampler!r}")
        if self.scheduler not in SCHEDULERS:
            raise UserError(f"the scheduler must be one of {', '.join(SCHEDULERS)}, but got {self.scheduler!r}")
        protocol(self.protocol)


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings that a command was given, one of which is the space, with the space's own for the rest.

    Raises:
        UserError: there is no such space, or one of its kind has no use for a setting that was given.
    """
    from . import spaces

    space = spaces.find(given["space"])
    kind, unfit = ("a design", SEARCH_ONLY) if space.design else ("a search space", ("seeds",))
    if wrong := [f"`--{name.replace('_', '-')}`" for name in unfit if name in given]:
        raise UserError(f"{space.name} is {kind}, which takes no {' or '.join(wrong)}")
    own: dict[str, Any] = {"protocol": space.protocol} if space.protocol else {}
    if space.design:
        rows = list(space.rows(0.1).values())  # neither number nor epochs depend on epsilon, which is not known yet
        own |= {"seeds": SEEDS, "epochs": rows[0].training.epochs}
        own |= given
        trials = len(rows) * own["seeds"]
        own |= {"scheduler": "none", "grace": own["epochs"], "trials": trials, "repeats": 0}
    return Settings(**(own | given))


def sampler_of(settings: Settings, samples: list[Sample]) -> str:
    """The sampler that the settings name; `auto` follows the space."""
    from .searcher import choose_sampler

    return choose_sampler(samples) if settings.sampler == "auto" else settings.sampler


def make_searcher(
    settings: Settings, ledger: Ledger, study: optuna.Study | None, epsilon: float, *, baseline: bool = True
) -> OptunaSearcher | ListedSearcher:
    """The searcher of a run with these settings; `epsilon` is the l_inf radius of the evaluation.

    A design needs no study.
    """
    from . import spaces
    from .listed import ListedSearcher
    from .searcher import OptunaSearcher

    space = spaces.find(settings.space)
    if space.design:
        rows = {
            name: recipe.replace(**{"training.epochs": settings.epochs}) for name, recipe in space.rows(epsilon).items()
        }
        return ListedSearcher(rows, ledger, seeds=settings.seeds or SEEDS, seed=settings.seed)
    assert study is not None
    return OptunaSearcher(
        space,
        ledger,
        study,
        baseline=plain(settings.epochs) if baseline else None,
        overrides={"training.epochs": settings.epochs},
        epsilon=epsilon,
        sampler=sampler_of(settings, space.sample(epsilon, settings.seed)),
        trials=settings.trials,
        repeats=settings.most_repeats,
        seed=settings.seed,
    )


def make_scheduler(
    settings: Settings, ledger: Ledger, changed: Callable[[Entry], object] = lambda entry: None
) -> RungScheduler:
    """The scheduler of a run with these settings; `changed` is called after each change of a trial."""
    from .scheduler import RungScheduler

    return RungScheduler(ledger, eta=settings.eta if settings.scheduler == "mo-asha" else None, changed=changed)


def plain(epochs: int) -> Recipe:
    """The baseline: a plain ReLU WRN-34-1, trained on clean images as long as the others."""
    return Recipe(mix=Mix(clean=1, noise=0, fgsm=0, pgd=0, cw=0), training=Training(epochs=epochs))


def search(settings: Settings, folder: RunFolder, *, address: str | None = None, resume: bool = False) -> int:
    """Run or resume a search; returns the number of crashed trials.

    Raises:
        UserError: the settings cannot be run; nothing has started, and a new folder is not made.
        KeyboardInterrupt: interrupted; the folder can be resumed.
    """
    settings.check()
    for name, value in DRIVER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import optuna
    import ray

    from . import spaces
    from .searcher import make_study, warm_start

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = spaces.find(settings.space)
    dataset = data.load(
        settings.dataset,
        data_dir=Path(settings.data_dir) if settings.data_dir else None,
        fraction=settings.fraction,
    )
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
    _connect(address, environment)
    try:
        gpus, concurrency = _resources(settings, ray.cluster_resources())
        if not resume:
            folder.write_info(_info(settings, folder, dataset))
        lock = folder.lock()
        try:
            return _run(settings, folder, space, samples, dataset, gpus, concurrency)
        finally:
            os.close(lock)
    finally:
        ray.shutdown()


def _connect(address: str | None, environment: dict[str, str]) -> None:
    import ray

    if address is None:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        return
    host, colon, port = address.rpartition(":")
    try:
        if colon:  # Ray itself waits for many minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": environment})
    except (OSError, ValueError) as error:
        raise UserError(f"`--address` must be that of a running Ray cluster, but got {address!r}: {error}") from error


def _info(settings: Settings, folder: RunFolder, dataset: data.Dataset) -> dict[str, Any]:
    """What `run.json` says."""
    from ..latency import device_name
    from .ledger import versions

    return {
        "name": folder.name,
        "command": shlex.join(["python", "-m", "robustsearch.run", *sys.argv[1:]]),
        "settings": asdict(settings),
        **{name: getattr(settings, name) for name in ("space", "protocol", "epochs", "trials", "seed")},
        "dataset": dataset.name,
        "epsilon": dataset.epsilon,
        "epsilon_l2": dataset.epsilon_l2,
        "driver": device_name("cpu"),
        "versions": versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _run(
    settings: Settings,
    folder: RunFolder,
    space: Space,
    samples: list[Sample],
    dataset: data.Dataset,
    gpus: float,
    concurrency: int,
) -> int:
    from ray import tune

    from robustsearch.analysis import pareto  # type: ignore[import-not-found]

    from ..trial import Plan
    from .console import Progress
    from .ledger import Ledger
    from .live import Attained, SearchBoard
    from .searcher import open_study, warm_start
    from .worker import Worker

    plan = Plan(
        rungs=rungs(settings.epochs, settings.eta, settings.grace),
        protocol=protocol(settings.protocol),
        epsilon=dataset.epsilon,
        epsilon_l2=dataset.epsilon_l2,
    )
    out = pareto.console()
    _say(
        out,
        f"{space.name}: {space.summary}",
        f"{dataset.name}: {len(dataset.train)} training and {len(dataset.validation)} validation images, "
        f"epsilon {dataset.epsilon:.4g}.",
        *_intentions(settings, samples, plan.rungs, concurrency),
        f"Run folder: {folder.root}",
    )
    with Ledger(folder, max_latency=settings.max_latency) as ledger:
        ledger.log.append("start")
        attained = Attained(ledger)
        board = SearchBoard(folder.trials / "search", attained)
        study = None if space.design else open_study(folder)
        expected = settings.trials + (study is not None)  # the baseline
        progress = Progress(out, ledger, attained, expected, settings.epochs, board.write)
        if study and settings.warm_start and not study.trials:
            count = warm_start(study, RunFolder(Path(settings.warm_start)), samples)
            _say(out, f"The sampler starts from {count} trials of {settings.warm_start}.")
        searcher = make_searcher(settings, ledger, study, dataset.epsilon)
        root = str(folder.root.resolve())
        worker = tune.with_parameters(Worker, root=root, dataset=dataset, plan=plan, threads=settings.cpus_per_trial)
        tune.Tuner(
            tune.with_resources(worker, {"cpu": settings.cpus_per_trial, "gpu": gpus}),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=make_scheduler(settings, ledger, progress.changed),
                num_samples=-1,
                reuse_actors=True,
                max_concurrent_trials=concurrency,
            ),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str((folder.root / ".tune").resolve()),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            ),
        ).fit()
        board.close()
        asked = ledger.entries if space.design else ledger.searched
        if ledger.running or len(asked) < settings.trials:
            raise KeyboardInterrupt
        if attained.hypervolume is not None:
            _say(
                out,
                f"Attained {100 * attained.hypervolume:.1f}% robust accuracy, averaged over latencies from the plain "
                f"network's to {SPAN:g} times that, in {attained.epochs} epochs of training",
            )
        if settings.final_images:
            _examine(folder, dataset, settings, gpus, out)
        ledger.log.append("end")
        crashed = sum(entry.state == "crashed" for entry in ledger.entries.values())
    _draw(folder, out)
    return crashed


def _intentions(settings: Settings, samples: list[Sample], rungs: tuple[int, ...], concurrency: int) -> list[str]:
    """What is going to be run."""
    if settings.seeds:
        return [
            f"{settings.trials} trials of {settings.epochs} epochs, each of {len(samples)} rows with {settings.seeds} "
            f"seeds; none is stopped; {concurrency} at a time."
        ]
    sampler = sampler_of(settings, samples)
    return [
        f"{settings.trials} trials and the baseline of {settings.epochs} epochs, measured after "
        f"{', '.join(map(str, rungs))}; {sampler}, {settings.scheduler}; {concurrency} at a time.",
        f"At most {settings.most_repeats} more with further seeds, while it is uncertain what is on the front.",
    ]


def _examine(folder: RunFolder, dataset: data.Dataset, settings: Settings, gpus: float, out: Console) -> None:
    """The full protocol and the masking checks, for each member of the front."""
    from robustsearch.analysis import front

    from .. import results
    from .final import PROTOCOL, SPLIT, disagreements, distinct, examine_front

    try:
        points = front.front_table(results.read(folder.results))
    except RunError:
        return  # nothing was measured, as the end of the run says
    front_rows = front.front_rows(points)
    members = distinct(front_rows)
    plain_epoch = max((row["epoch"] for row in points.to_pylist() if row["role"] == "baseline"), default=None)
    ties = len(front_rows) - len(members)
    besides = f" ({ties} more are as fast as a more robust one)" if ties else ""
    _say(out, f"Examining {len(members)} on the front{besides}: protocol {PROTOCOL}, {settings.final_images} images")
    rungs = {(row["trial"], row["epoch"]): row["robust"] for row in members}
    for row in examine_front(
        folder, members, plain_epoch, dataset, images=settings.final_images, cpus=settings.cpus_per_trial, gpus=gpus
    ):
        verdict = "MASKED" if row["masked"] else "no masking found"
        _say(
            out,
            f"  {row['trial']:<8} epoch {row['epoch']:>3}  robust {100 * row['robust']:.1f}% "
            f"(at its rung {100 * rungs[row['trial'], row['epoch']]:.1f}%)  {verdict}",
        )
    examined = results.read(folder.evaluations).to_pylist()
    full = [row for row in examined if (row["protocol"], row["split"], row["variant"]) == (PROTOCOL, SPLIT, None)]
    differ, pairs = disagreements(members, full)
    _say(out, f"The rungs and the full protocol order {differ} of {pairs} pairs of them differently")


def _draw(folder: RunFolder, out: Console) -> None:
    """Show the front, and draw it where a person looks for it."""
    from robustsearch.analysis import front, load, pareto

    try:
        run = load.load(folder.root)
        points = front.front_table(run.table)
    except RunError as error:
        _say(out, str(error))
        return
    pareto.show(run, points, out)
    *_, page = pareto.write(run, points, None, folder.figures)
    _say(out, f"Front, interactive: {page}", f"TensorBoard: tensorboard --logdir {folder.trials}")


def _say(out: Console, *lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        out.print(line, highlight=False, soft_wrap=True, markup=False)


def _resources(settings: Settings, cluster: dict[str, float]) -> tuple[float, int]:
    """GPUs per trial, and trials at a time.

    Raises:
        UserError: not even one trial fits.
    """
    cpus, gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    per_trial = settings.gpus_per_trial
    if per_trial is None:
        per_trial = 0.25 if gpus else 0.0
    if settings.cpus_per_trial > cpus:
        raise UserError(
            f"`cpus_per_trial` must be at most the CPUs there are ({cpus:g}), but got {settings.cpus_per_trial}"
        )
    if per_trial > gpus:
        raise UserError(f"`gpus_per_trial` must be at most the GPUs there are ({gpus:g}), but got {per_trial:g}")
    fit = int(cpus // settings.cpus_per_trial)
    if per_trial:
        fit = min(fit, int(gpus / per_trial))
    return per_trial, min(fit, settings.concurrency or fit)
