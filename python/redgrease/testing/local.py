"""`run_local`: gear functions in this process, without a server.

The plan of a function is executed by the extension that also executes it in a server's workers, so there is no second
interpretation of the operations. This module makes the records of a reader from plain data, and stands in for the
functions of `redgrease.runtime`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Callable, TypeVar

from redis.exceptions import ResponseError

from .. import _native
from ..commands import count_nothing
from ..data import ExecutionResult, parse_execute_response, parse_trigger_response
from ..exceptions import script_error
from ..gearialization import closed_function, plan_of
from ..gears import ClosedGearFunction, GearFunction, OpenGearFunction, Register, Run
from ..runtime import GearsBuilder, stand_in
from ..worker.errors import describe
from .records import arguments_of, command_name, read
from .stand_in import StandIn

__all__ = ["run_local"]

T = TypeVar("T")


def run_local(
    function: GearFunction[T],
    data: Mapping[Any, Any] | Iterable[Any] | None = None,
    *,
    arguments: Iterable[Any] | None = None,
    execute: Callable[..., Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> ExecutionResult[T]:
    """Run a gear function on given records in this process, without a server.

    The callbacks are called in this process as they are: they may refer to mocks, and their side effects are visible.
    A server gets copies of them. `log` writes to the logger ``redgrease.testing``, `atomic` only checks that blocks are
    not nested, `hashtag` returns that of a single server, and futures and coroutines work.

    Args:
        function: a gear function: open, closed by ``run``, or registered as a command. Functions that are registered
            for other events run on records, but not on a mapping.
        data: what the reader reads. A mapping is the content of a database, from which the reader selects as on a
            server: for a KeysReader and a KeysOnlyReader values by key (text, `bytes` and numbers are strings, a
            mapping is a hash, a list or tuple a list, a set a set); for a StreamReader lists of messages by stream (a
            message is a mapping of its fields, or a pair of its id and that mapping; ids are ``1-0``, ``2-0``, ... by
            default). Anything else is an iterable of records as the function gets them. A PythonReader and a
            ShardsIDReader need no data.
        arguments: of a command: text, `bytes` or numbers.
        execute: stands in for `redgrease.execute` and `redgrease.cmd`: ``execute(command, *args)`` returns the reply of
            the server. For example the ``execute_command`` of a client, or a function that knows a few commands.
        config: values for `redgrease.configGet`.

    Returns:
        As ``function.run(on=...)`` does: results and, in ``errors``, the errors of steps. For a command the result of
        triggering it.

    Raises:
        TypeError: the function cannot be run, or the data is not of the form described here.
        redgrease.exceptions.ScriptError: a command failed.
        ValueError: an argument of ``run`` or ``register`` is wrong.

    >>> from redgrease import CommandReader, KeysReader, cmd
    >>> run_local(KeysReader("n:*").values().map(int).avg(), {"n:1": 1, "n:2": 2}).value
    1.5
    >>> run_local(KeysReader().keys().map(cmd.get), {"a": 1}, execute=lambda command, key: f"{command} {key}").value
    'GET a'
    >>> greet = CommandReader().apply(lambda name: f"Hello {name}").register(trigger="greet")
    >>> run_local(greet, arguments=["Ann"]).value
    'Hello Ann'
    >>> run_local(KeysReader().values().map(int), {"a": "one"}).errors[0].message
    "invalid literal for int() with base 10: 'one'"
    """
    closed = _closed(function, data)
    plan = plan_of(closed)
    is_command = closed.reader == "CommandReader"
    if is_command and data is None:
        data = [[command_name(closed), *arguments_of(arguments)]]
    elif arguments is not None:
        raise TypeError("arguments are for commands without other data: give the records of other readers as data")
    source, records = read(closed, plan, data)
    encoded = [_encoded(number, record) for number, record in enumerate(records)]
    hooks = _Hooks()
    token = stand_in.set(StandIn(execute, config))
    try:
        values, errors = _native.run_local(
            plan.spec, plan.callbacks, source, len(encoded), b"".join(encoded), hooks, hooks.describe
        )
    finally:
        stand_in.reset(token)
    if hooks.interruption is not None:
        raise hooks.interruption
    if is_command:
        if errors:
            raise script_error(ResponseError(errors[0].decode("utf-8", "replace")))
        return parse_trigger_response(values)
    result = parse_execute_response([values, errors])
    count_nothing(closed, result)
    return result


def _closed(function: Any, data: Any) -> ClosedGearFunction[Any]:
    if isinstance(function, GearsBuilder):
        function = function.closed or function.gearfunction
    if isinstance(function, OpenGearFunction):
        if function.reader == "CommandReader":
            return ClosedGearFunction(Register(convertToStr=False, trigger="command"), function)
        if function.reader == "PythonReader":
            if data is None:
                raise TypeError(
                    "the PythonReader has no function: close it by run(function), or give its records as data"
                )
            # Never called: the records are given.
            return ClosedGearFunction(Run(tuple, False), function)
    function = closed_function(function)
    if not isinstance(function, ClosedGearFunction):
        raise TypeError(f"run_local runs gear functions, such as KeysReader().count(), got {function!r}")
    return function


def _encoded(number: int, record: Any) -> bytes:
    try:
        return _native.dumps(record)
    except Exception as error:
        raise TypeError(f"record {number} cannot be given to a function: {error}") from error


class _Hooks:
    """What the executor calls, as a worker's sessions do for it."""

    def __init__(self) -> None:
        #: What ends the test, not only its function: Ctrl-C, ``pytest.fail()``.
        self.interruption: BaseException | None = None

    def describe(self, error: BaseException, with_traceback: bool) -> str:
        """Text of an exception of user code."""
        if not isinstance(error, (Exception, GeneratorExit, SystemExit)):
            self.interruption = error
        return describe(error, with_traceback)

    def spawn(self, awaitable: Any, future: Any, execution: int, session: int) -> None:
        """Run what a step returned on the event loop."""
        from ..worker import coroutines

        coroutines.spawn(awaitable, future, execution, session)

    def cancel(self, task: Any) -> None:
        """Cancel a task of `spawn`."""
        from ..worker import coroutines

        coroutines.cancel(task)
