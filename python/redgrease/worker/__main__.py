"""Start of a worker process: ``python -m redgrease.worker --fd N``.

Options: ``--supervise``, ``--user UID:GID``, ``--memory-max BYTES``, and ``--confine PATHS`` with the directories,
separated by colons, where a confined worker may change files.
"""

import contextlib
import io
import os
import sys


def main(argv):
    """Prepare the process, then serve until the server ends it."""
    options = _options(argv)
    if options is None:
        sys.stderr.write(
            "usage: python -m redgrease.worker --fd N [--supervise] [--memory-max BYTES] [--confine PATHS]"
            " (started by the server's module, not by hand)\n"
        )
        return 2
    # `-m` puts the current directory first: a file there must not shadow a module that is imported later.
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

    from redgrease import _native

    if "--user" in options:
        from redgrease.worker import supervise

        supervise.become(options["--user"])
    if "--supervise" in options:
        from redgrease.worker import supervise

        supervise.split()
    else:
        _native.bind_to_parent()
    # The socket may be standard input: move it to another descriptor, which no child inherits.
    given = int(options["--fd"])
    socket = os.dup(given)
    _close_others(socket)
    _ignore_terminal()
    _disconnect_forks()
    confined = options.get("--confine")
    paths = [path for path in (confined or "").split(":") if path]
    isolation = _native.isolate(int(options.get("--memory-max", "0")), confined is not None, paths)

    from redgrease.worker import runtime, sessions
    from redgrease.worker.errors import describe

    runtime.install(sys.modules["__main__"])
    # A busy thread releases the GIL twice per millisecond, so that short functions in other threads do not wait long.
    sys.setswitchinterval(0.0005)
    version = ".".join(map(str, sys.version_info[:3]))
    _native.serve(socket, sessions.Sessions(), describe, version, _native.VERSION, isolation)
    return 0


def _options(argv):
    """Return the options of the command line with their values; ``None`` if it is not valid."""
    options = {}
    words = iter(argv)
    for word in words:
        if word == "--supervise":
            options[word] = ""
        elif word in ("--fd", "--memory-max", "--confine", "--user"):
            options[word] = next(words, "")
        else:
            return None
    numbers = (options.get("--fd", ""), options.get("--memory-max", "0"))
    return options if all(number.isdigit() for number in numbers) else None


def _close_others(socket):
    """Close descriptors that were inherited by accident: the server opens its log without close-on-exec."""
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        if int(name) > 2 and int(name) != socket:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
                os.close(int(name))


def _disconnect_forks():
    """Take the socket from each child that the worker's code forks: two processes on it would mix their frames."""
    from redgrease import _native

    def disconnect(open=os.open, dup2=os.dup2, close=os.close, null=os.devnull, mode=os.O_RDWR):
        socket = _native.mark_forked()
        if socket is not None:
            descriptor = open(null, mode)
            dup2(descriptor, socket, inheritable=False)
            close(descriptor)

    os.register_at_fork(after_in_child=disconnect)


def _ignore_terminal():
    """Leave input and Ctrl-C to the server; flush output line by line."""
    import _signal  # type: ignore[import-not-found]
    import faulthandler

    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    faulthandler.enable()
    null = os.open(os.devnull, os.O_RDONLY)
    if null != 0:
        os.dup2(null, 0)
        os.close(null)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")


if __name__ == "__main__":
    # No destructors and no exit handlers: threads may still run users' code.
    os._exit(main(sys.argv[1:]))
