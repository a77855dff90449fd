"""The stress tool: many processes read and write one cache, and its invariants are checked at the end.

``python -m redgrease.filecache.stress --processes 6 --duration 30 --write-prob 0.20`` runs the command
``redgrease cache stress`` with the same arguments; see ``--help``.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from collections.abc import Sequence

COMMAND = "redgrease"


def find_command() -> str:
    """Path of the command `redgrease`: the one installed with this package, or else the first on PATH."""
    folders = (sysconfig.get_path("scripts"), os.path.dirname(sys.executable), None)
    found = next(filter(None, (shutil.which(COMMAND, path=folder) for folder in folders)), None)
    if found is None:
        looked = ", ".join(folder for folder in folders if folder)
        raise FileNotFoundError(
            f"the command `{COMMAND}` is neither in {looked} nor on PATH: install the package redgrease, "
            "or run `make build` in a checkout"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Replace this process by the stress tool; does not return.

    Args:
        arguments: the command-line arguments; those of this process by default.
    """
    try:
        command = find_command()
    except FileNotFoundError as error:
        sys.exit(str(error))
    words = sys.argv[1:] if arguments is None else arguments
    os.execv(command, [command, "cache", "stress", *words])


if __name__ == "__main__":
    main()
