"""Exchanges with commands that keep things: all shards of a cluster have the command, and each key has its shard."""

from __future__ import annotations

import random
import time
from typing import Any, Callable

from redis.exceptions import ResponseError, TryAgainError

from .. import utils
from ..commands import Commands
from ..data import ExecutionResult
from ..exceptions import ScriptError
from ..exchange import Exchange, Key, OnEachShard, Pause

__all__ = ["call", "statistics", "unregister"]

#: Shortest and longest pause between two attempts while a slot is moved or a worker replaced, in seconds.
_PAUSE = (0.02, 0.1)


def call(
    commands: Commands,
    key: str,
    patience: float,
    trigger: str,
    *arguments: Any,
    code: str,
    refused: Callable[[str, str], ResponseError],
    deaths_max: int = 0,
) -> Exchange[ExecutionResult[Any]]:
    """Trigger a command on the shard of a key.

    Args:
        commands: those of the client.
        key: decides on the shard.
        patience: seconds that the command may take.
        trigger: name of the command.
        arguments: its arguments.
        code: first word of error replies of the cache itself.
        refused: makes the exception of such an error, from its kind and text.
        deaths_max: how often the call is repeated after the command's worker died while it ran.

    Raises:
        redis.exceptions.ResponseError: the error of the command.
    """
    end = time.monotonic() + patience
    deaths = 0
    while True:
        try:
            return (yield from commands.trigger(trigger, arguments, Key(key), patience))
        except TryAgainError:  # the slot is between two shards
            if time.monotonic() > end:
                raise
        except ScriptError as error:
            word, _, rest = error.raw.partition(" ")
            if word == code:
                kind, _, text = rest.partition(" ")
                raise refused(kind, text) from None
            deaths += word == "WORKERDIED"
            # The worker has died, before the request started or while it ran; a new one will be ready soon.
            again = (word == "WORKERDOWN" and rest.endswith("try again")) or (
                word == "WORKERDIED" and deaths <= deaths_max
            )
            if not again or time.monotonic() > end:
                raise
        yield Pause(random.uniform(*_PAUSE))


def statistics(commands: Commands, trigger: str, *arguments: Any) -> Exchange[dict[str, int]]:
    """Trigger a command that answers with counts on all shards, and add them up."""
    total: dict[str, int] = {}
    for counts in (yield OnEachShard(lambda: commands.trigger(trigger, arguments))).values():
        for name, count in utils.to_kwargs(counts.records[0]).items():
            total[name] = total.get(name, 0) + int(count)
    return total


def unregister(commands: Commands, trigger: str) -> Exchange[None]:
    """Remove a command."""
    for found in (yield from commands.dumpregistrations(reader="CommandReader", trigger=trigger)):
        yield from commands.unregister(found.id, abort_pending=False)
