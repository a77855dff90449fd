"""What users call: a command whose results are kept, and its cache."""

from __future__ import annotations

import pickle
import secrets
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, TypeVar

from redis.exceptions import NoPermissionError, ResponseError

from .. import calls, codec, utils
from ..commands import Commands, ExecuteOptions
from ..data import ExecutionResult
from ..engine import TriggerProxy, gears_of
from ..exceptions import DuplicateTriggerError, OnlyInServerError, ScriptError
from ..exchange import Exchange, Key, Request, is_async, is_cluster
from ..func import DESCRIPTION
from . import shards
from .messages import Refused
from .serving import CODE, CONTROL, FIELDS, Server
from .settings import CacheSettings

if TYPE_CHECKING:
    from ..func import CachedApply, CommandFunction

__all__ = ["CacheError", "CachedCommand", "CachedProxy", "Got", "new_secret", "register"]

T = TypeVar("T")

#: How often a call is repeated after the command's worker died.
_DEATHS_MAX = 2


class CacheError(ResponseError):
    """The cache of a command refused a call; errors of the function itself are not of this class.

    Attributes:
        kind: one word: ``timeout`` (the function ran too long), ``deadlock`` (it waits for itself), ``busy`` (too many
            calls run), ``key`` (something else is stored at the key), ``argument``, ``transaction`` or ``broken``.
        text: a sentence.
    """

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text

    def __reduce__(self) -> Any:
        return type(self), (self.kind, self.text)


class Got(NamedTuple):
    """A result, and where it came from."""

    value: Any
    """What the function returned."""
    outcome: str
    """``"hit"`` (it was kept), ``"created"`` (this call ran the function) or ``"waited"`` (another call ran it)."""


class CachedProxy(TriggerProxy):
    """What a cached command is with any client: its keys, and its exchanges with the server."""

    def __init__(
        self,
        gears: Any,
        name: str,
        function: Callable[..., Any] | None = None,
        settings: CacheSettings | None = None,
        key: str | Callable[..., Any] | None = None,
        secret: bytes = b"",
    ) -> None:
        super().__init__(gears, name, function)
        self._settings = settings or CacheSettings()
        self._function = function
        self._key = key
        self._texts = calls.CallTexts(name, self.__signature__, key)
        self._secret = secret
        self._may_read = self._settings.direct
        self._hits = 0
        self._counting = threading.Lock()

    @property
    def settings(self) -> CacheSettings:
        """The options of the command."""
        return self._settings

    def key_of(self, *args: Any, **kwargs: Any) -> str:
        """Key of the hash that keeps the result of this call."""
        return self.settings.key_of(self._texts(self._sent(args, kwargs)))

    def _sent(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.settings.typed:
            return calls.typed(self.__signature__, args, kwargs)
        return calls.as_texts(calls.positional(self.__signature__, self.trigger, args, kwargs), self.trigger)

    def _text_of(self, key: str | int) -> str:
        """The text of a call, of its text or its key."""
        key = str(key)
        begin, end = self.settings.key_of("\0").split("\0")
        return key[len(begin) : len(key) - len(end)] if key.startswith(begin) and key.endswith(end) else key

    # -- exchanges ---------------------------------------------------------------------------------------------

    def _calling(self, sent: tuple[Any, ...]) -> Exchange[ExecutionResult[Any]]:
        """A call."""
        if self._may_read:
            found = yield from self._reading(self.settings.key_of(self._texts(sent)))
            if found is not None:
                return found
        return (yield from self._asking(sent, *sent))

    def _getting(self, sent: tuple[Any, ...]) -> Exchange[Got]:
        """A call, with its outcome."""
        result = yield from self._asking(sent, CONTROL, "get", *sent)
        outcome, value = result.records[0]
        return Got(value, utils.safe_str(outcome))

    def _forgetting(self, sent: tuple[Any, ...]) -> Exchange[bool]:
        """The invalidation of a call."""
        result = yield from self._asking(sent, CONTROL, "invalidate", *sent)
        return bool(result.records[0])

    def _forgetting_text(self, text: str) -> Exchange[bool]:
        """The invalidation of the call with a text."""
        result = yield from self._asking(text, CONTROL, "invalidate-key", text)
        return bool(result.records[0])

    def _adding_up(self) -> Exchange[dict[str, int]]:
        """The counts of all workers."""
        total = yield from shards.statistics(self._commands, self.trigger, CONTROL, "stats")
        total["hit"] += self._hits
        return total

    def _unregistering(self) -> Exchange[None]:
        """The removal of the command."""
        return shards.unregister(self._commands, self.trigger)

    @property
    def _commands(self) -> Commands:
        commands: Commands = self._server()._commands
        return commands

    def _asking(self, call: tuple[Any, ...] | str, *words: Any) -> Exchange[ExecutionResult[Any]]:
        """Trigger the command for a call, given by its arguments as they are sent, or by its text."""
        key = ""
        if is_cluster(self._server()._redis):
            key = self.settings.key_of(call if isinstance(call, str) else self._texts(call))
        return shards.call(
            self._commands,
            key,
            self.settings.timeout + self.settings.lease,
            self.trigger,
            *words,
            code=CODE,
            refused=CacheError,
            deaths_max=_DEATHS_MAX,
        )

    def _reading(self, key: str) -> Exchange[ExecutionResult[Any] | None]:
        """The result that is kept; `None` if only the command can tell."""
        try:
            value, _, error = yield Request(("HMGET", key, *FIELDS), Key(key))
            if value is None or error is None or error:
                return None
            found = codec.loads(value)
        except NoPermissionError:
            self._may_read = False
            return None
        except (ResponseError, ValueError):  # something else, on another shard, or a pickle: the command decides
            return None
        with self._counting:
            self._hits += 1
        return ExecutionResult(found, None, [found])

    # -- sending it with a function ----------------------------------------------------------------------------

    def __reduce__(self) -> Any:
        return _inside, (self.trigger, self.settings.dumps(), self._pickled())

    def _pickled(self) -> bytes | None:
        """The function; `None` inside its own pickle: it may refer to this command."""
        if self._function is None or self._function in _pickling.functions:
            return None
        import cloudpickle  # type: ignore[import-untyped]

        _pickling.functions.append(self._function)
        try:
            data: bytes = cloudpickle.dumps((self._function, self._key, self._secret), protocol=4)
        finally:
            _pickling.functions.pop()
        return data

    def __repr__(self) -> str:
        return f"<cached command {self.trigger!r}>"


class CachedCommand(CachedProxy):
    """Calls a command whose results are kept, with the name, documentation and parameters of its function.

    Made by `redgrease.command` with ``ttl`` or ``coalesce``. On a cluster each call goes to the shard of its key. A
    call whose worker dies is repeated, at most twice. On a client with coroutines it is an `AsyncCachedCommand`.

    A function that calls it takes it along to the server. There it shares the results, and runs the function, if it
    has to, in the worker of its caller, which waits in its thread.

    Attributes:
        trigger: name of the command.
        settings: its `redgrease.caching.settings.CacheSettings`.
    """

    _made: Server | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> ExecutionResult[Any]:
        """Call the command.

        Returns:
            A `redgrease.data.ExecutionResult` of what the function returned.

        Raises:
            TypeError: the arguments do not fit, or cannot be sent.
            CacheError: the cache refused the call.
            redis.exceptions.ResponseError: the function raised, for all calls that shared its run.
        """
        sent = self._sent(args, kwargs)
        if self._gears is None:
            value = self._here(sent).value
            return ExecutionResult(value, None, [value])
        return self._run(self._calling(sent))

    def get(self, *args: Any, **kwargs: Any) -> Got:
        """As a call, with its outcome."""
        sent = self._sent(args, kwargs)
        return self._here(sent) if self._gears is None else self._run(self._getting(sent))

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of this call; return whether there was one.

        A run that is under way is not used for calls that come later, and its result is not kept.

        Raises:
            CacheError: its key holds something else, which is not changed.
        """
        sent = self._sent(args, kwargs)
        if self._gears is None:
            return bool(_refusing(self._local().invalidate, sent))
        return self._run(self._forgetting(sent))

    def invalidate_key(self, text: str | int) -> bool:
        """Forget the result with a key, as `invalidate`.

        Args:
            text: what ``key=`` gives, or a whole key, as of `key_of`.
        """
        meant = self._text_of(text)
        if self._gears is None:
            return bool(_refusing(self._local().invalidate_key, meant))
        return self._run(self._forgetting_text(meant))

    def stats(self) -> dict[str, int]:
        """Counts of outcomes since the worker (on a cluster: each worker) started.

        ``hit``, ``created`` and ``waited`` add up to all calls; ``failed`` counts those that got an error, and
        ``refreshed`` the runs in the background. ``under_way`` is the number of current runs, ``waiting`` that of the
        calls that wait for them. With ``max_bytes`` also ``entries`` and ``bytes``: what is kept. Not counted are calls
        from functions, and with ``direct`` the hits of other clients.
        """
        return self._run(self._adding_up())

    def unregister(self) -> None:
        """Remove the command. Results stay until they expire."""
        self._run(self._unregistering())

    def _run(self, exchange: Exchange[T]) -> T:
        result: T = self._server()._run(exchange)
        return result

    # -- inside the server -------------------------------------------------------------------------------------

    def _local(self) -> Server:
        """What answers the command's calls in this worker."""
        if "redisgears" not in sys.modules:
            raise OnlyInServerError(f"a command that was sent with a function ({self.trigger})")
        server = Server.all.get(self.trigger)
        if server is None or server.settings.namespace != self.settings.namespace:
            if self._function is None:
                raise CacheError("broken", f"the function of {self.trigger!r} was not sent with this one")
            if self._made is None:
                self._made = Server(self.trigger, self._function, self.settings, self._key, self._secret)
            server = self._made
        return server

    def _here(self, sent: tuple[Any, ...]) -> Got:
        """A call from a function."""
        asyncio = sys.modules.get("asyncio")
        if asyncio is not None and asyncio._get_running_loop() is not None:
            raise TypeError(f"inside a coroutine, use `await asyncio.to_thread({self.trigger}, ...)`: the call waits")
        outcome, answer = _refusing(self._local().call, sent)
        if answer.error:
            word, _, rest = answer.error.partition(" ")
            raise CacheError(*rest.split(" ", 1)) if word == CODE else ScriptError(answer.error)
        return Got(answer.value, outcome)


class _Pickling(threading.local):
    """Functions that this thread is pickling."""

    def __init__(self) -> None:
        self.functions: list[Any] = []


_pickling = _Pickling()


def _inside(name: str, settings: str, pickled: bytes | None) -> CachedCommand:
    """A command that was sent to the server with a function that calls it."""
    function, key, secret = (None, None, b"") if pickled is None else pickle.loads(pickled)
    return CachedCommand(None, name, function, CacheSettings.loads(settings), key, secret)


def _refusing(function: Callable[..., Any], *args: Any) -> Any:
    try:
        return function(*args)
    except Refused as refused:
        raise CacheError(refused.kind, refused.text) from None


def new_secret() -> bytes:
    """A secret for the workers of a new command."""
    return secrets.token_bytes(32)


def register(
    function: CommandFunction[Any],
    applied: CachedApply,
    server: Any,
    requirements: Iterable[Any] | None,
    replace: bool | None,
) -> Any:
    """Register a cached command on a server, or on all shards of a cluster.

    Args:
        function: the command.
        applied: its only step.
        server: the argument ``on``.
        requirements: packages in addition to those of the function.
        replace: as in `redgrease.ClosedGearFunction.on`.

    Returns:
        An `ExecutionResult` of a `CachedCommand`. With a client with coroutines an `AsyncCachedCommand`, which
        registers itself when it is awaited or called.

    Raises:
        redgrease.exceptions.DuplicateTriggerError: the command exists, and `replace` is `None`.
        ValueError: `replace` is false, and the command that exists keeps no results.
    """
    gears = gears_of(server)
    options = ExecuteOptions(requirements=None if requirements is None else list(requirements), replace=replace or None)

    def registering() -> Exchange[CacheSettings]:
        try:
            yield from gears._commands.pyexecute(function, options)
        except DuplicateTriggerError:
            if replace is None:
                raise
            return (yield from _registered(gears._commands, applied.name))
        return applied.settings

    if not is_async(gears._redis):
        return ExecutionResult(applied.proxy(gears, applied.name, gears._run(registering())))
    return applied.proxy(gears, applied.name, registering=registering)


def _registered(commands: Commands, name: str) -> Exchange[CacheSettings]:
    """The settings of a command that exists."""
    for registration in (yield from commands.dumpregistrations(reader="CommandReader", trigger=name)):
        text = utils.safe_str(registration.desc)
        if text.startswith(DESCRIPTION):
            return CacheSettings.loads(text[len(DESCRIPTION) :])
    raise ValueError(f"a command {name!r} exists, and it keeps no results: use replace=True to replace it")
