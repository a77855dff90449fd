"""The conversion of replies."""

from __future__ import annotations

import copy
import inspect
import operator
import pickle

import pytest
from redgrease.data import (
    ClusterInfo,
    ExecID,
    ExecutionInfo,
    ExecutionPlan,
    ExecutionResult,
    ExecutionStatus,
    PyRequirementInfo,
    PyStats,
    Registration,
    StepError,
    parse_execute_response,
    parse_PD,
    parse_trigger_response,
)
from redgrease.exceptions import ScriptError

Z = "0" * 40

# -- ids and states


def test_exec_ids():
    assert str(ExecID()) == f"{Z}-0"
    assert bytes(ExecID("abc", 7)) == b"abc-7"
    assert repr(ExecID(sequence=7)) == "ExecID(sequence=7)"
    assert repr(ExecID("abc", 7)) == 'ExecID("abc", 7)'
    assert ExecID.parse(f"{Z}-12") == ExecID(sequence=12)
    assert ExecID.parse(b"a-b-3") == ExecID("a-b", 3)
    one = ExecID("abc", 7)
    assert ExecID.parse(one) is one
    assert ExecID.parse(ExecutionResult(one)) is one
    assert {one: 1}[ExecID("abc", 7)] == 1
    for bad in ("", "7", "abc", "abc-", "abc-x", "abc--", None, 7, [], "abc-\u00b2"):
        with pytest.raises(ValueError, match="not an execution id"):
            ExecID.parse(bad)


def test_status_equals_its_text():
    assert ExecutionStatus(b"done") == "done" == ExecutionStatus.done == b"done"
    assert str(ExecutionStatus.pending_run) == "pending_run"
    assert {ExecutionStatus.done: 1}["done"] == 1
    assert ExecutionStatus.done != ExecutionStatus.running
    with pytest.raises(ValueError, match="done"):
        ExecutionStatus("done")


# -- results


def test_a_result_stands_for_its_value():
    result = ExecutionResult(5, [])
    assert result == 5
    assert result != 6
    assert (result != 5) is False
    assert (result + 1, 1 + result, 10 - result, result * 2, -result, result**2, 7 % result) == (6, 6, 5, 10, -5, 25, 2)
    assert (result > 4, result <= 5, operator.lt(4, result), max(result, ExecutionResult(3))) == (True, True, True, 5)
    assert (int(result), float(result), bool(result), str(result), f"{result:03d}") == (5, 5.0, True, "5", "005")
    assert range(10)[result] == 5
    assert isinstance(result, int)
    assert isinstance(result, ExecutionResult)
    assert not isinstance(result, str)
    assert result.bit_length() == 3
    assert hash(result) == hash(5)
    assert {5: "x"}[result] == "x"
    assert repr(result) == "ExecutionResult[int](5)"
    assert ExecutionResult(result).value == 5
    assert round(ExecutionResult(1.25), 1) == 1.2
    with pytest.raises(AttributeError):
        result.no_such_thing  # noqa: B018


def test_a_scalar_looks_like_a_list_of_one():
    result = ExecutionResult(5)
    assert len(result) == 1
    assert list(result) == [5]
    assert result[0] == 5
    assert result == [5]
    assert 5 in result
    assert 6 not in result
    assert (result[-1], result[:1], result[1:]) == (5, [5], [])
    with pytest.raises(IndexError):
        result[1]
    nothing = ExecutionResult(None)
    assert (len(nothing), list(nothing), nothing[0], bool(nothing)) == (0, [], None, False)


@pytest.mark.parametrize("text", [b"abc", "abc", b"", ""])
def test_one_text_is_one_result(text):
    result = ExecutionResult(text)
    assert (len(result), list(result), result[0], result[-1], result[1:]) == (1, [text], text, text, text[1:])
    assert (text in result, list(reversed(result)), result.upper()) == (True, [text], text.upper())
    with pytest.raises(IndexError):
        result[1]


def test_text_is_text():
    result = ExecutionResult(b"abc")
    assert result == b"abc"
    assert result == [b"abc"]
    assert bytes(result) == b"abc"
    assert bytes(ExecutionResult("\u00e9")) == b"\xc3\xa9"
    assert int(ExecutionResult(b"12")) == 12


def test_a_list_is_a_list():
    result = ExecutionResult([3, 1, 2])
    assert sorted(result) == [1, 2, 3]
    assert (len(result), result[1], result[-1], list(reversed(result)), 3 in result) == (3, 1, 2, [2, 1, 3], True)
    assert result != [[3, 1, 2]]
    assert operator.add(result, [4]) == [3, 1, 2, 4]
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


def test_only_what_wraps_a_function_can_be_called():
    def add(a, b=2):
        """Add."""
        return a + b

    result = ExecutionResult(add)
    assert callable(result)
    assert result(1) == 3
    assert (result.__name__, result.__doc__) == ("add", "Add.")
    assert list(inspect.signature(result).parameters) == ["a", "b"]
    assert not callable(ExecutionResult(5))
    assert isinstance(result, ExecutionResult)


@pytest.mark.parametrize("value", [5, "text", [1, 2], {"a": 1}, None])
def test_results_can_be_pickled_and_copied(value):
    result = ExecutionResult(value, [StepError(b"x")])
    for again in (pickle.loads(pickle.dumps(result)), copy.copy(result), copy.deepcopy(result)):
        assert type(again) is ExecutionResult
        assert (again.value, again.errors, again.records) == (value, [b"x"], result.records)


# -- replies of PYEXECUTE and TRIGGER


@pytest.mark.parametrize("reply", [b"OK", "OK", True])
def test_ok_is_true(reply):
    result = parse_execute_response(reply)
    assert result.value is True
    assert result.errors is None


def test_results_and_errors():
    many = parse_execute_response([[b"1", b"2"], []], int)
    assert (many.value, many.errors, many.records) == ([1, 2], [], [1, 2])
    one = parse_execute_response([[b"1"], []], int)
    assert (one.value, one.records) == (1, [1])
    one_list = parse_execute_response([[b"x"], []], lambda record: [1, 2])
    assert (one_list.value, one_list.records) == ([1, 2], [[1, 2]])
    none = parse_execute_response([[], []])
    assert (none.value, none.records) == ([], [])
    assert isinstance(parse_execute_response(f"{Z}-3".encode()).value, ExecID)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("['Traceback (most recent call last):\\n', 'ValueError: no\\n']", "ValueError", "no"),
        ("Error type: <class 'TypeError'>, Value: unhashable type: 'list'", "TypeError", "unhashable type: 'list'"),
        ("Error type: <class 'a.b.Error'>, Value: ", "a.b.Error", ""),
        ("Execution was aborted", "", "Execution was aborted"),
    ],
)
def test_errors_have_a_type_and_a_message(text, kind, message):
    error = parse_execute_response([[], [text.encode()]]).errors[0]
    assert (error.type, error.message) == (kind, message)


def test_bytes_are_never_guessed_at():
    poison = pickle.dumps(ExecID())
    for record in (poison, b"hello", b"", b"NUM"):
        assert parse_execute_response([[record, b"x"], []]).value == [record, b"x"]
        assert parse_trigger_response([record]).value == record


def test_errors_of_steps_are_bytes_that_explain_themselves():
    traceback = ["Traceback (most recent call last):\n", '  File "<string>", line 1\n', "ValueError: bad: value\n"]
    result = parse_execute_response([[], [str(traceback).encode(), b"boo", "WORKERDIED worker 3"]])
    error, plain, code = result.errors
    assert isinstance(error, bytes)
    assert (error.type, error.message, error.traceback) == ("ValueError", "bad: value", traceback)
    assert str(error) == "".join(traceback).rstrip()
    assert (plain, plain.type, plain.message) == (b"boo", "", "boo")
    assert (code.type, code.message) == ("", "WORKERDIED worker 3")
    assert "errors=[" in repr(result)


def test_trigger_replies():
    assert parse_trigger_response([b"1", b"2"], int).value == [1, 2]
    assert parse_trigger_response([b"1"], int).value == 1
    assert parse_trigger_response([]).value == []
    assert parse_trigger_response([b"1"]).errors is None


# -- replies with named fields


def registration(*data, reader=b"CommandReader", pd=b"{}", tail=()):
    head = [b"id", f"{Z}-1".encode(), b"reader", reader, b"desc", None]
    return [*head, b"RegistrationData", list(data), b"PD", pd, *tail]


def test_registrations_of_all_versions():
    counts = [b"mode", b"async", b"numTriggered", 2, b"numSuccess", 1, b"numFailures", 1, b"numAborted", 0]
    old = [*counts, b"lastError", b"oops", b"args", [b"trigger", b"Bang"]]
    found = Registration.from_redis(registration(*old))
    assert (found.id, found.reader, found.desc, found.ExecutionThreadPool) == (
        ExecID(sequence=1),
        "CommandReader",
        None,
        "",
    )
    data = found.RegistrationData
    assert (data.mode, data.numTriggered, data.numSuccess, data.lastError) == ("async", 2, 1, b"oops")
    assert data.args == {"trigger": b"Bang"}
    assert data.lastRunDurationMS is None
    assert data.status is None

    new = [
        *counts,
        b"lastRunDurationMS",
        3,
        b"avgRunDurationMS",
        b"1.5",
        b"lastError",
        None,
        b"args",
        [b"stream", b"s"],
    ]
    pool = (b"ExecutionThreadPool", b"DefaultPool", b"someday", 1)
    found = Registration.from_redis(registration(*new, b"status", b"OK", b"unheard", b"of", tail=pool))
    data = found.RegistrationData
    assert (data.lastRunDurationMS, data.avgRunDurationMS, data.status) == (3, 1.5, True)
    assert data.extra == {"unheard": b"of"}
    assert found.extra == {"someday": 1}
    assert found.ExecutionThreadPool == "DefaultPool"
    assert "PD" not in repr(found)


def test_registrations_as_maps():
    found = Registration.from_redis(
        {b"id": f"{Z}-1".encode(), b"reader": b"KeysReader", b"RegistrationData": {b"mode": b"sync"}}
    )
    assert found.RegistrationData.mode == "sync"


def test_missing_mandatory_fields_are_noticed():
    with pytest.raises(TypeError):
        Registration.from_redis([b"reader", b"KeysReader"])


def test_private_data_is_a_dict_where_it_can_be():
    assert parse_PD(b"{'sessionId': 'x', 'depsList': []}") == {"sessionId": "x", "depsList": []}
    text = (
        "{'sessionName':'x', 'sessionDescription':null, 'refCount': 1, 'linkedTo': primary, 'dead': false, "
        "'isInstallationNeeded':0, 'registrationsList':['a-1', ], 'depsList':[]}"
    )
    assert parse_PD(text) == {
        "sessionName": "x",
        "sessionId": "x",
        "sessionDescription": None,
        "refCount": 1,
        "linkedTo": "primary",
        "dead": False,
        "isInstallationNeeded": 0,
        "registrationsList": ["a-1"],
        "depsList": [],
    }
    assert parse_PD("no dict {") == "no dict {"


def test_execution_info():
    info = ExecutionInfo.from_redis([b"executionId", f"{Z}-4".encode(), b"status", b"running", b"registered", 0])
    assert info == ExecutionInfo(ExecID(sequence=4), ExecutionStatus.running, False)
    assert ExecutionInfo.from_redis([b"executionId", b"a-4", b"status", b"new", b"registered", 1]).status == "new"


def test_execution_plan():
    step = [b"type", b"map", b"duration", 2, b"name", b"python map", b"arg", b"<function>"]
    plan = [b"status", b"done", b"shards_received", 0, b"shards_completed", 0, b"results", 2, b"errors", [b"boo"]]
    plan += [b"total_duration", 5, b"read_duration", 1, b"steps", [step]]
    parsed = ExecutionPlan.parse([[b"shard_id", Z.encode(), b"execution_plan", plan]])
    assert list(parsed) == [Z]
    found = parsed[Z]
    assert (found.status, found.results, found.errors, found.total_duration) == ("done", 2, [b"boo"], 5)
    assert (found.steps[0].type, found.steps[0].duration, found.steps[0].name) == ("map", 2, "python map")


def test_cluster_info():
    assert ClusterInfo.parse(b"no cluster mode") is None
    assert ClusterInfo.parse([]) is None
    shard = [b"id", b"n1", b"ip", b"127.0.0.1", b"port", 30001, b"unixSocket", b"None", b"runid", b"r1"]
    shard += [b"minHslot", 0, b"maxHslot", 5460, b"pendingMessages", 0]
    info = ClusterInfo.parse([b"MyId", b"n1", b"MyRunId", b"r1", [shard]])
    assert (info.my_id, info.my_run_id, len(info.shards)) == ("n1", "r1", 1)
    assert (info.shards[0].port, info.shards[0].maxHslot) == (30001, 5460)


def test_stats_and_requirements():
    stats = PyStats.from_redis([b"TotalAllocated", 41275404, b"PeakAllocated", 11867779, b"CurrAllocated", 11786368])
    assert str(stats) == "PyStats(TotalAllocated=41275404, PeakAllocated=11867779, CurrAllocated=11786368)"
    flat = [b"GearReqVersion", 1, b"Name", b"numpy", b"IsDownloaded", b"yes", b"IsInstalled", b"no"]
    old = PyRequirementInfo.from_redis(flat)
    assert (old.Name, old.IsDownloaded, old.IsInstalled, old.CompiledOs, old.Wheels) == ("numpy", True, False, None, [])
    new = PyRequirementInfo.from_redis([*flat, b"CompiledOs", b"linux", b"Wheels", [b"a.whl"], b"RefCount", 1])
    assert (new.CompiledOs, new.Wheels, new.extra) == ("linux", ["a.whl"], {"RefCount": 1})
    assert PyRequirementInfo.from_redis([*flat, b"Wheels", b"not downloaded"]).Wheels == "not downloaded"


def test_an_exception_with_notes_is_itself() -> None:
    head = "Traceback (most recent call last):\n"
    frame = '  File "a.py", line 1, in f\n'
    group = ["  + Exception Group Traceback (most recent call last):\n", '  |   File "a.py", line 1, in f\n']
    group += ["  | ExceptionGroup: two (2 sub-exceptions)\n", "  +-+---------------- 1 ----------------\n"]
    group += ["    | ValueError: 1\n", "    +------------------------------------\n"]
    for lines, kind, message in (
        ([head, frame, "ValueError: no\n"], "ValueError", "no"),
        ([head, frame, "ValueError: no\nmore\n", "a note: here\n"], "ValueError", "no\nmore"),
        (
            [head, frame, "    x = = 1\n", "        ^\n", "SyntaxError: invalid syntax\n"],
            "SyntaxError",
            "invalid syntax",
        ),
        (group, "ExceptionGroup", "two (2 sub-exceptions)"),
        ([head, frame], "", frame.strip()),
    ):
        error = ScriptError(repr(lines))
        assert (error.type, error.message) == (kind, message)
