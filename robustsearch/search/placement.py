"""Where trials run: the Ray cluster, the environment of its processes, and how many trials it holds."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError
from .machine import check_machine, trials_in_memory
from .nodes import Node, living_nodes, room
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
    "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # the head of a Ray of its own does not come back
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # on these systems, as on all with this: every port on loopback
}
SETTINGS = b"\4"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + SETTINGS + bytes(5)
"""What a client of HTTP/2 says first, and an empty frame of settings (RFC 9113, 3.4 and 6.5)."""
STARTS = 3
"""How often a local Ray is started: it gives itself 30 s, which a busy machine may not keep."""


def connect(address: str | None, environment: dict[str, str]) -> None:
    import ray

    if address is None:
        _start()
        return
    host, colon, port = address.rpartition(":")
    try:
        if colon and os.environ.get("RAY_USE_TLS") != "1":  # Ray itself waits for many minutes
            _check_speaks(host, int(port))
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={"env_vars": environment})
    except (OSError, ValueError, RuntimeError) as error:  # the last: it runs another version of Ray or Python
        reason = " ".join(str(error).split())
        raise UserError(f"`--address` must be that of a running Ray cluster, but got {address!r}: {reason}") from error


def _check_speaks(host: str, port: int) -> None:
    """Whether a server is there that speaks HTTP/2, as Ray's do: it answers the preface by a frame of settings.

    Raises:
        OSError: there is no server, or it is another one.
    """
    with socket.create_connection((host, port), timeout=10) as connection:
        connection.sendall(PREFACE)
        if connection.recv(4)[3:] != SETTINGS:
            raise OSError("the server there is not Ray's")


def _start() -> None:
    """A Ray of this search's own: without an address, Ray would join whatever cluster runs on the machine.

    Raises:
        UserError: it does not start.
    """
    import ray

    check_machine()
    for left in range(STARTS)[::-1]:
        try:
            ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="ERROR")
            return
        except Exception as error:  # whatever it is, no trial has begun
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                reason = " ".join(str(error).split()) or type(error).__name__
                raise UserError(f"a search must be able to start Ray on this machine, but: {reason}") from error


@dataclass(frozen=True)
class Place:
    """Where the trials of a run go, and how many at a time."""

    cpus: int
    gpus: float
    """CPUs and GPUs of a trial."""
    concurrency: int
    device: str | None
    """The device type that trials time on; None while no node is there that holds one."""
    nodes: tuple[str, ...] | None
    """Ids of the nodes that trials are kept to; None for all."""
    idle: dict[str, int]
    """Device types that take no trials, since latency is compared within one; and the trials they would hold."""
    cluster: int
    """Nodes that are alive; 0 for this machine alone."""

    def request(self) -> Any:
        """What Tune asks Ray for, for each trial."""
        from ray import tune

        need = {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})
        if self.nodes is None:
            return tune.PlacementGroupFactory([need])
        kept = f"in({','.join(self.nodes)})"
        return tune.PlacementGroupFactory([need], bundle_label_selector=[{"ray.io/node-id": kept}])

    def lines(self, begun: str | None) -> list[str]:
        """What a person should know of it; `begun` is the device type on which the run was begun."""
        found = []
        if self.cluster:
            nodes = f"{self.cluster} node{'' if self.cluster == 1 else 's'} alive"
            if self.device:
                found.append(f"{nodes}; trials are timed on {self.device}.")
            else:
                found.append(f"{nodes}, none of which holds a trial: the autoscaler is asked for {self.concurrency}.")
        if self.idle:
            unused = ", ".join(f"{device} (would hold {fit})" for device, fit in self.idle.items())
            found.append(f"Latency is compared within one device type, so these get no trials: {unused}.")
        if begun and self.device and begun != self.device:
            found.append(f"The run was begun on {begun}: latencies of the two device types are not compared.")
        return found


def find_place(settings: Settings, folder: Path | None, *, address: str | None) -> Place:
    """Where the trials of a run go, on the cluster that is connected; `folder` is the run's, None in an object store.

    Where nodes differ in what they would time on, trials are kept to the type that holds most of them. How far an
    autoscaler may let a cluster grow, Ray does not tell: there, `concurrency` says how many trials there will be.

    Raises:
        UserError: not even one trial fits, or a node does not share the run's folder.
    """
    if address is not None:
        return arrange(settings, living_nodes(folder), joined=True)
    import ray

    held = ray.cluster_resources()
    return arrange(settings, [_own(held.get("CPU", 0.0), held.get("GPU", 0.0))], joined=False)


def foreseen(settings: Settings, *, address: str | None) -> Place:
    """The same before anything is started: on a running cluster, or on this machine.

    Raises:
        UserError: as for `find_place`, or there is no cluster at that address.
    """
    if address is None:
        import torch

        own = _own(float(os.cpu_count() or 1), float(torch.cuda.device_count()))
        return arrange(settings, [own], joined=False)
    import ray

    connect(address, {})
    try:
        return find_place(settings, None, address=address)
    finally:
        ray.shutdown()


def _own(cpus: float, gpus: float) -> Node:
    """This machine."""
    from ..latency import device_name

    return Node(device_name("cpu"), cpus, gpus)


def arrange(settings: Settings, nodes: list[Node], *, joined: bool) -> Place:
    """Trials on these nodes; `joined` if they are a cluster, else no more at a time than fit into this memory, too.

    Raises:
        UserError: not even one trial fits.
    """
    cpus, gpus = settings.cpus_per_trial, settings.gpus_per_trial
    alive = len(nodes) if joined else 0
    if joined and settings.concurrency and gpus is not None and not room(nodes, cpus, gpus):
        return Place(cpus, gpus, settings.concurrency, None, None, {}, alive)
    if gpus is None:
        gpus = 0.25 if any(node.gpus for node in nodes) else 0.0
    device, *others = _check_fit(nodes, cpus, gpus)
    fit = room(nodes, cpus, gpus)
    wanted = settings.concurrency or (fit[device] if joined else min(fit[device], trials_in_memory()))
    return Place(
        cpus=cpus,
        gpus=gpus,
        concurrency=wanted if joined else min(fit[device], wanted),
        device=device,
        nodes=tuple(str(node.id) for node in nodes if node.device == device) if others else None,
        idle={other: fit[other] for other in others},
        cluster=alive,
    )


def _check_fit(nodes: list[Node], cpus: int, gpus: float) -> list[str]:
    """The device types that hold trials, the one that holds most of them first."""
    for name, kind, asked, most in (
        ("cpus_per_trial", "CPUs", cpus, max(node.cpus for node in nodes)),
        ("gpus_per_trial", "GPUs", gpus, max(node.gpus for node in nodes)),
    ):
        if asked > most:
            grows = ""
            if len(nodes) == 1 and not most:
                grows = "; where an autoscaler brings nodes, say both `--gpus-per-trial` and `--concurrency`"
            raise UserError(
                f"`{name}` must be at most the {kind} there are on a node ({most:g}), but got {asked:g}{grows}"
            )
    if not (found := room(nodes, cpus, gpus)):
        raise UserError(f"a node must hold a trial, of {cpus} CPUs and {gpus:g} GPUs, but none does")
    return list(found)
