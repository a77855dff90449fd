"""The program that loads scripts, with Python's logging: ``python -m redgrease.cli --log-config FILE PATH``.

The command `redgrease` runs this module for ``--log-config``, and otherwise does the same without Python.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence

import redis.exceptions

from . import _native
from .formatting import initialize_logger
from .loader import _write

__all__ = ["main"]

_USAGE_ERROR = 2


def main(args: Sequence[str] | None = None) -> int:
    """Load the scripts that a command line names, and watch them with ``--watch``.

    Args:
        args: the words after the name of the program; default: those of this process.

    Returns:
        The exit code, see the page "Command line".

    Raises:
        SystemExit: for ``--help`` and for options that are wrong.
    """
    try:
        program = _native.LoaderProgram(["redgrease", *(sys.argv[1:] if args is None else args)])
        initialize_logger(program.log_level.upper(), config=program.log_config)
    except (ValueError, FileNotFoundError) as error:
        print(f"redgrease: {error}", file=sys.stderr)
        return _USAGE_ERROR
    if threading.current_thread() is threading.main_thread():
        # It ends a watch as Ctrl-C does.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return program.run(_write)
    except (redis.exceptions.RedisError, OSError, ValueError) as error:
        logging.getLogger("redgrease.loader").error("%s", error)
        return int(getattr(error, "exit_code", 1))


if __name__ == "__main__":
    sys.exit(main())
