"""Where trials run: the Ray cluster, the environment of its processes, and how many trials it holds."""

from __future__ import annotations

import socket

from ..errors import UserError
from .settings import Settings

WORKER_ENVIRONMENT = {
    # One thread a core (two one-thread trials are twice as fast as one two-thread trial), and no page faults for each
    # activation: the allocator keeps what it has.
    "MALLOC_TRIM_THRESHOLD_": "2000000000",
    "MALLOC_MMAP_THRESHOLD_": "2000000000",
}
DRIVER_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # our own results and TensorBoard
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # our own event log
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # killing a trial, it ends the whole search
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}
LOCAL_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on these systems, as on all with this: every port on loopback
}
STARTS = 3
"""How often a local Ray is started: it gives itself 30 s, which a busy machine may not keep."""


def connect(address: str | None, environment: dict[str, str]) -> None:
    import ray

    if address is None:
        _start()
        return
    host, colon, port = address.rpartition(":")
    try:
        if colon:  # Ray itself waits for many minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": environment})
    except (OSError, ValueError) as error:
        raise UserError(f"`--address` must be that of a running Ray cluster, but got {address!r}: {error}") from error


def _start() -> None:
    """A Ray of this machine's own."""
    import ray

    for left in range(STARTS)[::-1]:
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:
            if not left or "timed out during startup" not in str(error):
                raise
            ray.shutdown()


def resources(settings: Settings, cluster: dict[str, float]) -> tuple[float, int]:
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
