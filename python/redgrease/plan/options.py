"""The keywords of the server's ``run`` and ``register``, for client and worker."""

from __future__ import annotations

READER_OPTIONS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "run": (
        ("mode",),
        {
            "KeysReader": ("noScan", "readValue"),
            "KeysOnlyReader": ("count", "noScan", "patternGenerator"),
            "StreamReader": ("fromId", "pattern"),
            "PythonReader": (),
            "ShardsIDReader": (),
        },
    ),
    "register": (
        ("mode", "onRegistered", "regex"),
        {
            "KeysReader": ("eventTypes", "keyTypes", "readValue", "noScan", "commands", "unknownEvents"),
            "StreamReader": ("batch", "duration", "onFailedPolicy", "onFailedRetryInterval", "trimStream"),
            "CommandReader": ("trigger", "hook", "keyprefix", "inorder"),
        },
    ),
}
"""By action: keywords of all readers, and those of each reader that has this action."""
