"""What a run is asked to do, and the defaults that a space has for it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ..engines import check_engine
from ..errors import UserError
from ..evaluation.protocols import protocol
from . import elsewhere
from .halving import GRACE

SAMPLERS = ("auto", "tpe", "gp", "nsga2", "random")
SCHEDULERS = ("mo-asha", "none")
SEARCH_ONLY = ("trials", "sampler", "scheduler", "eta", "grace", "repeats", "max_latency", "warm_start")
"""Settings without a meaning for a design, whose rows are all run to their end."""
FINAL_OF_DESIGN = "standard"
"""The protocol that every trial of a design meets at its end, whatever its rungs measure."""
SEEDS = 3
"""Of each row of a design, where the user does not say."""


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
    """Rungs are so many times apart; one in so many goes on at each."""
    grace: int = GRACE
    """Epochs before which no trial is compared with others."""
    repeats: int | None = None
    """At most so many further seeds of front candidates; None: a third of the trials."""
    max_latency: float | None = None
    """p50 in ms above which a recipe is infeasible; None is no limit."""
    warm_start: str | None = None
    """Folder of an earlier run of the same space, whose trials the sampler starts from."""
    protocol: str = "quick"
    engine: str = "auto"
    """What runs the deployed networks while they are timed."""
    cpus_per_trial: int = 1
    gpus_per_trial: float | None = None
    """None: a quarter of a GPU where the cluster has any, else none."""
    final_images: int = 64
    """Images of the last examination, at the end: the full protocol for each member of the front, or `standard` for
    each trial of a design; 0 leaves it out."""
    concurrency: int | None = None
    """None: as many as the cluster holds."""
    seeds: int | None = None
    """Seeds of each row of a design; None in a search."""
    log_to: str | None = None
    """Where trials are logged too, one of `elsewhere.SERVICES`."""
    base: str | None = None
    """Recipe, as JSON, of the trial that is ablated; None where the space has its own recipes."""
    design: str | None = None
    """The design of that ablation, one of `ablation.point.DESIGNS`."""

    @property
    def most_repeats(self) -> int:
        """Further seeds of front candidates, at most."""
        return self.trials // 3 if self.repeats is None else self.repeats

    def check(self) -> None:
        """Find what can be found before anything is loaded.

        Raises:
            UserError: a value breaks its rule.
        """
        elsewhere.check(self.log_to)
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
        check_engine(self.engine)
        protocol(self.protocol)


def settings_of(given: dict[str, Any]) -> Settings:
    """The settings that a command was given, with a space or a trial to ablate, and those of the space for the rest.

    Raises:
        UserError: there is no such space, or one of its kind has no use for a setting that was given.
    """
    from . import spaces

    if "ablate" in given:
        from .ablate import of_point

        given = of_point(given)
    elif "design" in given:
        raise UserError(f"`--design` is that of an `--ablate`, but got --design {given['design']} alone")
    space = spaces.of(Settings(**given))
    kind, unfit = ("a design", SEARCH_ONLY) if space.design else ("a search space", ("seeds",))
    if wrong := [f"`--{name.replace('_', '-')}`" for name in unfit if name in given]:
        raise UserError(f"{space.name} is {kind}, which takes no {' or '.join(wrong)}")
    own: dict[str, Any] = {"protocol": space.protocol} if space.protocol else {}
    if space.design:
        rows = list(space.rows(0.1).values())  # neither number nor epochs depend on epsilon, which is not known yet
        own |= {"seeds": SEEDS, "epochs": rows[0].training.epochs}
        own |= given
        own = {"final_images": protocol(FINAL_OF_DESIGN).images} | own
        trials = len(rows) * own["seeds"]
        own |= {"scheduler": "none", "grace": own["epochs"], "trials": trials, "repeats": 0}
    return Settings(**(own | given))
