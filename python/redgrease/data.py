# ruff: noqa: N802, N815, RUF009 - magic methods; names as servers send them; fields made by a function
"""Replies of a server as Python objects.

>>> result = ExecutionResult([1, 2, 3], errors=[])
>>> len(result), result[0], result == [1, 2, 3], result.errors
(3, 1, True, [])
"""

from __future__ import annotations

import ast
import dataclasses
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from . import utils
from .exceptions import parse_traceback, split_last_line
from .utils import _REnum, safe_bool, safe_str

__all__ = [
    "ClusterInfo",
    "ExecID",
    "ExecLocality",
    "ExecutionInfo",
    "ExecutionPlan",
    "ExecutionResult",
    "ExecutionStatus",
    "ExecutionStep",
    "ExportedRequirement",
    "PluginInfo",
    "PyRequirementInfo",
    "PySessionInfo",
    "PyStats",
    "RedisObject",
    "RedisObjects",
    "RegData",
    "Registration",
    "ShardInfo",
    "StepError",
    "parse_PD",
    "parse_execute_response",
    "parse_trigger_response",
]

_R = TypeVar("_R", bound="RedisObject")
_Rec = TypeVar("_Rec")


# --------------------------------------------------------------------------------------------------------------
# Ids and states
# --------------------------------------------------------------------------------------------------------------

_NO_SHARD = "0" * 40


@dataclass(frozen=True, repr=False)
class ExecID:
    """Id of an execution or registration.

    Attributes:
        shard_id: id of the shard where it began; forty zeros if the server is not a cluster.
        sequence: its number there.
        is_plain: whether its results are requested as plain replies, which are `bytes`: true for text scripts. It is
            not part of the id.
    """

    shard_id: str = _NO_SHARD
    sequence: int = 0
    is_plain: bool = dataclasses.field(default=False, compare=False)

    @classmethod
    def parse(cls, value: Any) -> ExecID:
        """Parse a text such as ``b"0000…0000-7"``.

        Raises:
            ValueError: it is not an id.
        """
        if isinstance(value, ExecutionResult):
            value = value.value
        if isinstance(value, ExecID):
            return value
        if isinstance(value, (str, bytes)):
            shard_id, dash, sequence = safe_str(value).rpartition("-")
            if dash and sequence.isascii() and sequence.isdigit():
                return cls(shard_id, int(sequence))
        raise ValueError(f"not an execution id (such as '{_NO_SHARD}-7'): {value!r}")

    def __str__(self) -> str:
        return f"{self.shard_id}-{self.sequence}"

    def __bytes__(self) -> bytes:
        return str(self).encode()

    def __repr__(self) -> str:
        if self.shard_id == _NO_SHARD:
            return f"ExecID(sequence={self.sequence})"
        return f'ExecID("{self.shard_id}", {self.sequence})'


class ExecutionStatus(_REnum):
    """Status of an execution."""

    created = b"created"
    running = b"running"
    done = b"done"
    aborted = b"aborted"
    pending_cluster = b"pending_cluster"
    pending_run = b"pending_run"
    pending_receive = b"pending_receive"
    pending_termination = b"pending_termination"


class ExecLocality(_REnum):
    """The shards on which to look for an execution."""

    Shard = "Shard"
    Cluster = "Cluster"


def _status(value: Any) -> ExecutionStatus | str:
    try:
        return ExecutionStatus(safe_str(value).encode())
    except ValueError:
        return safe_str(value)


# --------------------------------------------------------------------------------------------------------------
# Results
# --------------------------------------------------------------------------------------------------------------


class StepError(bytes):
    """One error of an execution: the received bytes, parsed.

    Attributes:
        traceback: lines of the Python traceback, if it is one; else the text as the only line.
        type: name of the Python exception, such as ``"ValueError"``; ``""`` if there was none.
        message: its message; without an exception, the whole text.
    """

    @property
    def traceback(self) -> list[str]:
        """Lines of the Python traceback."""
        return parse_traceback(self.decode("utf-8", errors="replace"))

    @property
    def type(self) -> str:
        """Name of the Python exception."""
        return split_last_line(self.traceback)[0]

    @property
    def message(self) -> str:
        """Message of the Python exception."""
        return split_last_line(self.traceback)[1]

    def __str__(self) -> str:
        return "".join(self.traceback).rstrip("\n")


def _binary(action: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: action(self.value, unwrap(other))


def _reflected(action: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda self, other: action(unwrap(other), self.value)


def _unary(action: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda self: action(self.value)


def unwrap(value: Any) -> Any:
    """The value of an `ExecutionResult`; anything else unchanged."""
    return value.value if isinstance(value, ExecutionResult) else value


#: One result of these types is one result, not a list of characters.
_TEXT = (str, bytes, bytearray)


class ExecutionResult(Generic[_Rec]):
    """The results of an execution, usable as if they were the value itself.

    Comparison, arithmetic, indexing, attributes, ``isinstance``, ``str``, ``int``, ``bytes``, ``hash`` and pickling
    act on `value`. A single result is not in a list: `value` is the result itself, which also equals a list of one
    element; ``len``, iteration and ``[0]`` treat a number, a text or another scalar as a list of one. ``in`` and slices
    of a text act on the text. `records` is always a list. Pass `value` to C functions that need a real `list` or
    `bytes`.

    Args:
        value: the results.
        errors: the errors.
        records: the results as a list, as received.

    Attributes:
        value: the results: a list, or the only result.
        errors: list of `StepError`, empty without errors; `None` for replies without a list of errors, such as those of
            triggers.
        records: list of the results, whatever their number.

    Type checkers know the type of one record: ``ExecutionResult[int]`` has ``records: list[int]``.
    """

    if TYPE_CHECKING:
        value: _Rec | Any
        records: list[_Rec]
        errors: list[Any] | None

        def __call__(self, *args: Any, **kwargs: Any) -> ExecutionResult[_Rec]: ...  # noqa: D102 - see the class

    def __new__(cls, value: Any = None, errors: Any = None, records: Any = None) -> Any:  # noqa: D102 - see the class
        # Only a result that wraps a callable is callable.
        return object.__new__(_CallableResult if cls is ExecutionResult and callable(value) else cls)

    def __init__(self, value: Any, errors: list[Any] | None = None, records: list[Any] | None = None) -> None:
        self.value = unwrap(value)
        self.errors = errors
        if records is None:
            records = list(value) if isinstance(value, list) else [self.value]
        self.records = records
        if callable(self.value):
            self.__doc__ = getattr(self.value, "__doc__", None)

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return type(self.value)

    def __getattr__(self, name: str) -> Any:
        if name in ("value", "errors", "records"):  # while being unpickled or copied
            raise AttributeError(name)
        return getattr(self.value, name)

    def __dir__(self) -> Iterable[str]:
        return sorted({*dir(self.value), "value", "errors", "records", "to_arrow", "to_pandas"})

    def __reduce_ex__(self, protocol: Any) -> Any:
        return ExecutionResult, (self.value, self.errors, self.records)

    def __repr__(self) -> str:
        errors = f", errors={self.errors!r}" if self.errors else ""
        return f"ExecutionResult[{type(self.value).__name__}]({self.value!r}{errors})"

    # -- as a table --------------------------------------------------------------------------------------------

    def to_pandas(self) -> Any:
        """The records as a `pandas.DataFrame`: a column for each entry of dicts, else one column ``value``.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        from .display import to_pandas

        return to_pandas(self.records)

    def to_arrow(self) -> Any:
        """The records as a `pyarrow.Table`; columns as in `to_pandas`.

        Raises:
            ModuleNotFoundError: pyarrow is not installed.
            TypeError: the values of a column have no common Arrow type.
        """
        from .display import to_arrow

        return to_arrow(self.records)

    def _repr_html_(self) -> str | None:
        """A table of dicts, for notebooks; `None` for other results."""
        from .display import result

        return result(self)

    # -- as a list ---------------------------------------------------------------------------------------------

    @property
    def _is_scalar(self) -> bool:
        return isinstance(self.value, _TEXT) or (self.value is not None and not hasattr(type(self.value), "__len__"))

    def __len__(self) -> int:
        value: Any = self.value
        if self._is_scalar:
            return 1
        return 0 if value is None else len(value)

    def __iter__(self) -> Iterator[_Rec]:
        value: Any = self.value
        if value is None:
            return iter(())
        if self._is_scalar and (isinstance(value, _TEXT) or not hasattr(type(value), "__iter__")):
            return iter((value,))
        return iter(value)

    def __reversed__(self) -> Iterator[_Rec]:
        return iter(list(self)[::-1])

    @overload
    def __getitem__(self, index: int) -> _Rec: ...
    @overload
    def __getitem__(self, index: Any) -> Any: ...
    def __getitem__(self, index: Any) -> Any:
        value: Any = self.value
        is_text = isinstance(value, _TEXT)
        if is_text and isinstance(index, slice):
            return value[index]
        if value is None or is_text or (self._is_scalar and not hasattr(type(value), "__getitem__")):
            return [value][index]
        return value[index]

    def __contains__(self, item: Any) -> bool:
        value: Any = self.value
        if self._is_scalar and not hasattr(type(value), "__contains__"):
            return bool(value == unwrap(item))
        return value is not None and unwrap(item) in value

    def __eq__(self, other: object) -> bool:
        other = unwrap(other)
        if isinstance(other, list) and self.value is not None and not isinstance(self.value, list):
            return bool(other == [self.value])
        return bool(self.value == other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(self.value)

    # -- as a value --------------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        return bool(self.value)

    def __bytes__(self) -> bytes:
        return utils.to_bytes(self.value)

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, spec: str) -> str:
        return format(self.value, spec)

    def __round__(self, digits: int | None = None) -> Any:
        value: Any = self.value
        return round(value) if digits is None else round(value, digits)

    __int__ = _unary(int)
    __float__ = _unary(float)
    __complex__ = _unary(complex)
    __index__ = _unary(operator.index)
    __neg__ = _unary(operator.neg)
    __pos__ = _unary(operator.pos)
    __abs__ = _unary(operator.abs)
    __invert__ = _unary(operator.invert)
    __lt__ = _binary(operator.lt)
    __le__ = _binary(operator.le)
    __gt__ = _binary(operator.gt)
    __ge__ = _binary(operator.ge)
    __add__ = _binary(operator.add)
    __radd__ = _reflected(operator.add)
    __sub__ = _binary(operator.sub)
    __rsub__ = _reflected(operator.sub)
    __mul__ = _binary(operator.mul)
    __rmul__ = _reflected(operator.mul)
    __truediv__ = _binary(operator.truediv)
    __rtruediv__ = _reflected(operator.truediv)
    __floordiv__ = _binary(operator.floordiv)
    __rfloordiv__ = _reflected(operator.floordiv)
    __mod__ = _binary(operator.mod)
    __rmod__ = _reflected(operator.mod)
    __divmod__ = _binary(divmod)
    __rdivmod__ = _reflected(divmod)
    __pow__ = _binary(operator.pow)
    __rpow__ = _reflected(operator.pow)
    __and__ = _binary(operator.and_)
    __rand__ = _reflected(operator.and_)
    __or__ = _binary(operator.or_)
    __ror__ = _reflected(operator.or_)
    __xor__ = _binary(operator.xor)
    __rxor__ = _reflected(operator.xor)
    __lshift__ = _binary(operator.lshift)
    __rlshift__ = _reflected(operator.lshift)
    __rshift__ = _binary(operator.rshift)
    __rrshift__ = _reflected(operator.rshift)
    __matmul__ = _binary(operator.matmul)
    __rmatmul__ = _reflected(operator.matmul)


class _CallableResult(ExecutionResult[_Rec]):
    """The result for a command: calling it triggers the command."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        function: Any = self.value
        return function(*args, **kwargs)


Decoder = Callable[[Any], Any]


def _single(records: list[Any]) -> Any:
    return records[0] if len(records) == 1 else records


def parse_execute_response(reply: Any, decode: Decoder = utils.as_is) -> ExecutionResult[Any]:
    """Results of a reply of RG.PYEXECUTE or RG.GETRESULTS.

    Args:
        reply: the reply.
        decode: converts each record to a value; nothing is guessed from the bytes of a record.
    """
    if utils.bool_ok(reply) or reply is True:
        return ExecutionResult(True)
    if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[0], list):
        results, errors = reply
        records = [decode(record) for record in results]
        return ExecutionResult(_single(records), [_step_error(error) for error in errors or ()], records)
    if isinstance(reply, (str, bytes)):
        try:
            return ExecutionResult(ExecID.parse(reply))
        except ValueError:
            pass
    return ExecutionResult(reply)


def parse_trigger_response(reply: Any, decode: Decoder = utils.as_is) -> ExecutionResult[Any]:
    """Results of a reply of RG.TRIGGER; arguments as in `parse_execute_response`."""
    if not isinstance(reply, list):
        return ExecutionResult(decode(reply))
    records = [decode(record) for record in reply]
    return ExecutionResult(_single(records), None, records)


def _step_error(error: Any) -> StepError:
    return StepError(error if isinstance(error, bytes) else safe_str(error).encode())


# --------------------------------------------------------------------------------------------------------------
# Replies with named fields
# --------------------------------------------------------------------------------------------------------------


def _named(reply: Any) -> dict[str, Any]:
    """Fields of a reply, which is a flat list or a map."""
    return utils.to_kwargs(reply)


def _list(item: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return lambda reply: [item(each) for each in reply or ()]


def _optional_text(value: Any) -> str | None:
    return None if value is None else safe_str(value)


def _field(parse: Callable[[Any], Any], default: Any = dataclasses.MISSING, **options: Any) -> Any:
    if default is not dataclasses.MISSING:
        options["default"] = default
    return dataclasses.field(metadata={"parse": parse}, **options)


class RedisObject:
    """Base of replies with named fields.

    Attributes:
        extra: further fields of a newer server, by name.
    """

    extra: Mapping[str, Any] = MappingProxyType({})

    @classmethod
    def from_redis(cls: type[_R], reply: Any) -> _R:
        """The object that a reply (a flat list, or a map) describes."""
        given = _named(reply)
        known: dict[str, Any] = {}
        for field in dataclasses.fields(cast(Any, cls)):
            if field.name in given:
                known[field.name] = utils.transform(given.pop(field.name), field.metadata.get("parse"))
        item = cls(**known)
        object.__setattr__(item, "extra", given)
        return item

    def __repr__(self) -> str:
        fields = (field.name for field in dataclasses.fields(cast(Any, self)) if field.repr)
        return f"{type(self).__name__}({', '.join(f'{name}={getattr(self, name)!r}' for name in fields)})"

    def _repr_html_(self) -> str:
        """A table of the fields, for notebooks."""
        from .display import fields

        return fields(self)


class RedisObjects(list[_R]):
    """A list of replies with named fields. In a notebook it is a table."""

    def _repr_html_(self) -> str:
        from .display import table

        return table(self)


@dataclass(frozen=True, repr=False)
class ExecutionInfo(RedisObject):
    """One row of the list of executions."""

    executionId: ExecID = _field(ExecID.parse)
    status: ExecutionStatus = _field(_status)
    registered: bool = _field(safe_bool)


@dataclass(frozen=True, repr=False)
class RegData(RedisObject):
    """Statistics and arguments of a registration. Durations are milliseconds."""

    mode: str = _field(safe_str, "")
    numTriggered: int = _field(int, 0)
    numSuccess: int = _field(int, 0)
    numFailures: int = _field(int, 0)
    numAborted: int = _field(int, 0)
    lastRunDurationMS: int | None = _field(int, None)
    totalRunDurationMS: int | None = _field(int, None)
    avgRunDurationMS: float | None = _field(float, None)
    lastEstimatedLagMS: int | None = _field(int, None)
    avgEstimatedLagMS: float | None = _field(float, None)
    lastError: bytes | None = _field(utils.as_is, None)
    args: dict[str, Any] = _field(_named, default_factory=dict)
    status: bool | str | None = _field(lambda value: True if utils.bool_ok(value) else safe_str(value), None)


@dataclass(frozen=True, repr=False)
class Registration(RedisObject):
    """One row of the list of registrations."""

    id: ExecID = _field(ExecID.parse)
    reader: str = _field(safe_str)
    desc: bytes | None = _field(utils.as_is, None)
    RegistrationData: RegData = _field(RegData.from_redis, default_factory=RegData)
    PD: dict[str, Any] | str = _field(lambda value: parse_PD(value), default_factory=dict, repr=False)
    ExecutionThreadPool: str = _field(safe_str, "")


@dataclass(frozen=True, repr=False)
class ExecutionStep(RedisObject):
    """One step of an execution. Its duration, in milliseconds, is 0 unless profiling is on."""

    type: str = _field(safe_str, "")
    duration: int = _field(int, 0)
    name: str = _field(safe_str, "")
    arg: str = _field(safe_str, "")


@dataclass(frozen=True, repr=False)
class ExecutionPlan(RedisObject):
    """State of an execution on one shard. Durations are milliseconds."""

    status: ExecutionStatus = _field(_status)
    shards_received: int = _field(int, 0)
    shards_completed: int = _field(int, 0)
    results: int = _field(int, -1)
    errors: list[StepError] = _field(_list(_step_error), default_factory=list)
    total_duration: int = _field(int, 0)
    read_duration: int = _field(int, 0)
    steps: list[ExecutionStep] = _field(_list(ExecutionStep.from_redis), default_factory=list)

    @classmethod
    def parse(cls, reply: Any) -> dict[str, ExecutionPlan]:
        """Parse a reply of RG.GETEXECUTION: plans by the shard's id."""
        entries = [_named(entry) for entry in reply or ()]
        return {safe_str(entry["shard_id"]): cls.from_redis(entry["execution_plan"]) for entry in entries}


@dataclass(frozen=True, repr=False)
class ShardInfo(RedisObject):
    """One shard of a cluster."""

    id: str = _field(safe_str)
    ip: str = _field(safe_str, "")
    port: int = _field(int, 0)
    unixSocket: str = _field(safe_str, "None")
    runid: str = _field(safe_str, "")
    minHslot: int = _field(int, 0)
    maxHslot: int = _field(int, 0)
    pendingMessages: int = _field(int, 0)


@dataclass(frozen=True, repr=False)
class ClusterInfo(RedisObject):
    """A cluster as one of its shards sees it."""

    my_id: str
    my_run_id: str = ""
    shards: list[ShardInfo] = dataclasses.field(default_factory=list)

    @classmethod
    def parse(cls, reply: Any) -> ClusterInfo | None:
        """Parse a reply of RG.INFOCLUSTER; `None` without a cluster."""
        if not isinstance(reply, (list, dict)) or not reply:
            return None
        shards: Any = ()
        if isinstance(reply, list) and len(reply) % 2:  # the list of shards has no name
            *reply, shards = reply
        given = _named(reply)
        shards = given.get("shards", shards)
        return cls(
            safe_str(given.get("MyId")), safe_str(given.get("MyRunId")), [ShardInfo.from_redis(each) for each in shards]
        )


@dataclass(frozen=True, repr=False)
class PyStats(RedisObject):
    """Memory of the Python runtime, in bytes."""

    TotalAllocated: int = _field(int, 0)
    PeakAllocated: int = _field(int, 0)
    CurrAllocated: int = _field(int, 0)


@dataclass(frozen=True, repr=False)
class PyRequirementInfo(RedisObject):
    """A requirement that the server knows."""

    GearReqVersion: int = _field(int, 0)
    Name: str = _field(safe_str, "")
    IsDownloaded: bool = _field(safe_bool, False)
    IsInstalled: bool = _field(safe_bool, False)
    CompiledOs: str | None = _field(_optional_text, None)
    Wheels: list[str] | str = _field(
        lambda value: [safe_str(each) for each in value] if isinstance(value, list) else safe_str(value),
        default_factory=list,
    )


@dataclass(frozen=True, repr=False)
class ExportedRequirement(RedisObject):
    """A requirement with its wheels, as one server exports and another one imports it.

    Attributes:
        info: what the server knows of it.
        pieces: its wheels in a form for `redgrease.Gears.pyimportreq`, each at most 10 MiB.
    """

    info: PyRequirementInfo
    pieces: list[bytes] = dataclasses.field(default_factory=list, repr=False)

    @classmethod
    def parse(cls, reply: Any) -> ExportedRequirement:
        """Parse a reply of RG.PYEXPORTREQ."""
        info, pieces = reply
        return cls(PyRequirementInfo.from_redis(info), list(pieces))


@dataclass(frozen=True, repr=False)
class PySessionInfo(RedisObject):
    """A session: what one execution of a script or function created.

    Attributes:
        ID: its id.
        sessionDescription: the description that it was given, or `None`.
        refCount: number of its registrations, and of its executions that have not ended.
        linked: ``"primary"`` if it has registrations.
        dead: whether it only exists until its executions end.
        requirementInstallationNeeded: whether its requirements were installed for it.
        requirements: names of its requirements; with ``verbose`` what the server knows of them.
        registrations: ids of its registrations; with ``verbose`` the registrations.
    """

    ID: str = _field(safe_str)
    sessionDescription: str | None = _field(_optional_text, None)
    refCount: int = _field(int, 0)
    linked: str = _field(safe_str, "")
    dead: bool = _field(safe_bool, False)
    requirementInstallationNeeded: bool = _field(safe_bool, False)
    requirements: list[str | PyRequirementInfo] = _field(
        _list(lambda each: PyRequirementInfo.from_redis(each) if _is_row(each) else safe_str(each)),
        default_factory=list,
    )
    registrations: list[ExecID | Registration] = _field(
        _list(lambda each: Registration.from_redis(each) if _is_row(each) else ExecID.parse(each)),
        default_factory=list,
    )


def _is_row(value: Any) -> bool:
    return isinstance(value, (list, dict))


@dataclass(frozen=True, repr=False)
class PluginInfo(RedisObject):
    """A plugin of RedisGears that the module stands for."""

    name: str = _field(safe_str, "")
    version: int = _field(int, 0)


_BARE_WORD = re.compile(r"(?<=:)\s*(?:null|primary|temprary|true|false|None)\s*(?=[,}])")


def parse_PD(value: Any) -> dict[str, Any] | str:
    """Private data of a registration as a dict; the text itself if it cannot be parsed.

    The name of the session is the value of both ``"sessionName"`` and ``"sessionId"``.
    """
    text = safe_str(value)
    words = {"null": "None", "None": "None", "true": "True", "false": "False"}
    literal = _BARE_WORD.sub(lambda found: words.get(found[0].strip(), repr(found[0].strip())), text)
    for candidate in (text, literal):
        try:
            parsed = ast.literal_eval(candidate)
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            continue
        if isinstance(parsed, dict):
            if "sessionName" in parsed:
                parsed.setdefault("sessionId", parsed["sessionName"])  # its name in RedisGears 1.0
            return parsed
    return text
