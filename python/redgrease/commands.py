"""Commands of the engine as exchanges: what is sent where, and what replies mean. No input or output.

`redgrease.Gears` and `redgrease.asyncio.Gears` run the same exchanges.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import re
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar, Union

from redis.exceptions import ResponseError

from . import codec, utils
from .data import (
    ClusterInfo,
    ExecID,
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
    RedisObjects,
    Registration,
    parse_execute_response,
    parse_trigger_response,
    unwrap,
)
from .exceptions import DuplicateTriggerError, script_error
from .exchange import Exchange, Key, Owner, Request, Shards, is_cluster
from .gearialization import SerializedFunction, closed_function, get_function_string, trigger_name
from .gears import GearFunction
from .operations import Count, Map
from .reader import Apply
from .requirements import PackageOption, resolve_requirements, same_name

__all__ = ["Commands", "ExecuteOptions", "ExecutionID", "RegistrationID", "SessionID", "applied", "module_fields"]

ExecutionID = Union[str, bytes, ExecID, ExecutionInfo, ExecutionResult[Any]]
"""Identifies an execution."""
RegistrationID = Union[str, bytes, ExecID, Registration, ExecutionResult[Any]]
"""Identifies a registration."""
SessionID = Union[str, bytes, PySessionInfo]
"""Identifies a session."""

#: Attempts to replace a command that other clients replace at the same time.
_REPLACEMENTS_MAX = 10
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]+")
#: Clients of servers that run functions only as scripts.
_need_scripts: weakref.WeakSet[Any] = weakref.WeakSet()

T = TypeVar("T")
_Decoder = Callable[[Any], Any]


@dataclasses.dataclass(frozen=True)
class ExecuteOptions:
    """Options of RG.PYEXECUTE, see `redgrease.Gears.pyexecute`.

    Raises:
        ValueError: a session id has other characters than letters, digits, ``-`` and ``_``; options exclude each other.
    """

    unblocking: bool = False
    requirements: Iterable[Any] | None = None
    enforce_redgrease: PackageOption = None
    values: bool = True
    id: str | None = None
    description: str | bytes | None = None
    upgrade: bool = False
    replace_with: SessionID | RegistrationID | None = None
    force_reinstall_requirements: bool = False
    replace: bool | None = None

    def __post_init__(self) -> None:
        if self.id is not None and not _SESSION_ID.fullmatch(self.id):
            raise ValueError(f"a session id has only letters, digits, '-' and '_', got id={self.id!r}")
        if self.upgrade and self.id is None:
            raise ValueError("upgrade=True replaces the session with the given id: give id='...', too")
        if self.replace_with is not None and (self.upgrade or self.replace is not None):
            raise ValueError("replace_with names what is replaced: give neither upgrade nor replace with it")

    def words(self, replaced: SessionID | RegistrationID | None) -> list[Any]:
        """The options in front of the function; `replaced` is in place of `replace_with`, if that was not given."""
        replaced = replaced if self.replace_with is None else self.replace_with
        words: list[Any] = ["UNBLOCKING"] if self.unblocking else []
        if self.id is not None:
            words += ("ID", self.id)
        if self.description is not None:
            words += ("DESCRIPTION", self.description)
        if self.upgrade:
            words.append("UPGRADE")
        if replaced is not None:
            words += ("REPLACE_WITH", _replaced(replaced))
        if self.force_reinstall_requirements:
            words.append("FORCE_REINSTALL_REQUIREMENTS")
        return words


class Commands:
    """Exchanges for the methods of `redgrease.Gears`, which documents them.

    Args:
        client: the client that sends the requests; it is not used here, but facts about its server are remembered.
        proxy: makes the callable for a registered command, of its name and what applies its function.
    """

    def __init__(self, client: Any, proxy: Callable[[str, Apply | None], Any]) -> None:
        self._client = client
        self._proxy = proxy
        self._python_version: tuple[Any, ...] | None = None
        self._gears_version: tuple[int, int, int] | None = None

    # -- functions ---------------------------------------------------------------------------------------------

    def pyexecute(self, gear_function: Any, options: ExecuteOptions) -> Exchange[ExecutionResult[Any]]:
        """RG.PYEXECUTE."""
        function = closed_function(gear_function)
        is_object = isinstance(function, GearFunction)
        trigger = trigger_name(function) if is_object else None
        asked = {*resolve_requirements(options.requirements), *(function.requirements if is_object else ())}
        needed = sorted(map(str, resolve_requirements(asked, options.enforce_redgrease)))
        after = ["REQUIREMENTS", *needed] if needed else []
        content = SerializedFunction(function) if is_object else get_function_string(function)[0]

        def send(replaced: ExecID | None = None) -> Exchange[tuple[Any, _Decoder]]:
            return self._send_function(content, options.words(replaced), after, trigger, options.values)

        try:
            reply, decode = yield from send()
        except DuplicateTriggerError:
            if trigger is None or options.replace is None:
                raise
            if not options.replace:
                return self.proxy(trigger, applied(function))
            reply, decode = yield from self._replace(trigger, send)
        result = parse_execute_response(reply, decode)
        if not (is_object or options.values) and isinstance(result.value, ExecID):
            return ExecutionResult(dataclasses.replace(result.value, is_plain=True))
        if is_object:
            if trigger is not None and result.value:
                return self.proxy(trigger, applied(function))
            count_nothing(function, result)
        return result

    def proxy(self, name: str, applied: Apply | None = None) -> ExecutionResult[Any]:
        """The result for a command: calling it triggers the command."""
        return ExecutionResult(self._proxy(name, applied))

    def _send_function(
        self, content: SerializedFunction | str, before: list[Any], after: list[Any], trigger: str | None, values: bool
    ) -> Exchange[tuple[Any, _Decoder]]:
        """Send a function as plan and callbacks, or as a script to a server that does not take these."""
        if isinstance(content, str):
            return (yield from self._send_script(content, *before, *after, tagged=values))
        words = content.words() if codec.available() and self._client not in _need_scripts else None
        if words is not None:
            try:
                return (yield from self._send_script(content.header, *before, *words, *after, trigger=trigger))
            except ResponseError as error:
                if f"Unknown arguments were given: {words[0]}" not in str(error):
                    raise
            _need_scripts.add(self._client)
        return (yield from self._send_script(content.script, *before, *after, trigger=trigger))

    @staticmethod
    def _send_script(*words: Any, trigger: str | None = None, tagged: bool = True) -> Exchange[tuple[Any, _Decoder]]:
        reply, decode = yield from _tagged("RG.PYEXECUTE", *words, once=True, trigger=trigger, tagged=tagged)
        if isinstance(reply, list) and reply and all(isinstance(each, ResponseError) for each in reply):
            raise script_error(reply[0], trigger) from reply[0]
        return reply, decode

    def _replace(
        self, trigger: str, send: Callable[[ExecID | None], Exchange[tuple[Any, _Decoder]]]
    ) -> Exchange[tuple[Any, _Decoder]]:
        """Send a function that takes the place of the registration of the command `trigger`, in one step.

        Between the look-up and the replacement another client may remove or replace the command; then again.
        """
        attempts = 0
        while True:
            attempts += 1
            found = yield from self.dumpregistrations(reader="CommandReader", trigger=trigger)
            try:
                return (yield from send(found[0].id if found else None))
            except ResponseError as error:
                changed = isinstance(error, DuplicateTriggerError) or "session does not exists" in str(error)
                if not changed or attempts == _REPLACEMENTS_MAX:
                    raise

    def getresults(self, id: ExecutionID) -> Exchange[ExecutionResult[Any]]:
        """RG.GETRESULTS."""
        exec_id = _exec_id(id)
        to = Owner(exec_id.shard_id)
        reply, decode = yield from _tagged("RG.GETRESULTS", bytes(exec_id), to=to, tagged=not exec_id.is_plain)
        return parse_execute_response(reply, decode)

    def getresultsblocking(self, id: ExecutionID) -> Exchange[ExecutionResult[Any]]:
        """RG.GETRESULTSBLOCKING."""
        exec_id = _exec_id(id)
        reply, decode = yield from _tagged(
            "RG.GETRESULTSBLOCKING", bytes(exec_id), to=Owner(exec_id.shard_id), once=True, tagged=not exec_id.is_plain
        )
        return parse_execute_response(reply, decode)

    def trigger(
        self,
        trigger_name: str,
        args: tuple[Any, ...],
        to: Shards | Key = Shards.ANY,
        patience: float | None = None,
    ) -> Exchange[ExecutionResult[Any]]:
        """RG.TRIGGER, on a shard."""
        words = (utils.safe_str(trigger_name), *map(unwrap, args))
        reply, decode = yield from _tagged("RG.TRIGGER", *words, to=to, once=True, patience=patience)
        return parse_trigger_response(reply, decode)

    def triggeronkey(self, trigger_name: str, key: Any, args: tuple[Any, ...]) -> Exchange[ExecutionResult[Any]]:
        """RG.TRIGGERONKEY."""
        words = (utils.safe_str(trigger_name), unwrap(key), *map(unwrap, args))
        reply, decode = yield from _tagged("RG.TRIGGERONKEY", *words, to=Key(words[1]), once=True)
        return parse_trigger_response(reply, decode)

    # -- executions --------------------------------------------------------------------------------------------

    def getexecution(
        self, id: ExecutionID, locality: ExecLocality | str | bytes | None
    ) -> Exchange[dict[str, ExecutionPlan]]:
        """RG.GETEXECUTION."""
        exec_id = _exec_id(id)
        where = [] if locality is None else [utils.safe_str_upper(locality)]
        reply = yield Request(("RG.GETEXECUTION", bytes(exec_id), *where), Owner(exec_id.shard_id))
        return ExecutionPlan.parse(reply)

    def dumpexecutions(
        self, status: str | bytes | ExecutionStatus | None, registered: bool | None
    ) -> Exchange[list[ExecutionInfo]]:
        """RG.DUMPEXECUTIONS."""
        replies = yield Request(("RG.DUMPEXECUTIONS",), Shards.ALL)
        found: dict[ExecID, ExecutionInfo] = {}
        for reply in replies.values():
            for entry in map(ExecutionInfo.from_redis, reply):
                found.setdefault(entry.executionId, entry)
        return RedisObjects(
            entry
            for entry in found.values()
            if (status is None or utils.safe_str(entry.status) == utils.safe_str(status))
            and (registered is None or entry.registered == bool(registered))
        )

    def abortexecution(self, id: ExecutionID) -> Exchange[bool]:
        """RG.ABORTEXECUTION."""
        return self._of_execution("RG.ABORTEXECUTION", id)

    def dropexecution(self, id: ExecutionID) -> Exchange[bool]:
        """RG.DROPEXECUTION."""
        return self._of_execution("RG.DROPEXECUTION", id)

    @staticmethod
    def _of_execution(command: str, id: ExecutionID) -> Exchange[bool]:
        exec_id = _exec_id(id)
        reply = yield Request((command, bytes(exec_id)), Owner(exec_id.shard_id), once=True)
        return utils.bool_ok(reply)

    # -- registrations -----------------------------------------------------------------------------------------

    def dumpregistrations(
        self,
        reader: str | None = None,
        desc: str | None = None,
        mode: str | None = None,
        key: str | None = None,
        stream: str | None = None,
        trigger: str | None = None,
    ) -> Exchange[list[Registration]]:
        """RG.DUMPREGISTRATIONS."""
        reply = yield Request(("RG.DUMPREGISTRATIONS",))

        def wanted(registration: Registration) -> bool:
            data = registration.RegistrationData
            return (
                (reader is None or registration.reader == reader)
                and (mode is None or data.mode == mode)
                and (desc is None or _described(registration.desc, desc))
                and (key is None or _covers(data.args.get("regex"), key))
                and (stream is None or _covers(data.args.get("stream"), stream))
                and (trigger is None or _is_named(data.args.get("trigger"), trigger))
            )

        return RedisObjects(found for found in map(Registration.from_redis, reply) if wanted(found))

    def unregister(self, id: RegistrationID, abort_pending: bool) -> Exchange[bool]:
        """RG.UNREGISTER."""
        option = ("ABORTPENDING",) if abort_pending else ()
        reply = yield Request(("RG.UNREGISTER", bytes(_exec_id(id)), *option), once=True)
        return utils.bool_ok(reply)

    def pauseregistrations(self, ids: tuple[RegistrationID, ...], abort_pending: bool) -> Exchange[bool]:
        """RG.PAUSEREGISTRATIONS."""
        return self._registrations("RG.PAUSEREGISTRATIONS", ("ABORTPENDING",) if abort_pending else (), ids)

    def unpauseregistrations(self, ids: tuple[RegistrationID, ...]) -> Exchange[bool]:
        """RG.UNPAUSEREGISTRATIONS."""
        return self._registrations("RG.UNPAUSEREGISTRATIONS", (), ids)

    @staticmethod
    def _registrations(command: str, option: tuple[str, ...], ids: tuple[RegistrationID, ...]) -> Exchange[bool]:
        if not ids:
            raise TypeError("give at least one registration, or its id")
        reply = yield Request((command, *option, *(bytes(_exec_id(id)) for id in ids)))
        return utils.bool_ok(reply)

    def clearregistrationsstats(self) -> Exchange[bool]:
        """RG.CLEARREGISTRATIONSSTATS."""
        reply = yield Request(("RG.CLEARREGISTRATIONSSTATS",))
        return utils.bool_ok(reply)

    # -- sessions ----------------------------------------------------------------------------------------------

    def pydumpsessions(
        self, sessions: Iterable[SessionID] | SessionID | None, verbose: bool, dead: bool
    ) -> Exchange[list[PySessionInfo]]:
        """RG.PYDUMPSESSIONS."""
        words = [word for word, given in (("VERBOSE", verbose), ("DEAD", dead)) if given]
        if sessions is not None:
            if isinstance(sessions, (str, bytes, PySessionInfo)):
                sessions = [sessions]
            words += ["SESSIONS", *map(_session_id, sessions)]
        reply = yield Request(("RG.PYDUMPSESSIONS", *words))
        # In place of a session that does not exist is a text.
        return [PySessionInfo.from_redis(entry) for entry in reply if isinstance(entry, (list, Mapping))]

    def pyprofile_stats(self, session: SessionID, order: str | None) -> Exchange[str | dict[str, str]]:
        """RG.PYPROFILE STATS."""
        words = () if order is None else (order,)
        replies = yield Request(("RG.PYPROFILE", "STATS", _session_id(session), *words), Shards.ALL)
        return self._by_shard({name: utils.safe_str(reply) for name, reply in replies.items()})

    def pyprofile_reset(self, session: SessionID) -> Exchange[bool]:
        """RG.PYPROFILE RESET."""
        replies = yield Request(("RG.PYPROFILE", "RESET", _session_id(session)), Shards.ALL)
        return all(map(utils.bool_ok, replies.values()))

    # -- requirements ------------------------------------------------------------------------------------------

    def pydumpreqs(
        self, name: str | None, is_downloaded: bool | None, is_installed: bool | None
    ) -> Exchange[list[PyRequirementInfo]]:
        """RG.PYDUMPREQS."""
        reply = yield Request(("RG.PYDUMPREQS",))
        return RedisObjects(
            info
            for info in map(PyRequirementInfo.from_redis, reply)
            if (name is None or same_name(info.Name, name))
            and (is_downloaded is None or info.IsDownloaded == is_downloaded)
            and (is_installed is None or info.IsInstalled == is_installed)
        )

    def pyexportreq(self, requirement: str | PyRequirementInfo) -> Exchange[ExportedRequirement]:
        """RG.PYEXPORTREQ."""
        name = requirement.Name if isinstance(requirement, PyRequirementInfo) else str(requirement)
        reply = yield Request(("RG.PYEXPORTREQ", name))
        return ExportedRequirement.parse(reply)

    def pyimportreq(self, pieces: ExportedRequirement | Iterable[bytes]) -> Exchange[bool]:
        """RG.PYIMPORTREQ."""
        if isinstance(pieces, (bytes, str)):
            raise TypeError("pyimportreq takes what pyexportreq returned, or a list of its pieces")
        words = pieces.pieces if isinstance(pieces, ExportedRequirement) else list(pieces)
        reply = yield Request(("RG.PYIMPORTREQ", *words), once=True)
        return utils.bool_ok(reply)

    # -- the engine --------------------------------------------------------------------------------------------

    def infocluster(self) -> Exchange[ClusterInfo | None]:
        """RG.INFOCLUSTER."""
        reply = yield Request(("RG.INFOCLUSTER",))
        return ClusterInfo.parse(reply)

    def refreshcluster(self) -> Exchange[bool]:
        """RG.REFRESHCLUSTER."""
        replies = yield Request(("RG.REFRESHCLUSTER",), Shards.ALL)
        return all(map(utils.bool_ok, replies.values()))

    def pystats(self) -> Exchange[PyStats | dict[str, PyStats]]:
        """RG.PYSTATS."""
        replies = yield Request(("RG.PYSTATS",), Shards.ALL)
        return self._by_shard({name: PyStats.from_redis(reply) for name, reply in replies.items()})

    def dumpplugins(self) -> Exchange[list[PluginInfo]]:
        """RG.DUMPPLUGINS."""
        reply = yield Request(("RG.DUMPPLUGINS",))
        return [PluginInfo.from_redis(entry) for entry in reply]

    def networktest(self) -> Exchange[bool]:
        """RG.NETWORKTEST."""
        return utils.bool_ok((yield Request(("RG.NETWORKTEST",))))

    def python_version(self) -> Exchange[tuple[Any, ...]]:
        """The version of the server's Python, remembered."""
        if self._python_version is None:
            script = (
                "import sys; GB('ShardsIDReader').map(lambda _: str(tuple(sys.version_info))).run(mode='async_local')"
            )
            result = yield from self.pyexecute(script, ExecuteOptions())
            self._python_version = tuple(ast.literal_eval(utils.safe_str(result.records[0])))
        return self._python_version

    def gears_version(self) -> Exchange[tuple[int, int, int] | None]:
        """The version of the engine, remembered."""
        if self._gears_version is None:
            reply = yield Request(("MODULE LIST",))
            for module in module_fields(reply):
                if utils.safe_str(module.get("name")) == "rg":
                    number = int(module["ver"])
                    self._gears_version = number // 10000, number // 100 % 100, number % 100
        return self._gears_version

    def _by_shard(self, replies: dict[str, T]) -> T | dict[str, T]:
        """Replies by shard; without a cluster the only one."""
        return replies if is_cluster(self._client) else replies[""]


def _tagged(
    *args: Any,
    to: Shards | Owner | Key = Shards.ANY,
    once: bool = False,
    patience: float | None = None,
    trigger: str | None = None,
    tagged: bool = True,
) -> Exchange[tuple[Any, _Decoder]]:
    """Request tagged values; return the reply and its decoder."""
    tagged = tagged and codec.available()
    prefix: tuple[Any, ...] = ("RG.WITHCODEC", codec.VERSION) if tagged else ()
    try:
        reply = yield Request((*prefix, *args), to, once, patience)
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


def _session_id(value: SessionID) -> str:
    return value.ID if isinstance(value, PySessionInfo) else utils.safe_str(value)


def _replaced(value: Any) -> str:
    """The id of a session or registration."""
    value = unwrap(value)
    if isinstance(value, Registration):
        value = value.id
    return str(value) if isinstance(value, ExecID) else _session_id(value)


def _described(desc: Any, pattern: str) -> bool:
    return desc is not None and fnmatch.fnmatchcase(utils.safe_str(desc), utils.safe_str(pattern))


def _covers(prefix: Any, name: Any) -> bool:
    """Whether a registration for the pattern `prefix` is for `name`."""
    return prefix is not None and bool(utils.matches_pattern(utils.safe_str(prefix), utils.safe_str(name)))


def _is_named(trigger: Any, name: Any) -> bool:
    return trigger is not None and utils.safe_str(trigger) == utils.safe_str(name)


def module_fields(reply: Any) -> list[dict[str, Any]]:
    """The entries of a reply of MODULE LIST, as dicts."""
    return [utils.to_kwargs(entry) for entry in reply]


def count_nothing(function: GearFunction[Any], result: ExecutionResult[Any]) -> None:
    """A count of no records is 0, although the engine makes no record of it."""
    counted = function.input_function is not None and isinstance(function.input_function.operation, Count)
    if counted and result.records == [] and result.errors == []:
        result.value = 0


def applied(function: GearFunction[Any]) -> Apply | None:
    """What calls a function with the arguments of a command, if that is all the command does."""
    operations = function.operations
    if len(operations) == 3 and isinstance(operations[1], Map) and isinstance(operations[1].op, Apply):
        return operations[1].op
    return None
