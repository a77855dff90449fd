"""Debian systems for tests of the Debian package: made by debootstrap, booted by their systemd in namespaces.

A base system of each suite is made once and kept in a cache directory (see `old_clients`). A `System` is an overlay on
it: what a test changes is gone afterwards. Its systemd starts the packaged units of the servers with all restrictions
that these have. Network, processes, mounts and control groups are those of the system alone.

``REDGREASE_TEST_DEBIAN_MIRROR`` is where the packages come from.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .old_clients import CACHE
from .servers import UnavailableError
from .waiting import wait_until

MIRROR = os.environ.get("REDGREASE_TEST_DEBIAN_MIRROR", "http://deb.debian.org/debian")

#: Seconds for debootstrap, which downloads 100 MB.
MAKE_SECONDS_MAX = 1200

#: Seconds for the boot, and for one command in the system.
BOOT_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 120

#: Makes an overlay, and in it what a container has: no devices of the machine, no writable settings of the kernel. Its
#: systemd then becomes process 1. Arguments: the base, a directory for the changes, the control group.
BOOT = """
set -eu
base=$1 changes=$2 group=$3
echo $$ >"$group/cgroup.procs"
exec unshare --mount --pid --uts --ipc --net --cgroup --fork --kill-child --propagation private bash -euc '
root=$2/root
mount -t tmpfs -o size=4g,mode=755 changes "$2/layer"
mkdir "$2/layer/upper" "$2/layer/work"
mount -t overlay -o "lowerdir=$1,upperdir=$2/layer/upper,workdir=$2/layer/work" overlay "$root"
mount -t proc proc "$root/proc"
mount --bind -o ro "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 run "$root/run"
mount -t tmpfs -o mode=755 dev "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
cd "$root"
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=redgrease-test PATH=/usr/sbin:/usr/bin:/sbin:/bin setpriv \
    --bounding-set -sys_time,-sys_module,-sys_rawio,-sys_boot,-syslog,-mknod /lib/systemd/systemd --log-target=console
' boot "$base" "$changes"
"""


@dataclass(frozen=True)
class Suite:
    """A release of Debian, and the server that is installed in it."""

    name: str
    server: str

    @property
    def packages(self) -> str:
        """What is installed beside the minimum, separated by commas."""
        return f"systemd,systemd-sysv,python3,python3-pip,{self.server}-server"

    def base(self) -> Path:
        """The base system, made if it is not there yet. Raises `UnavailableError` with the reason."""
        _require_tools()
        directory = CACHE / f"debian-{self.name}-{self.server}"
        if (directory / "complete").exists():
            return directory / "root"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        command = [
            "debootstrap",
            "--variant=minbase",
            f"--include={self.packages}",
            self.name,
            directory / "root",
            MIRROR,
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=MAKE_SECONDS_MAX)
        assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
        (directory / "complete").touch()
        return directory / "root"


def _require_tools() -> None:
    if os.geteuid() != 0:
        raise UnavailableError("a Debian system is made by root")
    if shutil.which("debootstrap") is None:
        raise UnavailableError("debootstrap is missing: apt-get install debootstrap")
    if (
        subprocess.run(["unshare", "--mount", "--pid", "--cgroup", "--fork", "true"], capture_output=True).returncode
        != 0
    ):
        raise UnavailableError("this machine allows no namespaces of mounts, processes and control groups")
    _control_groups()


def _control_groups() -> Path:
    """Where control groups of version 2 are mounted."""
    done = subprocess.run(["findmnt", "--json", "--types", "cgroup2"], capture_output=True, text=True)
    if done.returncode != 0:
        raise UnavailableError("control groups of version 2 are not mounted")
    return Path(json.loads(done.stdout)["filesystems"][0]["target"])


@dataclass(frozen=True)
class System:
    """A booted system."""

    pid: int
    root: Path

    def run(self, *command: object, code: int | None = 0, text: str = "") -> str:
        """Run a command as root, and return what it prints."""
        done = subprocess.run(
            [*self._enter(), *map(str, command)],
            input=text,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
        )
        assert code is None or done.returncode == code, f"{command}: {done}"
        return done.stdout + done.stderr

    def write(self, path: str, text: str) -> None:
        """Write a file, and make its directory."""
        self.run("mkdir", "-p", os.path.dirname(path))
        self.run("tee", path, text=text)

    def copy(self, source: Path, directory: str) -> str:
        """Copy a file of this machine into the system, and return its path there."""
        target = f"{directory}/{source.name}"
        self.run("mkdir", "-p", directory)
        with source.open("rb") as file:
            subprocess.run(
                [*self._enter(), "tee", target],
                stdin=file,
                stdout=subprocess.DEVNULL,
                check=True,
                timeout=COMMAND_SECONDS_MAX,
            )
        return target

    def _enter(self) -> list[str]:
        """The front of a command that runs in the system."""
        namespaces = ["nsenter", f"--target={self.pid}", "--all", "--root", "--"]
        return [*namespaces, "env", "--ignore-environment", "--chdir=/", "PATH=/usr/sbin:/usr/bin"]


@contextlib.contextmanager
def booted(suite: Suite) -> Iterator[System]:
    """Boot a system, which is gone afterwards. Raises `UnavailableError` with the reason."""
    base = suite.base()
    changes = Path(tempfile.mkdtemp(prefix="redgrease-debian-"))
    (changes / "root").mkdir()
    (changes / "layer").mkdir()
    group = _control_groups() / changes.name
    group.mkdir()
    with (changes / "boot.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", BOOT, "boot", base, changes, group], stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield _wait_until_booted(process, changes)
    finally:
        process.kill()
        process.wait(COMMAND_SECONDS_MAX)
        wait_until(lambda: _remove(group), "the control group is empty")
        shutil.rmtree(changes)


def _wait_until_booted(process: subprocess.Popen[bytes], changes: Path) -> System:
    def log() -> str:
        return (changes / "boot.log").read_text(errors="replace")

    def child() -> int:
        assert process.poll() is None, log()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        return int(children[0]) if children else 0

    pid = wait_until(child, "the system has a first process")
    system = System(pid, changes / "root")

    def state() -> str:
        assert process.poll() is None, log()
        if Path(f"/proc/{pid}/comm").read_text().strip() != "systemd":
            return "no systemd yet"
        return system.run("systemctl", "is-system-running", code=None).strip()

    done = ("running", "degraded")
    wait_until(state, "systemd has started all", until=lambda state: state in done, deadline=BOOT_SECONDS_MAX)
    return system


def _remove(group: Path) -> bool:
    """Remove a control group whose processes have been killed; return whether that was possible."""
    try:
        for directory, _, _ in os.walk(group, topdown=False):
            os.rmdir(directory)
    except OSError:
        return False
    return True
