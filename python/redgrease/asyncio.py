"""Clients with coroutines: those of `redis.asyncio`, with the commands of the engine under ``.gears``.

Everything is as in `redgrease.Gears`, and awaited. Gear functions are the same objects; their results are awaited, too:

>>> import redgrease
>>> from redgrease.asyncio import RedisGears
>>> async def main():
...     async with RedisGears() as r:
...         await r.set("Foo-fighter", 2021)
...         print(await redgrease.KeysReader("*-fighter").values().map(int).run(on=r))
...
...         @redgrease.command(on=r, replace=True)
...         def double(number):
...             return 2 * int(number)
...
...         print(await double(21))  # the first call registers it; so does `await double`

A call that is cancelled closes its connection, so that a late reply reaches no other call; on the server the function
continues. As with other clients, a command that starts something is sent once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, overload

import redis.asyncio
import redis.asyncio.cluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ConnectionError,
    MaxConnectionsError,
    MovedError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    TimeoutError,
)

from .client import Arguments, Either, is_enabled, may_be_cluster, modern, module_list, place_of, probing
from .commands import Commands, ExecuteOptions, ExecutionID, RegistrationID, SessionID, applied
from .config import get_option, get_options, set_options
from .data import (
    ClusterInfo,
    ExecLocality,
    ExecutionInfo,
    ExecutionPlan,
    ExecutionResult,
    ExecutionStatus,
    ExportedRequirement,
    PluginInfo,
    PyRequirementInfo,
    PySessionInfo,
    PyStats,
    Registration,
)
from .engine import TriggerProxy
from .exceptions import is_error_reply, redis_error, redis_reply
from .exchange import (
    MARGIN,
    RAW,
    REDIRECTIONS_MAX,
    Exchange,
    Key,
    NotSentError,
    OnEachShard,
    Owner,
    Pause,
    Request,
    Shards,
    is_async,
    is_cluster,
    is_foreign,
    late,
    name_for_pool,
)
from .gearialization import trigger_name
from .gears import ClosedGearFunction, GearFunction
from .link import is_repeatable, node_after
from .reader import Apply
from .requirements import PackageOption

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .engine import SessionOptions

__all__ = ["Command", "Config", "Gears", "Redis", "RedisCluster", "RedisGears", "RedisMods"]

T = TypeVar("T")
_R = TypeVar("_R", bound="Redis")


# --------------------------------------------------------------------------------------------------------------
# Sending
# --------------------------------------------------------------------------------------------------------------


class Link:
    """Sends requests through a client of `redis.asyncio` or `valkey.asyncio`, see `redgrease.link.Link`."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self.is_cluster = is_cluster(redis)
        self._is_foreign = is_foreign(redis)
        self._owners: dict[str, Any] = {}
        self._is_outdated = False
        self._refreshing = Shared()

    async def run(self, exchange: Exchange[T]) -> T:
        """Perform the steps of an exchange, one after the other, and return its result."""
        try:
            step = next(exchange)
            while True:
                try:
                    reply = await self.perform(step)
                except Exception as error:
                    step = exchange.throw(redis_error(error))
                else:
                    step = exchange.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def perform(self, step: Request | Pause | OnEachShard) -> Any:
        """Send a request and return the reply, or the replies by shard; or pause; or run an exchange on each shard."""
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, OnEachShard):
            return await self._on_each_shard(step)
        if not self.is_cluster:
            try:
                reply = await self._exchange(self.redis, step)
            except NotSentError as failed:
                error = failed.error
            else:
                return {"": reply} if step.to is Shards.ALL else reply
            raise error
        return await self._in_cluster(step)

    # -- nodes of a cluster ------------------------------------------------------------------------------------

    async def _on_each_shard(self, step: OnEachShard) -> dict[str, Any]:
        if not self.is_cluster:
            return {"": await self.run(step.start())}
        await self._prepare()
        try:
            return {node.name: await Link(node).run(step.start()) for node in self.redis.get_primaries()}
        except (ConnectionError, ReadOnlyError) as reason:
            self._is_outdated |= not isinstance(reason, MaxConnectionsError)
            raise

    async def _in_cluster(self, request: Request) -> Any:
        await self._prepare()
        try:
            if request.to is Shards.ALL:
                return await self._to_all(request)
            if isinstance(request.to, Key):
                return await self._to_key(request, request.to.name)
            node = await self._owner(request.to.shard_id) if isinstance(request.to, Owner) else None
            return await (self._exchange(node, request) if node else self._to_any(request))
        except NotSentError as failed:
            self._is_outdated = True
            error = failed.error
        except (ConnectionError, ReadOnlyError) as reason:
            self._is_outdated |= not isinstance(reason, MaxConnectionsError)
            raise
        raise error

    async def _prepare(self) -> None:
        """Know the nodes."""
        await self.redis.initialize()
        if self._is_outdated:
            await self._refresh()

    async def _refresh(self) -> None:
        """Ask the cluster for its nodes, once for all tasks that need them.

        If none answers, nothing changes: sending raises the reason.
        """
        with contextlib.suppress(Exception):  # of either library
            await self._refreshing.run(self._ask_nodes)

    async def _ask_nodes(self) -> None:
        manager = self.redis.nodes_manager
        for node in list(manager.startup_nodes.values()):
            for connection in list(node._free):
                if connection in node._free:  # no other task has it meanwhile, nor gets it
                    node._free.remove(connection)
                    try:
                        await _close_if_ended(connection)
                    finally:
                        node._free.append(connection)
        await manager.initialize()
        self._owners = {}
        self._is_outdated = False

    async def _owner(self, shard_id: str) -> Any:
        """The node with an id; `None` if there is none."""
        if shard_id not in self._owners:
            for node in self.redis.get_primaries():
                node_id = await self._exchange(node, Request(("CLUSTER MYID",)))
                self._owners[node_id.decode() if isinstance(node_id, bytes) else node_id] = node
        return self._owners.get(shard_id)

    async def _to_all(self, request: Request) -> dict[str, Any]:
        """Send to all nodes; if one cannot be reached, a request that may be repeated is sent to the current ones."""
        try:
            return {node.name: await self._exchange(node, request) for node in self.redis.get_primaries()}
        except NotSentError:
            if request.once:
                raise
        await self._refresh()
        return {node.name: await self._exchange(node, request) for node in self.redis.get_primaries()}

    async def _to_any(self, request: Request) -> Any:
        """Send to a node that can be reached, and is no replica by now."""
        nodes = self.redis.get_primaries()
        reason: Exception = RedisClusterException("the cluster has no nodes")
        for node in random.sample(nodes, len(nodes)):
            try:
                return await self._exchange(node, request)
            except (NotSentError, ReadOnlyError) as error:
                self._is_outdated = True
                reason = error
            except MovedError as error:  # it depends on the arguments, as for commands whose results are kept
                node = node_after(self.redis, error)
                if node is None:
                    raise
                return await self._exchange(node, request)
        raise reason

    async def _to_key(self, request: Request, key: Any) -> Any:
        """Send to the node that holds a key. A node that does not hold it, or is a replica, has not run the command."""
        node = self.redis.get_node_from_key(key)
        moves = 0
        while True:
            try:
                return await self._exchange(node, request)
            except (MovedError, NotSentError, ReadOnlyError) as error:
                moves += 1
                await self._refresh()
                before, node = node, node_after(self.redis, error, key)
                if moves > REDIRECTIONS_MAX or node.name == before.name:
                    raise

    # -- one node ----------------------------------------------------------------------------------------------

    async def _exchange(self, client: Any, request: Request) -> Any:
        """As that of `redgrease.link.Link`."""
        try:
            reply = await _sent(client, request)
        except Exception as error:
            reason = error.error if isinstance(error, NotSentError) else error
            ours = redis_error(reason)
            if is_repeatable(error, ours, request):
                raise NotSentError(ours) from error
            if ours is error:
                raise
            raise ours from (reason.__cause__ if ours is reason else reason)
        return redis_reply(reply) if self._is_foreign else reply


class Shared:
    """Runs a coroutine once for all tasks that wait for it at the same time; cancelling them does not cancel it."""

    def __init__(self) -> None:
        self._task: asyncio.Future[Any] | None = None

    async def run(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Call a coroutine function, unless it runs already, and return its result."""
        task = self._task
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._task = asyncio.ensure_future(function())
            task.add_done_callback(_retrieve)
        result: T = await asyncio.shield(task)
        return result


def _retrieve(task: asyncio.Future[Any]) -> None:
    """Look at the exception of a task for which nothing may wait any more; otherwise asyncio logs it."""
    if not task.cancelled():
        task.exception()


async def _sent(client: Any, request: Request) -> Any:
    if hasattr(client, "acquire_connection"):
        return await _at_node(client, request)
    if not hasattr(client, "connection_pool"):
        return await client.execute_command(*request.args, **RAW)
    try:
        return await _sent_once(client, request)
    except Exception as error:
        if request.once or not isinstance(redis_error(error), ConnectionError):
            raise
    # With the retries of the client.
    return await client.execute_command(*request.args, **RAW)


async def _sent_once(client: Any, request: Request) -> Any:
    pool = client.connection_pool
    if client.single_connection_client:
        await client.initialize()
        async with client._single_conn_lock:
            return await _on_connection(client.connection, request)
    try:
        connection = await pool.get_connection(*name_for_pool(pool, request.args[0]))
    except Exception as error:
        raise NotSentError(error) from error
    try:
        return await _on_connection(connection, request)
    finally:
        await pool.release(connection)


async def _at_node(node: Any, request: Request) -> Any:
    """Send to a node of a cluster, whose client has no pools."""
    try:
        connection = node.acquire_connection()
    except Exception as error:  # of either library; without a text
        text = f"all {node.max_connections} connections to {node.name} are in use: give the client max_connections="
        raise type(error)(text) from None
    try:
        # New versions of redis-py mark connections as outdated.
        if hasattr(node, "disconnect_if_needed"):
            await node.disconnect_if_needed(connection)
        return await _on_connection(connection, request)
    finally:
        getattr(node, "release", node._free.append)(connection)


async def _on_connection(connection: Any, request: Request) -> Any:
    """Send a command on a connection and read its reply."""
    await _close_if_ended(connection)
    try:
        if not connection.is_connected:
            await _connect(connection)
        with _patience(connection, request):
            await connection.send_command(*request.args)
            return await connection.read_response(disable_decoding=True)
    except BaseException as error:
        was_closed = isinstance(error, AttributeError) and not connection.is_connected
        if not is_error_reply(error):
            # A late reply must not be taken for the reply to another command.
            await connection.disconnect(nowait=True)
        if was_closed:
            raise ConnectionError(_CLOSED) from error
        raise


#: valkey-py, and redis-py before 7, close all connections when they ask a cluster for its nodes, and then use `None`.
_CLOSED = "the connection was closed by another task"


async def _connect(connection: Any) -> None:
    try:
        await connection.connect()
    except Exception as error:
        was_closed = isinstance(error, AttributeError) and not connection.is_connected
        raise NotSentError(ConnectionError(_CLOSED) if was_closed else error) from error


async def _close_if_ended(connection: Any) -> None:
    """Close a connection that the server has closed since the last command, as it does at its restart.

    Sending opens it again.
    """
    if not connection.is_connected:
        return
    if _is_readable(connection._writer):
        # The event loop has not read it yet: it does so before this task continues for the second time.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    reader, writer = connection._reader, connection._writer
    if reader is not None and (writer.is_closing() or reader.at_eof() or reader.exception() is not None):
        await connection.disconnect(nowait=True)


def _is_readable(writer: Any) -> bool:
    """Whether something has arrived on a connection, or its end."""
    socket = writer.get_extra_info("socket")
    if socket is None or writer.is_closing():
        return False
    if not hasattr(select, "poll"):
        return bool(select.select([socket], [], [], 0)[0])
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(0))


@contextlib.contextmanager
def _patience(connection: Any, request: Request) -> Iterator[None]:
    """Let a connection wait for as long as a request allows."""
    own: float | None = connection.socket_timeout
    if request.patience is None or own is None:
        yield
        return
    wait = request.patience + max(own, MARGIN)
    connection.socket_timeout = wait
    try:
        yield
    except TimeoutError:
        raise TimeoutError(late(request.args[0], wait, request.patience)) from None
    finally:
        connection.socket_timeout = own


# --------------------------------------------------------------------------------------------------------------
# Commands of the engine
# --------------------------------------------------------------------------------------------------------------


class Config:
    """Options of the engine, see `redgrease.config.Config`. There are no attributes: they could not be awaited.

    >>> async def main(gears):
    ...     await gears.config.set(MaxExecutions=500)
    ...     return await gears.config.get_single("MaxExecutions")
    """

    _link: Link

    def __init__(self, link: Link) -> None:
        object.__setattr__(self, "_link", link)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an attribute could not be awaited: use `await config.set({name}={value!r})`")

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an attribute could not be awaited: use `await config.get_single({name!r})`")

    async def get(self, *names: str | bytes) -> dict[str, Any]:
        """As `redgrease.config.Config.get`."""
        return await self._link.run(get_options(names))

    async def get_single(self, name: str | bytes) -> Any:
        """As `redgrease.config.Config.get_single`."""
        return await self._link.run(get_option(name))

    async def set(self, config_dict: Mapping[Any, Any] | None = None, **options: Any) -> bool:
        """As `redgrease.config.Config.set`."""
        return await self._link.run(set_options({**(config_dict or {}), **options}))

    def __repr__(self) -> str:
        return f"<Config of {self._link.redis!r}>"


class Gears:
    """Commands of the engine: those of `redgrease.Gears`, as coroutines.

    Args:
        redis: a client of `redis.asyncio` or `valkey.asyncio` for a server or a cluster. It is used, but not changed.

    Attributes:
        config: options of the engine, a `Config`.
    """

    def __init__(self, redis: Any) -> None:
        if not is_async(redis):
            raise TypeError(f"{redis!r} is no client with coroutines: use redgrease.Gears")
        self._redis = redis
        self._link = Link(redis)
        self._commands = Commands(redis, self._proxy)
        self.config = Config(self._link)

    def __repr__(self) -> str:
        return f"<Gears on {self._redis!r}>"

    # -- functions ---------------------------------------------------------------------------------------------

    @overload
    async def pyexecute(
        self,
        gear_function: GearFunction[T],
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
        **options: Unpack[SessionOptions],
    ) -> ExecutionResult[T]: ...
    @overload
    async def pyexecute(
        self,
        gear_function: str | os.PathLike[str] = "",
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
        **options: Unpack[SessionOptions],
    ) -> ExecutionResult[Any]: ...
    async def pyexecute(
        self,
        gear_function: Any = "",
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
        *,
        id: str | None = None,
        description: str | bytes | None = None,
        upgrade: bool = False,
        replace_with: SessionID | RegistrationID | None = None,
        force_reinstall_requirements: bool = False,
        replace: bool | None = None,
    ) -> ExecutionResult[Any]:
        """As `redgrease.Gears.pyexecute`. Calls of a registered command are awaited."""
        options = ExecuteOptions(
            unblocking=unblocking,
            requirements=requirements,
            enforce_redgrease=enforce_redgrease,
            values=values,
            id=id,
            description=description,
            upgrade=upgrade,
            replace_with=replace_with,
            force_reinstall_requirements=force_reinstall_requirements,
            replace=replace,
        )
        return await self._run(self._commands.pyexecute(gear_function, options))

    async def getresults(self, id: ExecutionID) -> ExecutionResult[Any]:
        """As `redgrease.Gears.getresults`."""
        return await self._run(self._commands.getresults(id))

    async def getresultsblocking(self, id: ExecutionID) -> ExecutionResult[Any]:
        """As `redgrease.Gears.getresultsblocking`."""
        return await self._run(self._commands.getresultsblocking(id))

    async def trigger(self, trigger_name: str, *args: Any) -> ExecutionResult[Any]:
        """As `redgrease.Gears.trigger`."""
        return await self._run(self._commands.trigger(trigger_name, args))

    async def triggeronkey(self, trigger_name: str, key: str | bytes, *args: Any) -> ExecutionResult[Any]:
        """As `redgrease.Gears.triggeronkey`."""
        return await self._run(self._commands.triggeronkey(trigger_name, key, args))

    # -- executions --------------------------------------------------------------------------------------------

    async def getexecution(
        self, id: ExecutionID, locality: ExecLocality | str | bytes | None = None
    ) -> dict[str, ExecutionPlan]:
        """As `redgrease.Gears.getexecution`."""
        return await self._run(self._commands.getexecution(id, locality))

    async def dumpexecutions(
        self, status: str | bytes | ExecutionStatus | None = None, registered: bool | None = None
    ) -> list[ExecutionInfo]:
        """As `redgrease.Gears.dumpexecutions`."""
        return await self._run(self._commands.dumpexecutions(status, registered))

    async def abortexecution(self, id: ExecutionID) -> bool:
        """As `redgrease.Gears.abortexecution`."""
        return await self._run(self._commands.abortexecution(id))

    async def dropexecution(self, id: ExecutionID) -> bool:
        """As `redgrease.Gears.dropexecution`."""
        return await self._run(self._commands.dropexecution(id))

    # -- registrations -----------------------------------------------------------------------------------------

    async def dumpregistrations(
        self,
        reader: str | None = None,
        desc: str | None = None,
        mode: str | None = None,
        key: str | None = None,
        stream: str | None = None,
        trigger: str | None = None,
    ) -> list[Registration]:
        """As `redgrease.Gears.dumpregistrations`."""
        return await self._run(self._commands.dumpregistrations(reader, desc, mode, key, stream, trigger))

    async def unregister(self, id: RegistrationID, abort_pending: bool = False) -> bool:
        """As `redgrease.Gears.unregister`."""
        return await self._run(self._commands.unregister(id, abort_pending))

    async def pauseregistrations(self, *ids: RegistrationID, abort_pending: bool = False) -> bool:
        """As `redgrease.Gears.pauseregistrations`."""
        return await self._run(self._commands.pauseregistrations(ids, abort_pending))

    async def unpauseregistrations(self, *ids: RegistrationID) -> bool:
        """As `redgrease.Gears.unpauseregistrations`."""
        return await self._run(self._commands.unpauseregistrations(ids))

    async def clearregistrationsstats(self) -> bool:
        """As `redgrease.Gears.clearregistrationsstats`."""
        return await self._run(self._commands.clearregistrationsstats())

    # -- sessions ----------------------------------------------------------------------------------------------

    async def pydumpsessions(
        self,
        sessions: Iterable[SessionID] | SessionID | None = None,
        verbose: bool = False,
        dead: bool = False,
    ) -> list[PySessionInfo]:
        """As `redgrease.Gears.pydumpsessions`."""
        return await self._run(self._commands.pydumpsessions(sessions, verbose, dead))

    async def pyprofile_stats(self, session: SessionID, order: str | None = None) -> str | dict[str, str]:
        """As `redgrease.Gears.pyprofile_stats`."""
        return await self._run(self._commands.pyprofile_stats(session, order))

    async def pyprofile_reset(self, session: SessionID) -> bool:
        """As `redgrease.Gears.pyprofile_reset`."""
        return await self._run(self._commands.pyprofile_reset(session))

    # -- requirements ------------------------------------------------------------------------------------------

    async def pydumpreqs(
        self, name: str | None = None, is_downloaded: bool | None = None, is_installed: bool | None = None
    ) -> list[PyRequirementInfo]:
        """As `redgrease.Gears.pydumpreqs`."""
        return await self._run(self._commands.pydumpreqs(name, is_downloaded, is_installed))

    async def pyexportreq(self, requirement: str | PyRequirementInfo) -> ExportedRequirement:
        """As `redgrease.Gears.pyexportreq`."""
        return await self._run(self._commands.pyexportreq(requirement))

    async def pyimportreq(self, pieces: ExportedRequirement | Iterable[bytes]) -> bool:
        """As `redgrease.Gears.pyimportreq`."""
        return await self._run(self._commands.pyimportreq(pieces))

    # -- the engine --------------------------------------------------------------------------------------------

    async def infocluster(self) -> ClusterInfo | None:
        """As `redgrease.Gears.infocluster`."""
        return await self._run(self._commands.infocluster())

    async def refreshcluster(self) -> bool:
        """As `redgrease.Gears.refreshcluster`."""
        return await self._run(self._commands.refreshcluster())

    async def pystats(self) -> PyStats | dict[str, PyStats]:
        """As `redgrease.Gears.pystats`."""
        return await self._run(self._commands.pystats())

    async def dumpplugins(self) -> list[PluginInfo]:
        """As `redgrease.Gears.dumpplugins`."""
        return await self._run(self._commands.dumpplugins())

    async def networktest(self) -> bool:
        """As `redgrease.Gears.networktest`."""
        return await self._run(self._commands.networktest())

    async def python_version(self) -> tuple[Any, ...]:
        """As `redgrease.Gears.python_version`."""
        return await self._run(self._commands.python_version())

    async def gears_version(self) -> tuple[int, int, int] | None:
        """As `redgrease.Gears.gears_version`."""
        return await self._run(self._commands.gears_version())

    # -- internal ----------------------------------------------------------------------------------------------

    async def _run(self, exchange: Exchange[T]) -> T:
        return await self._link.run(exchange)

    def _proxy(self, name: str, applied: Apply | None) -> Any:
        return TriggerProxy(self, name) if applied is None else applied.proxy(self, name)

    def _execute(self, function: ClosedGearFunction[Any], requirements: Iterable[Any] | None, **options: Any) -> Any:
        """Execute a function when the result is awaited; a command also when it is called."""
        name = trigger_name(function)
        needed = None if requirements is None else list(requirements)

        def execute() -> Coroutine[Any, Any, ExecutionResult[Any]]:
            return self.pyexecute(function, requirements=needed, **options)

        return execute() if name is None else Command(self, name, applied(function), execute)


class Command(TriggerProxy):
    """A command on a client with coroutines. Its calls are awaited; the first one registers it.

    ``await command`` registers it without a call, and returns the callable.

    Raises (when awaited):
        redgrease.exceptions.DuplicateTriggerError: a command of that name exists, and ``replace`` was not given.
        redis.exceptions.ResponseError: the server refused the function.
    """

    def __init__(
        self,
        gears: Gears,
        name: str,
        applied: Apply | None,
        register: Callable[[], Coroutine[Any, Any, ExecutionResult[Any]]],
    ) -> None:
        super().__init__(gears, name, None if applied is None else applied.fun)
        self._arguments = TriggerProxy(gears, name) if applied is None else applied.proxy(gears, name)
        self._register = register
        self._registering = Shared()
        self._registered: ExecutionResult[Any] | None = None

    def __await__(self) -> Generator[Any, None, ExecutionResult[Any]]:
        return self._ready().__await__()

    def __call__(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, ExecutionResult[Any]]:  # noqa: D102 - see the class
        return self._call(*self._arguments._sent(args, kwargs))

    async def _call(self, *args: Any) -> ExecutionResult[Any]:
        await self._ready()
        result: ExecutionResult[Any] = await self._gears.trigger(self.trigger, *args)
        return result

    def __reduce__(self) -> Any:
        return self._arguments.__reduce__()

    async def _ready(self) -> ExecutionResult[Any]:
        """Register the command, once for all calls that wait for it."""
        if self._registered is None:
            self._registered = await self._registering.run(self._register)
        return self._registered


# --------------------------------------------------------------------------------------------------------------
# Clients
# --------------------------------------------------------------------------------------------------------------


class _Modules:
    """Adds the commands of the engine, and of modules, to a client."""

    @property
    def gears(self) -> Gears:
        """Commands of the engine."""
        gears: Gears | None = self.__dict__.get("_gears")
        if gears is None:
            gears = self.__dict__["_gears"] = Gears(self)
        return gears

    async def module_list(self) -> list[dict[str, str]]:
        """Modules loaded by the server, as dicts of texts."""
        return await self.gears._run(module_list())

    def __reduce__(self) -> NoReturn:
        raise TypeError("a connection cannot be pickled: use redgrease.cmd inside functions")


class Redis(_Modules, redis.asyncio.Redis):  # type: ignore[misc]
    """Client of a server: that of `redis.asyncio`, with ``.gears``.

    Takes the arguments of `redis.asyncio.Redis`. Without ``socket_timeout`` (seconds) the client waits for a reply
    without limit: the server limits the run time of functions.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("socket_timeout", None)
        super().__init__(*args, **modern(kwargs))

    @classmethod
    def from_url(cls: type[_R], url: str, **kwargs: Any) -> _R:  # type: ignore[override]
        """The client for a URL such as ``"redis://user:secret@host:6379/0"``; other arguments as in the constructor."""
        kwargs.setdefault("socket_timeout", None)
        client: _R = super().from_url(url, **modern(kwargs))  # type: ignore[assignment]
        return client

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {place_of(self)}>"


class RedisCluster(_Modules, redis.asyncio.cluster.RedisCluster):  # type: ignore[misc]
    """Client of a cluster: that of `redis.asyncio`, with ``.gears``.

    Takes the arguments of `redis.asyncio.RedisCluster`; as for `Redis`, there is no ``socket_timeout`` by default.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("socket_timeout", None)
        nodes = kwargs.get("startup_nodes")
        if nodes is not None:
            kwargs["startup_nodes"] = [_node(node) for node in nodes]
        super().__init__(*args, **modern(kwargs))


def _node(node: Any) -> redis.asyncio.cluster.ClusterNode:
    if isinstance(node, Mapping):
        return redis.asyncio.cluster.ClusterNode(node["host"], int(node["port"]))
    return node  # type: ignore[no-any-return]


class RedisMods(metaclass=Either):
    """Client of a server or of a cluster: awaited, it is a `Redis` or a `RedisCluster`.

    It asks the server once which of the two it is. If the server cannot be reached, the result is a `Redis`, and the
    first command raises the error. As a type it stands for both. Where nothing can be awaited, use `Redis` or
    `RedisCluster`.

    Args:
        host: default ``"localhost"``. Any node of a cluster works.
        port: default 6379.
        kwargs: arguments of either client; arguments that are `None` are left out. With ``unix_socket_path``,
            ``connection_pool`` or another ``db`` than 0 it is always a `Redis`.

    >>> async def main():
    ...     r = await RedisGears(port=30001)
    ...     print(await r.gears.pystats())
    ...     await r.aclose()
    >>> async def main():
    ...     async with RedisGears() as r:
    ...         print(await r.gears.pystats())
    """

    clients = (Redis, RedisCluster)

    def __init__(self, host: str | None = None, port: int | None = None, **kwargs: Any) -> None:
        given = Arguments.of(host, port, kwargs)
        self._connect: Callable[[], Coroutine[Any, Any, Any]] = lambda: _for_arguments(given)
        self._client: Any = None

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> RedisMods:
        """The client for a URL such as ``"redis://user:secret@host:6379"``; it is awaited, too."""
        factory = cls()
        factory._connect = lambda: _for_url(url, kwargs)
        return factory

    def __await__(self) -> Generator[Any, None, Redis]:
        return self._connect().__await__()

    async def __aenter__(self) -> Redis:
        self._client = await self
        client: Redis = await self._client.__aenter__()
        return client

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{name!r} belongs to the client, which {type(self).__name__}() is only when awaited")


RedisGears = RedisMods
"""The usual name of the factory."""


async def _for_arguments(given: Arguments) -> Any:
    for probe in given.probes():
        answer = await _asks_cluster(lambda options: Redis(**options), probe)
        if answer:
            return RedisCluster(host=probe["host"], port=probe["port"], **given.cluster)
        if answer is not None:
            break
    return Redis(**given.single)


async def _for_url(url: str, kwargs: dict[str, Any]) -> Any:
    client = Redis.from_url(url, **kwargs)
    if may_be_cluster(client) and await _asks_cluster(lambda options: Redis.from_url(url, **options), kwargs):
        return RedisCluster.from_url(url, **kwargs)
    return client


async def _asks_cluster(make: Callable[[dict[str, Any]], Redis], options: dict[str, Any]) -> bool | None:
    """Ask a server on one short-lived connection, without retries; `None` if it does not answer."""
    async with make(probing(options, Retry(NoBackoff(), 0))) as probe:
        try:
            return is_enabled(await probe.info("cluster"))
        except (RedisError, OSError):
            return None
