# ruff: noqa: N803 - names as users of the original know them
"""Decorator that turns a function into a command.

>>> import redgrease
>>> @redgrease.command(requirements=["requests"])
... def fetch(url):
...     return requests.get(url).content
>>> fetch
CommandReader().map(Apply(fetch)).register(mode='async', trigger='fetch')
"""

from __future__ import annotations

import uuid
from typing import Any, Callable

from .reader import CommandReader

__all__ = ["command", "trigger"]


def command(
    trigger: Any = None,
    prefix: str = "*",
    collect: bool = True,
    mode: str | None = "async",
    onRegistered: Callable[[], None] | None = None,
    **kargs: Any,
) -> Any:
    """Turn a function into a custom command; usable with or without arguments.

    Args:
        trigger: name of the command; default: the function's name; ``...``: a unique name.
        prefix: ignored for commands.
        collect: whether results of all shards are collected.
        mode: see `redgrease.TriggerMode`. On a cluster the default, ``"async"``, runs the function on **every**
            shard and answers with a list; ``"async_local"`` runs it once, on the shard that was asked.
        onRegistered: called once on every shard when the command is registered.
        kargs: further arguments of `redgrease.OpenGearFunction.register`: ``on`` (a client: register there at once),
            ``requirements`` (packages that the function needs), ``replace`` (`None`: an existing command of that
            name raises; `False`: it stays; `True`: it is replaced), ``inorder``, ``convertToStr``.

    Returns:
        A decorator. The function becomes a closed gear function, whose ``.on(client)`` registers it; with ``on``, a
        callable that triggers the command and returns its `redgrease.data.ExecutionResult`.

    >>> @command
    ... def ping():
    ...     return "pong"
    >>> ping
    CommandReader().map(Apply(ping)).register(mode='async', trigger='ping')
    """
    if callable(trigger):
        return command()(trigger)
    name = str(uuid.uuid4()) if trigger is ... else trigger

    def decorate(function: Callable[..., Any]) -> Any:
        return (
            CommandReader()
            .apply(function)
            .register(
                prefix=prefix,
                collect=collect,
                mode=mode,
                onRegistered=onRegistered,
                trigger=name or getattr(function, "__name__", None),
                **kargs,
            )
        )

    return decorate


trigger = command
"""Old name of `command`."""
