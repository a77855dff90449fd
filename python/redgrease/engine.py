"""Commands of the engine, over any client of redis-py."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import fnmatch
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

from redis.exceptions import ResponseError

from . import codec, utils
from .config import Config
from .data import (
    ClusterInfo,
    ExecID,
    ExecutionInfo,
    ExecutionPlan,
    ExecutionResult,
    ExecutionStatus,
    PyRequirementInfo,
    PyStats,
    Registration,
    parse_execute_response,
    parse_trigger_response,
    unwrap,
)
from .exceptions import DuplicateTriggerError, script_error
from .gearialization import SerializedFunction, closed_function, get_function_string, trigger_name
from .gears import ClosedGearFunction, GearFunction
from .link import Link
from .operations import Count, Map
from .reader import Apply
from .requirements import PackageOption, resolve_requirements, same_name

__all__ = ["ExecutionID", "Gears", "RegistrationID", "TriggerProxy", "execute_function", "gears_of"]

ExecutionID = "str | bytes | ExecID | ExecutionInfo | ExecutionResult"
"""Identifies an execution."""
RegistrationID = "str | bytes | ExecID | Registration"
"""Identifies a registration."""


class Gears:
    """Commands of the engine.

    Args:
        redis: a client of redis-py for a server or a cluster. It is used, but not changed.

    Attributes:
        config: options of the engine, a `redgrease.config.Config`.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._link = Link(redis)
        self.config = Config(self._link)
        self._python_version: tuple[Any, ...] | None = None
        self._gears_version: tuple[int, int, int] | None = None

    def __repr__(self) -> str:
        return f"<Gears on {self._redis!r}>"

    # -- functions ---------------------------------------------------------------------------------------------

    def pyexecute(
        self,
        gear_function: Any = "",
        unblocking: bool = False,
        requirements: Iterable[Any] | None = None,
        enforce_redgrease: PackageOption = None,
        values: bool = True,
    ) -> Any:
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

        Returns:
            An `ExecutionResult` of the results; of `True` if the script ran nothing or registered something; of an
            `ExecID` if `unblocking`; of a callable if a command was registered. Errors *in* a step are in ``errors``.

        Raises:
            redgrease.exceptions.DuplicateTriggerError: a command of that name exists.
            redis.exceptions.ResponseError: the server refused the script, or it raised.
            TypeError: the function cannot be sent.
        """
        function = closed_function(gear_function)
        is_object = isinstance(function, GearFunction)
        trigger = trigger_name(function) if is_object else None
        asked = [*(requirements or ()), *(function.requirements if is_object else ())]
        needed = sorted(map(str, resolve_requirements(asked, enforce_redgrease)))
        before: list[Any] = ["UNBLOCKING"] if unblocking else []
        after: list[Any] = ["REQUIREMENTS", *needed] if needed else []
        if is_object:
            reply, decode = self._send_function(SerializedFunction(function), before, after, trigger)
        else:
            script, _ = get_function_string(function)
            reply, decode = self._tagged(
                self._link.send, "RG.PYEXECUTE", script, *before, *after, trigger=trigger, tagged=values
            )
        if isinstance(reply, list) and reply and all(isinstance(each, ResponseError) for each in reply):
            raise script_error(reply[0], trigger) from reply[0]
        result = parse_execute_response(reply, decode)
        if not (is_object or values) and isinstance(result.value, ExecID):
            result = ExecutionResult(dataclasses.replace(result.value, is_plain=True))
        if is_object:
            if trigger is not None and result.value:
                return self._trigger_proxy(trigger, _applied(function))
            _count_nothing(function, result)
        return result

    def _send_function(
        self, function: SerializedFunction, before: list[Any], after: list[Any], trigger: str | None
    ) -> tuple[Any, Callable[[Any], Any]]:
        """Send a function as plan and callbacks, or as a script to a server that does not take these."""
        words = function.words() if codec.available() and not self._link.needs_scripts else None
        if words is not None:
            sent = (function.header, *before, *words, *after)
            try:
                return self._tagged(self._link.send, "RG.PYEXECUTE", *sent, trigger=trigger)
            except ResponseError as error:
                if f"Unknown arguments were given: {words[0]}" not in str(error):
                    raise
            self._link.needs_scripts = True
        sent = (function.script, *before, *after)
        return self._tagged(self._link.send, "RG.PYEXECUTE", *sent, trigger=trigger)

    def getresults(self, id: Any) -> Any:
        """Results of a finished execution.

        Args:
            id: id of the execution; also `ExecutionInfo`, or the result of an unblocking execution.

        Raises:
            redis.exceptions.ResponseError: it is unknown, or still running.
        """
        exec_id = _exec_id(id)
        ask = self._owner_asker(exec_id)
        reply, decode = self._tagged(ask, "RG.GETRESULTS", bytes(exec_id), tagged=not exec_id.is_plain)
        return parse_execute_response(reply, decode)

    def getresultsblocking(self, id: Any) -> Any:
        """Results of an execution, when it has finished. Arguments and errors as in `getresults`."""
        exec_id = _exec_id(id)
        send = self._owner_sender(exec_id)
        reply, decode = self._tagged(send, "RG.GETRESULTSBLOCKING", bytes(exec_id), tagged=not exec_id.is_plain)
        return parse_execute_response(reply, decode)

    def trigger(self, trigger_name: str, *args: Any) -> Any:
        """Trigger a command and wait for its result.

        Args:
            trigger_name: name of the command.
            args: its arguments: text, `bytes` or numbers. The command receives texts.

        Raises:
            redis.exceptions.ResponseError: there is no such command, or it raised.
        """
        return self._trigger(trigger_name, *args)

    def _trigger(self, trigger_name: str, *args: Any, patience: float | None = None) -> Any:
        """Trigger a command that may take `patience` seconds, see `Link.send`."""
        send = functools.partial(self._link.send, patience=patience)
        reply, decode = self._tagged(send, "RG.TRIGGER", utils.safe_str(trigger_name), *map(unwrap, args))
        return parse_trigger_response(reply, decode)

    # -- executions --------------------------------------------------------------------------------------------

    def getexecution(self, id: Any, locality: Any = None) -> dict[str, ExecutionPlan]:
        """Status of an execution on each shard, by the shard's id.

        Args:
            id: id of the execution.
            locality: `redgrease.data.ExecLocality`, or its text: only this shard, or all of the cluster.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        exec_id = _exec_id(id)
        where = [] if locality is None else [utils.safe_str_upper(locality)]
        return ExecutionPlan.parse(self._link.ask_owner(exec_id.shard_id, "RG.GETEXECUTION", bytes(exec_id), *where))

    def dumpexecutions(
        self, status: str | bytes | ExecutionStatus | None = None, registered: bool | None = None
    ) -> list[ExecutionInfo]:
        """List executions.

        Args:
            status: only executions with this status.
            registered: only executions of registrations (`True`), or only others (`False`).
        """
        found: dict[ExecID, ExecutionInfo] = {}
        for reply in self._link.ask_all("RG.DUMPEXECUTIONS").values():
            for entry in map(ExecutionInfo.from_redis, reply):
                found.setdefault(entry.executionId, entry)
        return [
            entry
            for entry in found.values()
            if (status is None or utils.safe_str(entry.status) == utils.safe_str(status))
            and (registered is None or entry.registered == bool(registered))
        ]

    def abortexecution(self, id: Any) -> bool:
        """Abort an execution, also a running one.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        exec_id = _exec_id(id)
        return utils.bool_ok(self._link.ask_owner(exec_id.shard_id, "RG.ABORTEXECUTION", bytes(exec_id)))

    def dropexecution(self, id: Any) -> bool:
        """Delete a finished execution and its results.

        Raises:
            redis.exceptions.ResponseError: it is unknown, or still running.
        """
        exec_id = _exec_id(id)
        return utils.bool_ok(self._link.ask_owner(exec_id.shard_id, "RG.DROPEXECUTION", bytes(exec_id)))

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
        found = [Registration.from_redis(entry) for entry in self._link.ask("RG.DUMPREGISTRATIONS")]

        def wanted(registration: Registration) -> Any:
            data = registration.RegistrationData
            return (
                (reader is None or registration.reader == reader)
                and (mode is None or data.mode == mode)
                and (desc is None or _described(registration.desc, desc))
                and (key is None or _covers(data.args.get("regex"), key))
                and (stream is None or _covers(data.args.get("stream"), stream))
                and (trigger is None or _is_named(data.args.get("trigger"), trigger))
            )

        return [registration for registration in found if wanted(registration)]

    def unregister(self, id: Any) -> bool:
        """Remove a registration.

        Args:
            id: id of the registration, or a `Registration`.

        Raises:
            redis.exceptions.ResponseError: it is unknown.
        """
        exec_id = _exec_id(id)
        return utils.bool_ok(self._link.ask_owner(exec_id.shard_id, "RG.UNREGISTER", bytes(exec_id)))

    # -- the engine --------------------------------------------------------------------------------------------

    def infocluster(self) -> ClusterInfo | None:
        """The cluster, or `None` if the server is not part of one."""
        return ClusterInfo.parse(self._link.ask("RG.INFOCLUSTER"))

    def refreshcluster(self) -> bool:
        """Let every shard refresh its view of the cluster. The engine also does so automatically."""
        return all(utils.bool_ok(reply) for reply in self._link.ask_all("RG.REFRESHCLUSTER").values())

    def pystats(self) -> Any:
        """Memory of the Python runtime: `PyStats`; on a cluster a dict of them by ``"host:port"``."""
        stats = {name: PyStats.from_redis(reply) for name, reply in self._link.ask_all("RG.PYSTATS").items()}
        return stats if self._link.is_cluster else stats[""]

    def pydumpreqs(
        self, name: str | None = None, is_downloaded: bool | None = None, is_installed: bool | None = None
    ) -> list[PyRequirementInfo]:
        """List requirements that meet all given conditions.

        Args:
            name: name of the package; versions and spelling do not matter.
            is_downloaded: whether its files are downloaded.
            is_installed: whether it is installed.
        """
        found = [PyRequirementInfo.from_redis(entry) for entry in self._link.ask("RG.PYDUMPREQS")]
        return [
            info
            for info in found
            if (name is None or same_name(info.Name, name))
            and (is_downloaded is None or info.IsDownloaded == is_downloaded)
            and (is_installed is None or info.IsInstalled == is_installed)
        ]

    def python_version(self) -> tuple[Any, ...]:
        """Version of the server's Python, such as ``(3, 11, 7, 'final', 0)``."""
        if self._python_version is None:
            result = self.pyexecute(
                "import sys; GB('ShardsIDReader').map(lambda _: str(tuple(sys.version_info))).run(mode='async_local')"
            )
            self._python_version = tuple(ast.literal_eval(utils.safe_str(result.records[0])))
        return self._python_version

    def gears_version(self) -> tuple[int, int, int] | None:
        """Version of the engine, ``(major, minor, build)``; `None` if it is not loaded."""
        if self._gears_version is None:
            for module in module_fields(self._link.ask("MODULE LIST")):
                if utils.safe_str(module.get("name")) == "rg":
                    number = int(module["ver"])
                    self._gears_version = number // 10000, number // 100 % 100, number % 100
        return self._gears_version

    # -- internal ----------------------------------------------------------------------------------------------

    def _ping(self) -> bool:
        return int(self.config.get_single("MaxExecutions")) > 0

    def _trigger_proxy(self, name: str, function: Callable[..., Any] | None = None) -> Any:
        """An `ExecutionResult` that triggers the command `name` when it is called."""
        return ExecutionResult(TriggerProxy(self, name, function))

    def _owner_asker(self, exec_id: ExecID) -> Callable[..., Any]:
        return lambda *args: self._link.ask_owner(exec_id.shard_id, *args)

    def _owner_sender(self, exec_id: ExecID) -> Callable[..., Any]:
        return lambda *args: self._link.send_owner(exec_id.shard_id, *args)

    def _tagged(
        self, send: Callable[..., Any], *args: Any, trigger: str | None = None, tagged: bool = True
    ) -> tuple[Any, Callable[[Any], Any]]:
        """Send a command and request tagged values; return the reply and its decoder."""
        tagged = tagged and codec.available()
        prefix: tuple[Any, ...] = ("RG.WITHCODEC", codec.VERSION) if tagged else ()
        try:
            reply = send(*prefix, *args)
        except ResponseError as error:
            raise script_error(error, trigger) from error
        return reply, _decode if tagged else utils.as_is


def _decode(record: Any) -> Any:
    """Value of a tagged record. The caller requested it, so pickled parts are unpickled."""
    if isinstance(record, str):  # `execute` inside the server returns text where possible
        record = record.encode()
    return codec.loads(record, allow_pickle=True) if isinstance(record, bytes) else record


def _exec_id(value: Any) -> ExecID:
    value = unwrap(value)
    if isinstance(value, ExecutionInfo):
        return value.executionId
    if isinstance(value, Registration):
        return value.id
    return ExecID.parse(value)


def _described(desc: Any, pattern: str) -> bool:
    return desc is not None and fnmatch.fnmatchcase(utils.safe_str(desc), utils.safe_str(pattern))


def _covers(prefix: Any, name: Any) -> Any:
    """Whether a registration for the pattern `prefix` is for `name`."""
    return prefix is not None and utils.matches_pattern(utils.safe_str(prefix), utils.safe_str(name))


def _is_named(trigger: Any, name: Any) -> bool:
    return trigger is not None and utils.safe_str(trigger) == utils.safe_str(name)


def module_fields(reply: Any) -> list[dict[str, Any]]:
    """The entries of a reply of MODULE LIST, as dicts."""
    return [utils.to_kwargs(entry) for entry in reply]


def _count_nothing(function: GearFunction[Any], result: Any) -> None:
    """A count of no records is 0, although the engine makes no record of it."""
    counted = function.input_function is not None and isinstance(function.input_function.operation, Count)
    if counted and result.records == [] and result.errors == []:
        result.value = 0


def _applied(function: GearFunction[Any]) -> Callable[..., Any] | None:
    """The function that a command calls with its arguments, if that is all it does."""
    operations = function.operations
    if len(operations) == 3 and isinstance(operations[1], Map) and isinstance(operations[1].op, Apply):
        applied: Callable[..., Any] = operations[1].op.fun
        return applied
    return None


class TriggerProxy:
    """Triggers a command when it is called, with the name, documentation and parameters of the command's function.

    It is sent to the server by name, and can be called there where the server allows it.
    """

    def __init__(self, gears: Gears | None, name: str, function: Callable[..., Any] | None = None) -> None:
        self._gears = gears
        self.trigger = name
        self.__name__ = getattr(function, "__name__", name)
        self.__qualname__ = getattr(function, "__qualname__", name)
        self.__doc__ = getattr(function, "__doc__", None) or f"Trigger the command {name!r}."
        self.__signature__: inspect.Signature | None = None
        if function is not None:
            with contextlib.suppress(TypeError, ValueError):  # some built-ins have none
                self.__signature__ = inspect.signature(function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - see the class
        gears = self._gears
        if gears is None:
            from .runtime_client import cmd

            gears = cmd.gears
        return gears.trigger(self.trigger, *self._positional(args, kwargs))

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        if self.__signature__ is None:
            if kwargs:
                raise TypeError(f"command {self.trigger!r} takes no keyword arguments")
            return args
        bound = self.__signature__.bind(*args, **kwargs)
        if bound.kwargs:
            bound.apply_defaults()  # a gap before a keyword is filled with the default
        if bound.kwargs:
            raise TypeError(
                f"command {self.trigger!r}: {', '.join(bound.kwargs)} cannot be given: "
                "only positional arguments are sent"
            )
        return bound.args

    def __reduce__(self) -> Any:
        return TriggerProxy, (None, self.trigger)

    def __repr__(self) -> str:
        return f"<command {self.trigger!r}>"


def gears_of(server: Any) -> Any:
    """The `Gears` of an argument ``on=``: an object with ``gears`` or ``pyexecute``, or a plain client."""
    if hasattr(server, "gears"):
        return server.gears
    return server if hasattr(server, "pyexecute") else Gears(server)


def execute_function(
    function: ClosedGearFunction[Any],
    server: Any,
    unblocking: bool,
    requirements: Iterable[Any] | None,
    replace: bool | None,
    **kwargs: Any,
) -> Any:
    """The implementation of `ClosedGearFunction.on`."""
    gears = gears_of(server)
    try:
        return gears.pyexecute(function, unblocking=unblocking, requirements=requirements, **kwargs)
    except DuplicateTriggerError:
        name = trigger_name(function)
        if replace is None or name is None:
            raise
        if not replace:
            return gears._trigger_proxy(name, _applied(function))
        for registration in gears.dumpregistrations(reader="CommandReader", trigger=name):
            gears.unregister(registration.id)
    return gears.pyexecute(function, unblocking=unblocking, requirements=requirements, **kwargs)
