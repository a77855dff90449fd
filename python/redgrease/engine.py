"""Commands of the engine, over any client of redis-py or valkey-py."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar, overload

from . import calls
from .commands import Commands, ExecuteOptions, ExecutionID, RegistrationID, SessionID, module_fields
from .config import Config
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
from .exchange import Exchange, is_async, is_cluster, is_pipeline
from .gears import ClosedGearFunction, GearFunction
from .link import Link
from .reader import Apply
from .requirements import PackageOption

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "ExecutionID",
    "Gears",
    "RegistrationID",
    "SessionID",
    "SessionOptions",
    "TriggerProxy",
    "execute_function",
    "gears_of",
    "module_fields",
]

T = TypeVar("T")


class SessionOptions(TypedDict, total=False):
    """Keyword arguments of `Gears.pyexecute` about the session."""

    id: str | None
    description: str | bytes | None
    upgrade: bool
    replace_with: SessionID | RegistrationID | None
    force_reinstall_requirements: bool
    replace: bool | None


class Gears:
    """Commands of the engine.

    Args:
        redis: a client of redis-py or valkey-py for a server or a cluster. It is used, but not changed. Clients with
            coroutines need `redgrease.asyncio.Gears`.

    Attributes:
        config: options of the engine, a `redgrease.config.Config`.

    >>> import redis
    >>> gears = Gears(redis.Redis())            # doctest: +SKIP
    >>> gears.pyexecute("GB().count().run()")   # doctest: +SKIP
    """

    def __init__(self, redis: Any) -> None:
        _need_client(redis)
        if is_async(redis):
            raise TypeError(f"{redis!r} is a client with coroutines: use redgrease.asyncio.Gears")
        if is_pipeline(redis):
            raise TypeError(f"{redis!r} is a pipeline, where commands of the engine cannot wait: use the client itself")
        self._redis = redis
        self._link = Link(redis)
        self._commands = Commands(redis, self._proxy)
        self.config = Config(self._link)

    def __repr__(self) -> str:
        return f"<Gears on {self._redis!r}>"

    # -- functions ---------------------------------------------------------------------------------------------

    @overload
    def pyexecute(
        self,
        gear_function: GearFunction[T],
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
        **options: Unpack[SessionOptions],
    ) -> ExecutionResult[T]: ...
    @overload
    def pyexecute(
        self,
        gear_function: str | os.PathLike[str] = "",
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
        **options: Unpack[SessionOptions],
    ) -> ExecutionResult[Any]: ...
    def pyexecute(
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
        """Send a function to run or register.

        Args:
            gear_function: a gear function (an open one is closed by ``run()``), a builder, the path of a script, or
                the text of one.
            unblocking: return at once, with the id of the execution.
            requirements: packages that the function needs on the server, in addition to its own list.
            enforce_redgrease: whether this package is required on the server, and which version, see
                `redgrease.requirements.resolve_requirements`. The server always has it.
            values: whether records of a text script are returned as the Python values that the package's functions
                return there, and as `bytes` for texts of the server's own builder. `False` returns the reply as any
                other client gets it. Records of function objects always are Python values.
            id: id of the session, which keeps the registrations together: letters, digits, ``-`` and ``_``. Default: a
                random one.
            description: text for the list of sessions.
            upgrade: if the session `id` exists, its registrations are replaced by the new ones, in one step. If the
                function fails, or registers nothing, they stay.
            replace_with: a session, or the id of one, whose registrations are replaced, as for `upgrade`. A
                registration, or the id of one, is replaced alone: others of its session stay.
            force_reinstall_requirements: install the requirements again, even if the server has them.
            replace: what to do if a command of that name exists: `None` raises, `False` keeps the old one, `True`
                replaces it in one step: each call is answered by the old or by the new one. Only that registration is
                replaced. If the new one cannot be registered, the old one stays.

        Returns:
            An `ExecutionResult` of the results; of `True` if the script ran nothing or registered something; of an
            `ExecID` if `unblocking`; of a callable if a command was registered. Errors *in* a step are in ``errors``.

        Raises:
            redgrease.exceptions.DuplicateTriggerError: a command of that name exists.
            redis.exceptions.ResponseError: the server refused the script, or it raised.
            TypeError: the function cannot be sent.
            ValueError: options exclude each other, or `id` has other characters.
        """
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
        return self._run(self._commands.pyexecute(gear_function, options))

    def getresults(self, id: ExecutionID) -> ExecutionResult[Any]:
        """Results of a finished execution.

        Args:
            id: id of the execution; also `ExecutionInfo`, or the result of an unblocking execution.

        Raises:
            redis.exceptions.ResponseError: it is unknown, or still running.
        """
        return self._run(self._commands.getresults(id))

    def getresultsblocking(self, id: ExecutionID) -> ExecutionResult[Any]:
        """Results of an execution, when it has finished. Arguments and errors as in `getresults`."""
        return self._run(self._commands.getresultsblocking(id))

    def trigger(self, trigger_name: str, *args: Any) -> ExecutionResult[Any]:
        """Trigger a command and wait for its result.

        Args:
            trigger_name: name of the command.
            args: its arguments: text, `bytes` or numbers. The command receives texts.

        Raises:
            redis.exceptions.ResponseError: there is no such command, or it raised.
        """
        return self._run(self._commands.trigger(trigger_name, args))

    def triggeronkey(self, trigger_name: str, key: str | bytes, *args: Any) -> ExecutionResult[Any]:
        """Trigger a command on the shard of a key, which is the command's first argument.

        Args:
            trigger_name: name of the command.
            key: name of the key. The user needs permission for it.
            args: further arguments, as for `trigger`.

        Raises:
            redis.exceptions.ResponseError: there is no such command, or it raised.
        """
        return self._run(self._commands.triggeronkey(trigger_name, key, args))

    # -- executions --------------------------------------------------------------------------------------------

    def getexecution(
        self, id: ExecutionID, locality: ExecLocality | str | bytes | None = None
    ) -> dict[str, ExecutionPlan]:
        """Status of an execution on each shard, by the shard's id.

        Args:
            id: id of the execution.
            locality: `redgrease.data.ExecLocality`, or its text: only this shard, or all of the cluster.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        return self._run(self._commands.getexecution(id, locality))

    def dumpexecutions(
        self, status: str | bytes | ExecutionStatus | None = None, registered: bool | None = None
    ) -> list[ExecutionInfo]:
        """List executions.

        Args:
            status: only executions with this status.
            registered: only executions of registrations (`True`), or only others (`False`).
        """
        return self._run(self._commands.dumpexecutions(status, registered))

    def abortexecution(self, id: ExecutionID) -> bool:
        """Abort an execution, also a running one.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        return self._run(self._commands.abortexecution(id))

    def dropexecution(self, id: ExecutionID) -> bool:
        """Delete a finished execution and its results.

        Raises:
            redis.exceptions.ResponseError: it is unknown, or still running.
        """
        return self._run(self._commands.dropexecution(id))

    # -- registrations -----------------------------------------------------------------------------------------

    def dumpregistrations(
        self,
        reader: str | None = None,
        desc: str | None = None,
        mode: str | None = None,
        key: str | None = None,
        stream: str | None = None,
        trigger: str | None = None,
    ) -> list[Registration]:
        """List registrations that meet all given conditions.

        Args:
            reader: name of the reader.
            desc: glob pattern for the description; registrations without one do not match.
            mode: see `redgrease.TriggerMode`.
            key: name of a key: only KeysReader registrations that this key would trigger.
            stream: name of a stream: only StreamReader registrations that this stream would trigger.
            trigger: name of a command.
        """
        return self._run(self._commands.dumpregistrations(reader, desc, mode, key, stream, trigger))

    def unregister(self, id: RegistrationID, abort_pending: bool = False) -> bool:
        """Remove a registration.

        Args:
            id: id of the registration; also a `Registration`.
            abort_pending: abort its executions that have not begun; otherwise they run.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        return self._run(self._commands.unregister(id, abort_pending))

    def pauseregistrations(self, *ids: RegistrationID, abort_pending: bool = False) -> bool:
        """Pause StreamReader registrations: entries that arrive are read after `unpauseregistrations`.

        Args:
            ids: ids of registrations; also `Registration` objects.
            abort_pending: abort their executions that have not begun.

        Raises:
            redis.exceptions.ResponseError: one is unknown, or has another reader; then none is paused.
            TypeError: none is given.
        """
        return self._run(self._commands.pauseregistrations(ids, abort_pending))

    def unpauseregistrations(self, *ids: RegistrationID) -> bool:
        """Continue StreamReader registrations. Arguments and errors as in `pauseregistrations`."""
        return self._run(self._commands.unpauseregistrations(ids))

    def clearregistrationsstats(self) -> bool:
        """Set the statistics of all registrations to zero."""
        return self._run(self._commands.clearregistrationsstats())

    # -- sessions ----------------------------------------------------------------------------------------------

    def pydumpsessions(
        self,
        sessions: Iterable[SessionID] | SessionID | None = None,
        verbose: bool = False,
        dead: bool = False,
    ) -> list[PySessionInfo]:
        """List sessions. Each execution of a script or function that registered something made one.

        Args:
            sessions: ids of sessions, or one id: only these, in this order; those that do not exist are left out.
            verbose: whether requirements and registrations come with all their fields.
            dead: only sessions without registrations, which exist until their executions end.
        """
        return self._run(self._commands.pydumpsessions(sessions, verbose, dead))

    def pyprofile_stats(self, session: SessionID, order: str | None = None) -> str | dict[str, str]:
        """How long the functions of a session took, as a text for people; on a cluster a dict by ``"host:port"``.

        Functions are measured while the option ``ProfileExecutions`` is set.

        Args:
            session: id of the session; also a `PySessionInfo`.
            order: a sort key of Python's `pstats`, such as ``"cumulative"``.

        Raises:
            redis.exceptions.ResponseError: it is unknown, or nothing was measured.
        """
        return self._run(self._commands.pyprofile_stats(session, order))

    def pyprofile_reset(self, session: SessionID) -> bool:
        """Forget how long the functions of a session took.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        return self._run(self._commands.pyprofile_reset(session))

    # -- requirements ------------------------------------------------------------------------------------------

    def pydumpreqs(
        self, name: str | None = None, is_downloaded: bool | None = None, is_installed: bool | None = None
    ) -> list[PyRequirementInfo]:
        """List requirements that meet all given conditions.

        Args:
            name: name of the package; versions and spelling do not matter.
            is_downloaded: whether its files are downloaded.
            is_installed: whether it is installed.
        """
        return self._run(self._commands.pydumpreqs(name, is_downloaded, is_installed))

    def pyexportreq(self, requirement: str | PyRequirementInfo) -> ExportedRequirement:
        """The wheels of a requirement, for `pyimportreq` on another server.

        Args:
            requirement: the requirement as `pydumpreqs` lists it.

        Raises:
            redis.exceptions.ResponseError: the server does not have it.
        """
        return self._run(self._commands.pyexportreq(requirement))

    def pyimportreq(self, pieces: ExportedRequirement | Iterable[bytes]) -> bool:
        """Install a requirement from its wheels, without a network.

        Args:
            pieces: what `pyexportreq` returned, or its pieces, in their order.

        Raises:
            redis.exceptions.ResponseError: they are no requirement, or it cannot be installed.
        """
        return self._run(self._commands.pyimportreq(pieces))

    # -- the engine --------------------------------------------------------------------------------------------

    def infocluster(self) -> ClusterInfo | None:
        """The cluster, or `None` if the server is not part of one."""
        return self._run(self._commands.infocluster())

    def refreshcluster(self) -> bool:
        """Let every shard refresh its view of the cluster. The engine also does so automatically."""
        return self._run(self._commands.refreshcluster())

    def pystats(self) -> PyStats | dict[str, PyStats]:
        """Memory of the Python runtime: `PyStats`; on a cluster a dict of them by ``"host:port"``."""
        return self._run(self._commands.pystats())

    def dumpplugins(self) -> list[PluginInfo]:
        """List the plugins of RedisGears that the module stands for."""
        return self._run(self._commands.dumpplugins())

    def networktest(self) -> bool:
        """Send a message to all shards of the cluster; their logs show where it arrived."""
        return self._run(self._commands.networktest())

    def python_version(self) -> tuple[Any, ...]:
        """Version of the server's Python, such as ``(3, 11, 7, 'final', 0)``."""
        return self._run(self._commands.python_version())

    def gears_version(self) -> tuple[int, int, int] | None:
        """Version of the engine, ``(major, minor, build)``; `None` if it is not loaded."""
        return self._run(self._commands.gears_version())

    # -- internal ----------------------------------------------------------------------------------------------

    def _run(self, exchange: Exchange[T]) -> T:
        return self._link.run(exchange)

    def _ping(self) -> bool:
        return int(self.config.get_single("MaxExecutions")) > 0

    def _proxy(self, name: str, applied: Apply | None) -> Any:
        return TriggerProxy(self, name) if applied is None else applied.proxy(self, name)

    def _trigger_proxy(self, name: str) -> ExecutionResult[Any]:
        """An `ExecutionResult` that triggers the command `name` when it is called."""
        return self._commands.proxy(name)


class TriggerProxy:
    """Triggers a command when it is called, with the name, documentation and parameters of the command's function.

    It is sent to the server by name, and can be called there where the server allows it. The proxy of a client with
    coroutines returns a coroutine.
    """

    def __init__(self, gears: Any, name: str, function: Callable[..., Any] | None = None) -> None:
        self._gears = gears
        self.trigger = name
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__doc__ = getattr(function, "__doc__", None) or f"Trigger the command {name!r}."
        self.__signature__ = None if function is None else calls.signature_of(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - see the class
        return self._server().trigger(self.trigger, *self._sent(args, kwargs))

    def _server(self) -> Any:
        """Where the command is called: inside the server, the local shard."""
        if self._gears is None:
            from .runtime_client import cmd

            return cmd.gears
        return self._gears

    def _sent(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Arguments as they are sent."""
        return calls.positional(self.__signature__, self.trigger, args, kwargs)

    def __reduce__(self) -> Any:
        return type(self), (None, self.trigger)

    def __repr__(self) -> str:
        return f"<command {self.trigger!r}>"


class TypedProxy(TriggerProxy):
    """Triggers a command that was defined with ``typed=True``: its arguments keep their types."""

    def _sent(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        return calls.typed(self.__signature__, args, kwargs)


def _need_client(client: Any) -> None:
    if not (hasattr(client, "execute_command") or is_cluster(client)):
        raise TypeError(f"a client is needed, such as redgrease.RedisGears() or redis.Redis(), got {client!r}")


def gears_of(server: Any) -> Any:
    """The `Gears` of an argument ``on=``: an object with ``gears`` or ``pyexecute``, or a plain client.

    Raises:
        TypeError: it is none of these.
    """
    if hasattr(server, "gears"):
        return server.gears
    if hasattr(server, "pyexecute"):
        return server
    _need_client(server)
    if is_async(server):
        from .asyncio import Gears as AsyncGears

        return AsyncGears(server)
    return Gears(server)


def execute_function(
    function: ClosedGearFunction[Any],
    server: Any,
    unblocking: bool,
    requirements: Iterable[Any] | None,
    replace: bool | None,
    **options: Any,
) -> Any:
    """The implementation of `ClosedGearFunction.on`."""
    if replace is not None:
        options["replace"] = replace
    gears = gears_of(server)
    execute = getattr(gears, "_execute", gears.pyexecute)  # that of a client with coroutines
    return execute(function, unblocking=unblocking, requirements=requirements, **options)
