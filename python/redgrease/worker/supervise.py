"""The parent of a worker: ends everything that the worker's code started once the worker or the server has ended.

A process that calls ``setsid`` leaves the worker's process group and keeps running when its parent dies, so a signal to
the group does not reach it. The parent of the worker is a subreaper: descendants that lose their own parent become its
children, whatever group or session they moved to, and appear in its list of children. The server cannot be the
subreaper itself: it would inherit unknown processes, and the flag applies to a whole process. The parent is forked
before any import, so that it needs no second start of the interpreter and shares most of its memory with the worker.

It exits with the worker's exit status: the server sees one child that ends as the worker ended.
"""

# `_signal`, the extension module behind `signal`: importing `signal` makes enumerations and costs a millisecond.
import _signal  # type: ignore[import-not-found]
import contextlib
import os
import time

from redgrease import _native

#: Signals that the parent waits for: the server has ended (or requests the end), a child has ended.
_SIGNALS = (_signal.SIGTERM, _signal.SIGCHLD)

#: Seconds in which all descendants of the worker must have ended, unless new ones are started faster.
_END_SECONDS_MAX = 5.0


def become(user):
    """Change to a user, given as ``UID:GID``, and to no other groups."""
    uid, gid = map(int, user.split(":"))
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    # Otherwise the kernel hides the process from its own user, and from itself.
    _native.make_visible()


def split():
    """Fork the worker; returns only in the worker."""
    _native.become_supervisor()
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _SIGNALS)
    parent = os.getpid()
    worker = os.fork()
    if worker == 0:
        # A separate group, without the parent: the server signals the whole group.
        os.setpgid(0, 0)
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, _SIGNALS)
        _native.bind_to_parent()
        if os.getppid() != parent:
            os._exit(1)
        return
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    # Neither socket nor pipes: the server sees at once when the worker closes them.
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in _descriptors():
        if descriptor != null:
            os.dup2(null, descriptor)
    _end_as(_wait(worker))


def _descriptors():
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return (0, 1, 2)
    found = []
    for name in names:
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the descriptor of the listing
        found.append(int(name))
    return found


def _wait(worker):
    """Wait for the worker's end, kill its remaining descendants, and return its wait status."""
    status = None
    while status is None:
        if _signal.sigwait(_SIGNALS) == _signal.SIGTERM:
            _kill(worker)
        # One signal may stand for several children, orphans of the worker among them.
        status = _reap(worker)
    # The group ends with its last member; processes that left it are children now, or when their parent has ended.
    deadline = time.monotonic() + _END_SECONDS_MAX
    while time.monotonic() < deadline:
        children = _children()
        if not children:
            break
        for child in children:
            _kill(child)
        if not _reap_one():
            break
        _reap(0)
    return status


def _reap(worker):
    """Reap all children that have ended; return the status of ``worker`` if it is among them."""
    status = None
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == worker:
            status = ended


def _reap_one():
    """Wait until a killed child has ended; return False if there is none."""
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        return False
    return True


def _children():
    """Return the children of this process."""
    me = os.getpid()
    try:
        with open(f"/proc/self/task/{me}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        pass  # a kernel without that file
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    parent = int(file.read().rpartition(")")[2].split()[1])
            except OSError:
                continue  # it has ended meanwhile
            if parent == me:
                found.append(int(name))
    return found


def _kill(pid):
    with contextlib.suppress(OSError):  # it has ended, or runs as another user
        os.kill(pid, _signal.SIGKILL)


def _end_as(status):
    """End this process with the wait status of another one."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
