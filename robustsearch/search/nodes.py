"""The nodes of a cluster: what each holds, what it would time on, and whether it shares the run's folder."""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UserError

ANSWER_S = 120
"""Within which every node must have looked at the run's folder, s."""
DRIVER = "driver"
"""Name of the driver's own file beside the run's folder."""
ACCELERATOR = "accelerator_type:"
"""Ray gives a node with GPUs a resource of this prefix and the GPU's type."""


@dataclass(frozen=True)
class Node:
    """A node of the cluster."""

    device: str
    """The device type on which it times, by name."""
    cpus: float
    gpus: float
    id: str = ""
    """Ray's, in hexadecimal."""

    def holds(self, cpus: int, gpus: float) -> int:
        """Trials at a time that need so many CPUs, and so many GPUs or a part of one."""
        fit = int(self.cpus // cpus)
        if gpus > 1:
            fit = min(fit, int(self.gpus // gpus))
        elif gpus:
            fit = min(fit, int(self.gpus) * int(1 / gpus + 1e-9))  # a part is of one GPU
        return fit


def room(nodes: Iterable[Node], cpus: int, gpus: float) -> dict[str, int]:
    """Trials at a time that the nodes of each device type hold, largest first."""
    held: dict[str, int] = {}
    for node in nodes:
        if fit := node.holds(cpus, gpus):
            held[node.device] = held.get(node.device, 0) + fit
    return dict(sorted(held.items(), key=lambda item: (-item[1], item[0])))


def living_nodes(folder: Path | None) -> list[Node]:
    """The nodes that are alive; every other one than the driver's has been asked what it is and what it sees.

    `folder` is the run's; None where that is in an object store, of which nothing has to be seen.

    Raises:
        UserError: a node does not share the run's folder with the driver, has no robustsearch, or does not answer.
    """
    import ray

    from ..latency import device_name

    own = ray.get_runtime_context().get_node_id()
    alive = [node for node in ray.nodes() if node["Alive"]]
    devices = {own: device_name("cpu")} | _ask([node for node in alive if node["NodeID"] != own], folder)
    return [
        Node(
            _accelerator(node["Resources"]) or devices[node["NodeID"]],
            node["Resources"].get("CPU", 0.0),
            node["Resources"].get("GPU", 0.0),
            id=node["NodeID"],
        )
        for node in alive
        if node["NodeID"] in devices
    ]


def look(probe: str | None, name: str) -> str:
    """Run on a node: its processor's name. Where it sees the driver's file, it leaves a copy of it beside it."""
    from ..latency import device_name

    if probe is not None:
        file = Path(probe)
        with suppress(OSError):
            (file / name).write_text((file / DRIVER).read_text())
    return device_name("cpu")


def _ask(nodes: list[dict[str, Any]], folder: Path | None) -> dict[str, str]:
    """The processor of each node, by the node's id; one that dies before it answers is left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not nodes:
        return {}
    task = ray.remote(num_cpus=0, max_retries=0)(look)
    found = {}
    with _probe(folder) as probe:
        asked = []
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append(task.options(scheduling_strategy=there).remote(probe and str(probe), node["NodeID"]))
        for node, answer in zip(nodes, asked, strict=True):
            identity, host = node["NodeID"], node["NodeManagerHostname"]
            try:
                device = ray.get(answer, timeout=ANSWER_S)
            except ray.exceptions.RayTaskError as error:
                reason = str(error).strip().splitlines()[-1]
                raise UserError(f"robustsearch must be installed on every node, but {host} says: {reason}") from error
            except ray.exceptions.GetTimeoutError:
                raise UserError(f"every node must answer within {ANSWER_S} s, but {host} does not") from None
            except ray.exceptions.RayError:
                continue
            if probe and not _same(probe / identity, probe / DRIVER):
                raise UserError(
                    f"`--storage` must be a folder that all nodes share, but {host} sees another {probe.parent} than "
                    f"{socket.gethostname()}"
                )
            found[identity] = device
    return found


@contextmanager
def _probe(folder: Path | None) -> Iterator[Path | None]:
    """A folder for as long as it is looked at, with a file of the driver's, beside a run's folder."""
    if folder is None:
        yield None
        return
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.is_dir()).absolute()
    probe = nearest / f".robustsearch-{uuid.uuid4().hex}"
    try:
        probe.mkdir()
        (probe / DRIVER).write_text(uuid.uuid4().hex)
    except OSError as error:
        raise UserError(f"`--storage` must be writable, but {nearest} is not: {error.strerror}") from error
    try:
        yield probe
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _same(copy: Path, original: Path) -> bool:
    try:
        return copy.read_text() == original.read_text()
    except OSError:
        return False


def _accelerator(resources: dict[str, float]) -> str | None:
    """The GPU's type among a node's resources."""
    return next((name.removeprefix(ACCELERATOR) for name in resources if name.startswith(ACCELERATOR)), None)
