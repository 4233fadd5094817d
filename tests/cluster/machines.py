"""Machines on one Linux host, for tests of clusters: each has its network, processes, mounts, name and SSH server.

A machine is a set of kernel namespaces over a copy-on-write view of this host's files. The machines of a `Lan` reach
each other by address, and nothing else; what they share is one folder, at /shared. They die with the process that made
them, whatever ends it, and leave nothing behind but the files in their folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")

NEEDED = ("unshare", "nsenter", "setpriv", "ip", "sshd", "ssh", "ssh-keygen", "rsync")
HOME = Path("/root")
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

BOOT = r"""
set -e
mount -t tmpfs tmpfs "$MACHINE"
mkdir "$MACHINE/upper" "$MACHINE/work" "$MACHINE/root"
R="$MACHINE/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$MACHINE/upper,workdir=$MACHINE/work" "$R"
for folder in $VISIBLE; do mkdir -p "$R$folder"; mount --bind "$folder" "$R$folder"; done
mount -t proc proc "$R/proc"
mount --rbind /sys "$R/sys"
mount --rbind /dev "$R/dev"
for folder in dev/shm run root/.ssh root/.ray; do mkdir -p "$R/$folder"; mount -t tmpfs tmpfs "$R/$folder"; done
mkdir -p "$R/tmp/ray"; mount --bind "$(mktemp -d "$SHARED/.ray-$NAME-XXXX")" "$R/tmp/ray"   # its logs outlive it
chmod 700 "$R/root/.ssh"
mkdir -p "$R/run/sshd" "$R/shared"
mount --bind "$SHARED" "$R/shared"
rm -f "$R/root/.bash_profile" "$R/root/.bash_login" "$R/root/.profile" "$R/root/.bashrc"
sed -i 's/^root:[^:]*/root:*/' "$R/etc/shadow"
cp "$KEYS/id.pub" "$R/root/.ssh/authorized_keys"
hostname "$NAME"
printf '127.0.0.1 localhost\n%s %s\n' "$ADDRESS" "$NAME" > "$R/etc/hosts"
ip link set lo up
echo ready; read _   # the cable is plugged in meanwhile
exec chroot "$R" bash -c '
    cd; bash /shared/'"$SETUP"' > /shared/.boot-$NAME.log 2>&1
    /usr/sbin/sshd -D -e -h /shared/.keys/host -o PermitRootLogin=yes -o StrictModes=no -o UsePAM=no \
        -o MaxStartups=100 -o PidFile=none -o PermitUserEnvironment=no 2> /shared/.sshd-$NAME.log &
    echo up
    while :; do wait -n || sleep 0.2; done   # the first process of a machine buries orphans'
"""


class NoMachines(Exception):  # noqa: N818
    """This host cannot make machines; the message says why."""


def missing() -> str | None:
    """Why this host can make no machines, as far as that can be known without trying."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "machines need Linux and root"
    absent = [name for name in NEEDED if not shutil.which(name, path=PATH)]
    return f"machines need {', '.join(absent)}" if absent else None


class Machine:
    """One machine; `Lan.machine` makes it."""

    def __init__(self, lan: Lan, name: str, address: str, setup: str) -> None:
        self.name, self.address = name, address
        self._lan = lan
        folder = lan.folder / name
        folder.mkdir(exist_ok=True)
        visible = {str(path) for path in (lan.folder, *map(Path, (sys.prefix, sys.base_prefix)), *lan.visible)}
        root = os.stat("/").st_dev
        environment = {
            "PATH": PATH,
            "HOME": str(HOME),
            "MACHINE": str(folder),
            "SHARED": str(lan.shared),
            "KEYS": str(lan.keys),
            "NAME": name,
            "ADDRESS": address,
            "SETUP": setup,
            "VISIBLE": " ".join(sorted(path for path in visible if os.stat(path).st_dev != root)),
        }
        namespaces = ("--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
        with (lan.folder / f"{name}.log").open("w") as log:
            self._process = subprocess.Popen(
                [*DIE_WITH_PARENT, "unshare", *namespaces, "bash", "-c", BOOT],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            self._first = self._booted()
        except BaseException:
            self._process.kill()
            self._process.wait()
            self.release()
            raise

    def _booted(self) -> int:
        """Plugs the cable in, and returns the machine's first process."""
        self._hear("ready")
        self._lan.plug(self._process.pid, self.name, self.address)
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._hear("up")
        try:
            return int(Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()[0])
        except (OSError, IndexError) as error:
            raise NoMachines(f"a machine's first process cannot be found: {error}") from error

    def _hear(self, word: str) -> None:
        assert self._process.stdout
        if self._process.stdout.readline().strip() != word:
            said = (self._lan.folder / f"{self.name}.log").read_text()[-500:]
            raise NoMachines(f"a machine could not be made: {said}")

    def command(self, line: str) -> list[str]:
        """What runs a line of shell inside, as a login does."""
        inside = ("nsenter", "-t", str(self._first), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd")
        return [*DIE_WITH_PARENT, *inside, "env", "-i", f"HOME={HOME}", "TERM=dumb", "bash", "--login", "-c", line]

    def run(self, line: str, *, timeout: float, check: bool = True) -> str:
        """Run a line of shell inside; returns what it said.

        Raises:
            AssertionError: it ended with another code than 0, and `check` is set.
        """
        done = subprocess.run(self.command(line), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=timeout)
        said = done.stdout.decode(errors="replace")
        assert done.returncode == 0 or not check, f"{line!r} on {self.name} ended with {done.returncode}:\n{said}"
        return said

    def reaches(self, other: Machine) -> bool:
        """Whether the SSH server of another machine answers this one."""
        line = f"exec 3<> /dev/tcp/{other.address}/22 && read -r -t 5 said <&3 && [[ $said = SSH-* ]]"
        return subprocess.run(self.command(f"timeout 10 bash -c '{line}'"), capture_output=True).returncode == 0

    def power_off(self) -> None:
        """The cable first, so that nobody is told; then every process at once."""
        with suppress(NoMachines, ProcessLookupError):  # it has just died with the thread that made it
            self._lan.unplug(self.name)
            os.kill(self._first, signal.SIGKILL)
        self._process.wait(timeout=30)
        self.release()

    def release(self) -> None:
        """Close what one that is off was heard and spoken to by."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            pipe.close()

    @property
    def on(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None


class Lan:
    """A switch, and the machines on it; a context that takes them all away."""

    def __init__(self, folder: Path, *, setup: str, visible: tuple[Path, ...] = (), network: int = 16) -> None:
        """Machines keep their files in `folder` until they are gone; each runs the shell script `setup` as it boots.

        `visible` folders of the host are seen by the machines even where they are file systems of their own.

        Raises:
            NoMachines: this host does not let us.
        """
        self.folder, self.shared, self.keys = folder, folder / "shared", folder / "shared" / ".keys"
        self.visible, self._prefix = visible, network
        self.machines: dict[str, Machine] = {}
        """The newest of each name."""
        self._cables: dict[str, str] = {}
        self._numbers = count()
        self.keys.mkdir(parents=True)
        (self.shared / ".setup.sh").write_text(setup)
        for key in ("id", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.keys / key], check=True)
        self._switch = subprocess.Popen(
            [*DIE_WITH_PARENT, "unshare", "--net", "sh", "-c", "echo ready; exec sleep infinity"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._switch.stdout
        assert self._switch.stderr
        if self._switch.stdout.readline().strip() != "ready":
            raise NoMachines(f"no network could be made: {self._switch.communicate()[1][-500:]}")
        try:
            self._ip("link", "add", "bridge", "type", "bridge")
            self._ip("link", "set", "bridge", "up")
        except NoMachines:
            self.close()
            raise

    def machine(self, name: str, address: str) -> Machine:
        """A new machine, or one of this name again after it was powered off, with nothing of what it had.

        Raises:
            NoMachines: this host does not let us.
        """
        self.machines[name] = Machine(self, name, address, ".setup.sh")
        return self.machines[name]

    def check(self, *, seconds: float = 60) -> None:
        """Whether a command can be run on every machine, and each one's SSH server answers the first machine.

        Raises:
            NoMachines: not in time. This host lets machines be made, but not be used.
        """
        first, *_ = self.machines.values()
        for machine in self.machines.values():
            try:
                wait_for("an answer", partial(first.reaches, machine), seconds=seconds)
            except AssertionError as error:
                raise NoMachines(f"{first.name} does not reach {machine.name} over SSH: {error}") from error

    def plug(self, process: int, name: str, address: str) -> None:
        """Connect the network of a process with the switch."""
        cable = self._cables[name] = f"v{next(self._numbers)}"
        self._ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(process))
        self._ip("link", "set", cable, "master", "bridge", "up")
        self._ip("addr", "add", f"{address}/{self._prefix}", "dev", "eth0", of=process)
        self._ip("link", "set", "eth0", "up", of=process)

    def unplug(self, name: str) -> None:
        """Take the cable out; the network of a machine does not notice."""
        self._ip("link", "set", self._cables[name], "down")

    def replug(self, name: str) -> None:
        """Put the cable that was taken out in again."""
        self._ip("link", "set", self._cables[name], "up")

    def _ip(self, *arguments: str, of: int | None = None) -> None:
        process = self._switch.pid if of is None else of
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{process}/ns/net", "ip", *arguments],
            env=os.environ | {"PATH": PATH},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise NoMachines(f"`ip {' '.join(arguments)}` is refused: {done.stderr.strip()}")

    def close(self) -> None:
        """Power everything off."""
        for machine in self.machines.values():
            if machine.on:
                machine.power_off()
            else:
                machine.release()
        self._switch.kill()
        self._switch.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def wait_for(what: str, ready: Callable[[], T], *, seconds: float, every: float = 0.5) -> T:
    """Wait until `ready()` says something that is true, which is returned.

    Raises:
        AssertionError: it is not in time.
    """
    deadline = time.monotonic() + seconds
    while not (said := ready()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every)
    return said
