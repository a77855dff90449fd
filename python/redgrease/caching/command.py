"""What users call: a command whose results are kept, and its cache."""

from __future__ import annotations

import pickle
import secrets
import sys
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Callable, NamedTuple

from redis.exceptions import NoPermissionError, ResponseError

from .. import calls, codec, utils
from ..data import ExecutionResult
from ..engine import Gears, TriggerProxy, gears_of
from ..exceptions import DuplicateTriggerError, OnlyInServerError, ScriptError
from ..exchange import is_async, is_cluster
from ..func import DESCRIPTION
from ..gears import ClosedGearFunction
from ..link import client_of_node
from . import shards
from .messages import Refused
from .serving import CODE, CONTROL, FIELDS, Server
from .settings import CacheSettings

if TYPE_CHECKING:
    from ..func import CachedApply, CommandFunction

__all__ = ["CacheError", "CachedCommand", "Got", "new_secret", "register"]

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


class CachedCommand(TriggerProxy):
    """Calls a command whose results are kept, with the name, documentation and parameters of its function.

    Made by `redgrease.command` with ``ttl`` or ``coalesce``. On a cluster each call goes to the shard of its key. A
    call whose worker dies is repeated, at most twice.

    A function that calls it takes it along to the server. There it shares the results, and runs the function, if it
    has to, in the worker of its caller, which waits in its thread.

    Attributes:
        trigger: name of the command.
        settings: its `redgrease.caching.settings.CacheSettings`.
    """

    def __init__(
        self,
        gears: Gears | None,
        name: str,
        function: Callable[..., Any] | None = None,
        settings: CacheSettings | None = None,
        key: str | Callable[..., Any] | None = None,
        secret: bytes = b"",
    ) -> None:
        super().__init__(gears, name, function)
        self.settings = settings or CacheSettings()
        self._function = function
        self._key = key
        self._texts = calls.CallTexts(name, self.__signature__, key)
        self._secret = secret
        self._made: Server | None = None
        self._may_read = self.settings.direct
        self._hits = 0
        self._counting = threading.Lock()

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
        if self._may_read:
            found = self._read(self.settings.key_of(self._texts(sent)))
            if found is not None:
                return found
        return self._ask(sent, *sent)

    def get(self, *args: Any, **kwargs: Any) -> Got:
        """As a call, with its outcome."""
        sent = self._sent(args, kwargs)
        if self._gears is None:
            return self._here(sent)
        outcome, value = self._ask(sent, CONTROL, "get", *sent).records[0]
        return Got(value, utils.safe_str(outcome))

    def key_of(self, *args: Any, **kwargs: Any) -> str:
        """Key of the hash that keeps the result of this call."""
        return self.settings.key_of(self._texts(self._sent(args, kwargs)))

    def invalidate(self, *args: Any, **kwargs: Any) -> bool:
        """Forget the result of this call; return whether there was one.

        A run that is under way is not used for calls that come later, and its result is not kept.

        Raises:
            CacheError: its key holds something else, which is not changed.
        """
        sent = self._sent(args, kwargs)
        if self._gears is None:
            return bool(_refusing(self._local().invalidate, sent))
        return bool(self._ask(sent, CONTROL, "invalidate", *sent).records[0])

    def invalidate_key(self, text: str) -> bool:
        """Forget the result with a key, as `invalidate`.

        Args:
            text: what ``key=`` gives, or a whole key, as of `key_of`.
        """
        begin, end = self.settings.key_of("\0").split("\0")
        if text.startswith(begin) and text.endswith(end):
            text = text[len(begin) : len(text) - len(end)]
        if self._gears is None:
            return bool(_refusing(self._local().invalidate_key, text))
        return bool(self._ask(text, CONTROL, "invalidate-key", text).records[0])

    def stats(self) -> dict[str, int]:
        """Counts of outcomes since the worker (on a cluster: each worker) started.

        ``hit``, ``created`` and ``waited`` add up to all calls; ``failed`` counts those that got an error, and
        ``refreshed`` the runs in the background. ``under_way`` is the number of current runs, ``waiting`` that of the
        calls that wait for them. With ``max_bytes`` also ``entries`` and ``bytes``: what is kept. Not counted are calls
        from functions, and with ``direct`` the hits of other clients.
        """
        total: dict[str, int] = {}
        for gears in shards.shards(self._redis):
            for name, count in utils.to_kwargs(gears.trigger(self.trigger, CONTROL, "stats").records[0]).items():
                total[name] = total.get(name, 0) + int(count)
        total["hit"] += self._hits
        return total

    def unregister(self) -> None:
        """Remove the command. Results stay until they expire."""
        for gears in shards.shards(self._redis):
            for registration in gears.dumpregistrations(reader="CommandReader", trigger=self.trigger):
                gears.unregister(registration.id)

    @property
    def _redis(self) -> Any:
        return self._server()._redis

    def _sent(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.settings.typed:
            return calls.typed(self.__signature__, args, kwargs)
        return calls.as_texts(calls.positional(self.__signature__, self.trigger, args, kwargs), self.trigger)

    def _ask(self, call: tuple[Any, ...] | str, *words: Any) -> ExecutionResult[Any]:
        """Trigger the command for a call, given by its arguments as they are sent, or by its text."""
        redis, key = self._redis, ""
        if is_cluster(redis):
            key = self.settings.key_of(call if isinstance(call, str) else self._texts(call))
        return shards.call(
            redis,
            key,
            self.settings.timeout + self.settings.lease,
            self.trigger,
            *words,
            code=CODE,
            refused=CacheError,
            deaths_max=_DEATHS_MAX,
        )

    def _read(self, key: str) -> ExecutionResult[Any] | None:
        """The result that is kept; `None` if only the command can tell."""
        redis = self._redis
        node = client_of_node(redis, redis.get_node_from_key(key)) if is_cluster(redis) else redis
        try:
            value, _, error = node.execute_command("HMGET", key, *FIELDS, NEVER_DECODE=True)
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
    """Register a cached command on a server, or on all primaries of a cluster.

    Args:
        function: the command.
        applied: its only step.
        server: the argument ``on``.
        requirements: packages in addition to those of the function.
        replace: as in `redgrease.ClosedGearFunction.on`.

    Returns:
        An `ExecutionResult` of a `CachedCommand`.

    Raises:
        redgrease.exceptions.DuplicateTriggerError: the command exists, and `replace` is `None`.
        TypeError: the client is one with coroutines.
        ValueError: `replace` is false, and the command that exists keeps no results.
    """
    redis = shards.client_of(server)
    if is_async(redis):
        raise TypeError(
            f"{applied.name}: a client with coroutines cannot register a command that keeps results: use "
            "redgrease.RedisGears, and in coroutines `await asyncio.to_thread(command, ...)`"
        )
    settings = None
    for gears in shards.shards(redis):
        try:
            ClosedGearFunction.on(function, gears, requirements=requirements, replace=replace or None)
        except DuplicateTriggerError:
            if replace is None:
                raise
            settings = _registered(gears, applied.name)
    return ExecutionResult(applied.proxy(gears_of(server), applied.name, settings))


def _registered(gears: Gears, name: str) -> CacheSettings:
    """The settings of a command that exists."""
    for registration in gears.dumpregistrations(reader="CommandReader", trigger=name):
        text = utils.safe_str(registration.desc)
        if text.startswith(DESCRIPTION):
            return CacheSettings.loads(text[len(DESCRIPTION) :])
    raise ValueError(f"a command {name!r} exists, and it keeps no results: use replace=True to replace it")
