"""Trials logged in MLflow or in Weights & Biases too, through Tune's own callbacks: `--log-to`.

Both show a run for each trial, in an experiment (or group) of the search's name: the settings of its recipe, the terms
of its training objective after each epoch, and what was measured at its rungs. Nothing is read back from there.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

from ..errors import UserError
from ..runfolder import RunFolder

SERVICES = ("mlflow", "wandb")


def check(service: str | None) -> None:
    """Find out before anything starts whether trials can be logged there; None asks for nothing.

    Raises:
        UserError: the service is unknown, not installed, or would ask for a key.
    """
    if service is None:
        return
    if service not in SERVICES:
        raise UserError(f"`--log-to` must be one of {', '.join(SERVICES)}, but got {service!r}")
    if importlib.util.find_spec(service) is None:
        raise UserError(
            f"`--log-to {service}` needs {service}, which is not installed: pip install 'robustsearch[{service}]'"
        )
    if service == "wandb" and os.environ.get("WANDB_MODE") not in ("offline", "disabled"):
        import wandb

        if not (os.environ.get("WANDB_API_KEY") or wandb.api.api_key):
            raise UserError("`--log-to wandb` needs a login: `wandb login`, WANDB_API_KEY, or WANDB_MODE=offline")


def callbacks(service: str | None, folder: RunFolder) -> list[Any]:
    """Tune's callback for a service.

    MLflow's store is that of MLFLOW_TRACKING_URI, else `mlflow.db` in the run folder; what W&B keeps offline is in
    `wandb` there.
    """
    root = folder.root.resolve()
    if service == "mlflow":
        from ray.air.integrations.mlflow import MLflowLoggerCallback

        store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{root / 'mlflow.db'}"
        return [MLflowLoggerCallback(tracking_uri=store, experiment_name=folder.name)]
    if service == "wandb":
        from ray.air.integrations.wandb import WandbLoggerCallback

        mode = os.environ.get("WANDB_MODE")  # the processes of a cluster that runs already do not have it
        more = {"mode": mode} if mode else {}
        return [
            WandbLoggerCallback(project="robustsearch", group=folder.name, excludes=["rows"], dir=str(root), **more)
        ]
    return []
