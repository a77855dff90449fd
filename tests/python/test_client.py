"""The client without a server: its requests, and the conversion of replies and errors."""

from __future__ import annotations

import asyncio
import inspect
import pickle
from types import SimpleNamespace
from typing import get_type_hints

import pytest
import redgrease
import redis
import redis.asyncio
from redgrease import _native, codec
from redgrease.client import Gears, Redis, RedisCluster, RedisGears
from redgrease.data import (
    ExecID,
    ExecutionInfo,
    ExecutionResult,
    ExecutionStatus,
    ExportedRequirement,
    PluginInfo,
    PyRequirementInfo,
    PySessionInfo,
    Registration,
)
from redgrease.exceptions import DuplicateTriggerError, ScriptError
from redgrease.exchange import Request, Shards
from redgrease.gears import Run
from redgrease.utils import Record
from redis.exceptions import ResponseError

Z = "0" * 40
PREFIX = ("RG.WITHCODEC", 1)


@pytest.fixture(autouse=True)
def extension(monkeypatch):
    """Stands for the compiled extension; refuses what that must refuse."""

    def loads(data, allow_pickle):
        assert data.startswith(b"tagged:")
        assert allow_pickle
        return pickle.loads(data[7:])

    monkeypatch.setattr(codec, "_native", SimpleNamespace(loads=loads, dumps=lambda value, *_: tagged(value)))
    monkeypatch.setattr(codec, "_looked", True)


def tagged(value):
    return b"tagged:" + pickle.dumps(value)


class Server:
    """Answers commands with the given replies, and records them."""

    def __init__(self, *replies):
        self.replies = list(replies)
        self.sent = []

    def execute_command(self, *args, **options):
        assert options == {"NEVER_DECODE": True}
        self.sent.append(args)
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def on(*replies):
    server = Server(*replies)
    return Gears(server), server.sent


def command_entry(sequence, name):
    data = [b"mode", b"async", b"args", [b"trigger", name]]
    return [b"id", f"{Z}-{sequence}".encode(), b"reader", b"CommandReader", b"RegistrationData", data]


def entry(reader, desc=None, mode=b"async", **args):
    flat = [item for name, value in args.items() for item in (name.encode(), value)]
    data = [b"mode", mode, b"args", flat]
    return [b"id", f"{Z}-1".encode(), b"reader", reader, b"desc", desc, b"RegistrationData", data]


# -- pyexecute


def test_text_is_sent_as_it_is_and_records_stay_bytes():
    gears, sent = on([[tagged(b"1"), tagged(b"NUM")], []])
    assert gears.pyexecute("GB().run()") == [b"1", b"NUM"]
    assert sent == [(*PREFIX, "RG.PYEXECUTE", "GB().run()")]


@pytest.mark.parametrize("wrong", [b"GB().run()", 5, [1], len, lambda: None])
def test_only_text_is_a_script(wrong):
    gears, sent = on(b"OK")
    with pytest.raises(TypeError, match="is not a gear function"):
        gears.pyexecute(wrong)
    assert sent == []


def test_nothing_is_a_legal_script():
    gears, sent = on(b"OK")
    assert gears.pyexecute() == True  # noqa: E712 - the value, not its truth
    assert sent == [(*PREFIX, "RG.PYEXECUTE", "")]


def test_options_come_in_order():
    gears, sent = on(f"{Z}-3".encode())
    result = gears.pyexecute("GB().run()", unblocking=True, requirements=["b", "a>=1", "b"])
    assert result.value == ExecID(sequence=3)
    assert sent == [(*PREFIX, "RG.PYEXECUTE", "GB().run()", "UNBLOCKING", "REQUIREMENTS", "a>=1", "b")]


def test_objects_are_sent_as_plan_and_callbacks_and_come_back_as_values():
    gears, sent = on([[tagged(Record("x"))], []], f"{Z}-3".encode())
    function = redgrease.KeysReader(requirements=["numpy"]).records()
    assert gears.pyexecute(function) == Record("x")
    assert gears.pyexecute(function, unblocking=True).value == ExecID(sequence=3)
    command, unblocking = sent
    assert command[:3] == (*PREFIX, "RG.PYEXECUTE")
    assert command[3].startswith("# redgrease function, format 1, python 3.")
    assert command[4] == "RUN" and command[7:] == ("REQUIREMENTS", "numpy")
    spec = _native.loads(command[5])
    assert (spec["reader"], spec["steps"]) == ("KeysReader", [["map"], ["collect"]])
    plan = pickle.loads(command[6])
    assert plan.spec == command[5] and len(plan.callbacks) == 2
    assert unblocking[4:6] == ("UNBLOCKING", "RUN")


def test_a_registration_of_an_object_says_so():
    gears, sent = on(b"OK")
    gears.pyexecute(redgrease.KeysReader().foreach(print).register("a*", onRegistered=list))
    assert sent[0][4] == "REGISTER" and _native.loads(sent[0][5])["args"]["prefix"] == "a*"
    assert pickle.loads(sent[0][6]).on_registered() == []


@pytest.mark.parametrize("word", ["RUN", "REGISTER"])
def test_a_server_that_takes_no_plans_gets_a_script_and_is_remembered(word):
    refused = ResponseError(f"Unknown arguments were given: {word}")
    function = redgrease.KeysReader().map(str)
    function = function.run() if word == "RUN" else function.register()
    server = Server(refused, b"OK", b"OK")
    for _ in range(2):
        Gears(server).pyexecute(function)
    assert [command[4:5] for command in server.sent] == [(word,), (), ()]
    assert all("run_serialized(" in command[3] for command in server.sent[1:])


def test_other_refusals_of_a_plan_are_errors():
    gears, sent = on(ResponseError("NOPYTHON there is none"), ResponseError("Unknown arguments were given: FAST"))
    for _ in range(2):
        with pytest.raises(ResponseError):
            gears.pyexecute(redgrease.KeysReader())
    assert len(sent) == 2


def test_a_function_with_a_wrong_argument_is_sent_as_a_script_for_the_server_s_error():
    gears, sent = on(b"OK")
    wrong = redgrease.ClosedGearFunction(Run(fromId="1-0"), redgrease.KeysReader())  # `run` refuses this
    gears.pyexecute(wrong)
    assert "run_serialized(" in sent[0][3] and len(sent[0]) == 4


def test_one_requirement_needs_no_list():
    for execute in (
        lambda gears: gears.pyexecute("GB().run()", requirements="requests"),
        lambda gears: redgrease.KeysReader().run(requirements="requests").on(gears),
        lambda gears: redgrease.KeysReader().run().on(gears, requirements="requests"),
        lambda gears: redgrease.KeysReader().run(requirements="requests", on=gears),
    ):
        gears, sent = on([[], []])
        execute(gears)
        assert sent[-1][-2:] == ("REQUIREMENTS", "requests")


def test_this_package_is_asked_for_only_when_told_to():
    gears, sent = on(b"OK", b"OK")
    gears.pyexecute(redgrease.KeysReader())
    gears.pyexecute(redgrease.KeysReader(), enforce_redgrease="1.0")
    assert len(sent[0]) == 7
    assert sent[1][7:] == ("REQUIREMENTS", "redgrease[runtime]==1.0")


def test_text_gives_values_unless_they_are_not_wanted():
    script = "import redgrease\nredgrease.KeysReader().run()"
    gears, sent = on([[tagged({"a": 1})], []], [[b"{'a': 1}"], []])
    assert gears.pyexecute(script) == {"a": 1}
    assert gears.pyexecute(script, values=False) == b"{'a': 1}"
    assert sent == [(*PREFIX, "RG.PYEXECUTE", script), ("RG.PYEXECUTE", script)]


def test_a_run_that_asked_for_values_gives_them_later():
    for values in (True, False):
        gears, sent = on(f"{Z}-3".encode(), [[tagged(3) if values else b"3"], []])
        assert gears.getresultsblocking(gears.pyexecute("x", unblocking=True, values=values)) == (3 if values else b"3")
        assert [command[0] == "RG.WITHCODEC" for command in sent] == [values, values]


def test_without_the_extension_replies_are_plain(monkeypatch):
    monkeypatch.setattr(codec, "_native", None)
    gears, sent = on([[7], []])
    assert gears.pyexecute(redgrease.KeysReader().count()) == 7
    assert sent[0][0] == "RG.PYEXECUTE"
    with pytest.raises(ModuleNotFoundError, match="compiled part of redgrease"):
        codec.loads(b"")


def test_a_count_of_nothing_is_0():
    gears, _ = on([[], []], [[], [b"error"]], [[], []])
    assert gears.pyexecute(redgrease.KeysReader().count()).value == 0
    assert gears.pyexecute(redgrease.KeysReader().count()).value == []
    assert gears.pyexecute(redgrease.KeysReader().avg()).value == []


def test_scripts_can_be_files(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("GB().run()", encoding="utf-8")
    gears, sent = on(b"OK", b"OK", b"OK")
    gears.pyexecute(script)
    gears.pyexecute(str(script))
    monkeypatch.chdir(tmp_path)
    gears.pyexecute("script.py")
    assert sent == [(*PREFIX, "RG.PYEXECUTE", "GB().run()")] * 3
    with pytest.raises(FileNotFoundError):
        gears.pyexecute("no_such_script.py")
    with pytest.raises(IsADirectoryError):
        gears.pyexecute(str(tmp_path))
    with pytest.raises(TypeError):
        gears.pyexecute(None)


def test_an_open_command_function_is_refused():
    gears, sent = on()
    with pytest.raises(TypeError, match="Batch mode"):
        gears.pyexecute(redgrease.CommandReader())
    assert not sent


def test_script_errors_keep_text_and_traceback():
    lines = ["Traceback (most recent call last):\n", '  File "<string>", line 1, in <module>\n', "NameError: q\n"]
    gears, _ = on(ResponseError(str(lines)), ResponseError("ERR no list ["), redis.exceptions.OutOfMemoryError("full"))
    with pytest.raises(ScriptError) as caught:
        gears.pyexecute("q")
    error = caught.value
    assert isinstance(error, ResponseError)
    assert (error.raw, error.traceback, error.type, error.message) == (str(lines), lines, "NameError", "q")
    assert str(error) == "".join(lines).rstrip()
    with pytest.raises(ScriptError, match=r"^ERR no list \[$"):
        gears.pyexecute("q")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        gears.pyexecute("q")


def test_errors_of_shards_are_raised():
    gears, _ = on([ResponseError("-ERR shard-a: trigger already registered")])
    with pytest.raises(DuplicateTriggerError):
        gears.pyexecute("GB('CommandReader').register(trigger='x')")


def test_options_of_the_session_are_sent_in_front_of_the_function():
    gears, sent = on(b"OK", b"OK", b"OK")
    options = {"id": "lib-1", "description": "a library", "upgrade": True, "force_reinstall_requirements": True}
    words = ("ID", "lib-1", "DESCRIPTION", "a library", "UPGRADE", "FORCE_REINSTALL_REQUIREMENTS")
    gears.pyexecute("x", unblocking=True, requirements=["numpy"], **options)
    assert sent[0][2:] == ("RG.PYEXECUTE", "x", "UNBLOCKING", *words, "REQUIREMENTS", "numpy")
    redgrease.KeysReader().register(on=gears, **options)
    assert sent[1][4:10] == words and sent[1][10] == "REGISTER"
    redgrease.KeysReader().run().on(gears, **options)
    assert sent[2][4:10] == words and sent[2][10] == "RUN"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("lib", "lib"),
        (b"lib", "lib"),
        (PySessionInfo("lib"), "lib"),
        (ExecID(sequence=7), f"{Z}-7"),
        (Registration(ExecID(sequence=7), "KeysReader"), f"{Z}-7"),
    ],
)
def test_what_is_replaced_can_be_named_in_many_ways(given, word):
    gears, sent = on(b"OK")
    redgrease.KeysReader().register(on=gears, replace_with=given, id="new")
    assert sent[0][4:8] == ("ID", "new", "REPLACE_WITH", word)


@pytest.mark.parametrize(
    "options",
    [
        {"id": "no spaces"},
        {"id": ""},
        {"upgrade": True},
        {"replace_with": "a", "id": "b", "upgrade": True},
        {"replace_with": "a", "replace": True},
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_is_sent(options):
    gears, sent = on()
    with pytest.raises(ValueError):
        gears.pyexecute("x", **options)
    assert not sent


def test_options_of_the_session_need_a_client():
    for close in (redgrease.KeysReader().run, redgrease.KeysReader().register):
        with pytest.raises(TypeError, match=r"id needs a client: give on=, or give it to \.on\(\)"):
            close(id="x")


# -- commands

DUPLICATE = ResponseError("['Traceback (most recent call last):\\n', 'gears.error: trigger already registered\\n']")


def test_a_registered_command_can_be_called():
    gears, sent = on(b"OK", [tagged(7)])

    @redgrease.command(on=gears)
    def add(a, b=2):
        """Add."""

    assert add(5) == 7
    assert sent[1] == (*PREFIX, "RG.TRIGGER", "add", 5)
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    assert isinstance(add, ExecutionResult)


def test_arguments_are_checked_here_and_travel_by_position():
    gears, sent = on(b"OK", [], [])

    @redgrease.command(on=gears)
    def add(a, b=2, *, c=3):
        pass

    with pytest.raises(TypeError, match="missing a required argument"):
        add()
    with pytest.raises(TypeError, match="only positional arguments are sent"):
        add(1, c=4)
    add(b=1, a=5)
    assert sent[1][4:] == (5, 1)
    add(ExecutionResult(1))
    assert sent[2][4:] == (1,)


def test_duplicates_raise_by_default_with_a_name():
    gears, _ = on(DUPLICATE)
    with pytest.raises(DuplicateTriggerError, match=r"'twice'.*replace=True") as caught:
        redgrease.command("twice", on=gears)(len)
    assert caught.value.trigger == "twice"


def test_replace_false_keeps_the_old_command():
    gears, sent = on(DUPLICATE, [tagged(1)])
    command = redgrease.command("twice", on=gears, replace=False)(len)
    assert command("x") == 1
    assert len(sent) == 2


def replaced(command):
    """What a command to register a function replaces."""
    return command[command.index("REPLACE_WITH") + 1] if "REPLACE_WITH" in command else None


def test_replace_true_replaces_the_command_of_that_name_in_one_step():
    listed = [command_entry(1, b"other"), command_entry(2, b"twice"), entry(b"KeysReader", regex=b"*")]
    gears, sent = on(DUPLICATE, listed, b"OK", [tagged(3)])
    command = redgrease.command("twice", on=gears, replace=True)(len)
    assert sent[1] == ("RG.DUMPREGISTRATIONS",)
    assert [replaced(sent[0]), replaced(sent[2])] == [None, f"{Z}-2"]
    assert command("x") == 3
    assert not any("RG.UNREGISTER" in command for command in sent)


def test_replace_true_replaces_nothing_else_when_the_command_is_gone():
    gears, sent = on(DUPLICATE, [command_entry(1, b"other")], b"OK")
    redgrease.command("twice", on=gears, replace=True)(len)
    assert replaced(sent[2]) is None


def test_replace_true_tries_again_when_others_replace_the_command():
    gone = ResponseError(f"Can not replace with {Z}-2, session does not exists.")
    first, second = [command_entry(2, b"twice")], [command_entry(3, b"twice")]
    gears, sent = on(DUPLICATE, first, gone, second, DUPLICATE, second, b"OK")
    redgrease.command("twice", on=gears, replace=True)(len)
    assert [replaced(command) for command in sent[2::2]] == [f"{Z}-2", f"{Z}-3", f"{Z}-3"]
    endless = [DUPLICATE, *[first, DUPLICATE] * 10]
    gears, sent = on(*endless)
    with pytest.raises(DuplicateTriggerError):
        redgrease.command("twice", on=gears, replace=True)(len)
    assert len(sent) == len(endless)


def test_replace_true_raises_what_keeps_the_new_function_from_starting():
    gears, sent = on(DUPLICATE, [command_entry(2, b"twice")], ResponseError("NOPERM of another user"))
    with pytest.raises(ScriptError, match="NOPERM"):
        redgrease.command("twice", on=gears, replace=True)(len)
    assert len(sent) == 3


def test_a_failed_command_raises_its_traceback():
    gears, _ = on(ResponseError("['Traceback', 'ValueError: no\\n']"))
    with pytest.raises(ScriptError, match="ValueError: no"):
        gears.trigger("x")


def test_a_proxy_travels_without_its_connection():
    gears, _ = on(b"OK")

    @redgrease.command(on=gears)
    def visit(user):
        pass

    again = pickle.loads(pickle.dumps(visit.value))
    assert (again.trigger, again._gears) == ("visit", None)


# -- executions and registrations


def test_ids_are_taken_in_every_form():
    forms = [f"{Z}-7", f"{Z}-7".encode(), ExecID(sequence=7), ExecutionResult(ExecID(sequence=7))]
    forms += [ExecutionInfo(ExecID(sequence=7), ExecutionStatus.done, False)]
    gears, sent = on(*[b"OK"] * len(forms), b"OK")
    assert all(gears.dropexecution(form) is True for form in forms)
    assert set(sent) == {("RG.DROPEXECUTION", f"{Z}-7".encode())}
    assert gears.unregister(Registration(ExecID(sequence=8), "KeysReader")) is True
    assert sent[-1] == ("RG.UNREGISTER", f"{Z}-8".encode())
    with pytest.raises(ValueError, match="not an execution id"):
        gears.abortexecution("seven")


def test_results_without_values_are_plain_later_too():
    gears, sent = on(f"{Z}-1".encode(), [[b"3"], []], f"{Z}-2".encode(), [[tagged(3)], []])
    assert gears.getresultsblocking(gears.pyexecute("GB().run()", unblocking=True, values=False)) == b"3"
    assert gears.getresults(redgrease.KeysReader().run().on(gears, unblocking=True)) == 3
    assert sent[1][0] == "RG.GETRESULTSBLOCKING"
    assert sent[3] == (*PREFIX, "RG.GETRESULTS", f"{Z}-2".encode())


def test_executions_are_filtered_by_state_and_origin():
    def line(sequence, status, registered):
        return [b"executionId", f"{Z}-{sequence}".encode(), b"status", status, b"registered", registered]

    lines = [line(1, b"done", 0), line(2, b"running", 1), line(3, b"done", 1)]

    def found(**filters):
        return [info.executionId.sequence for info in on(lines)[0].dumpexecutions(**filters)]

    assert found() == [1, 2, 3]
    assert found(status="done") == found(status=ExecutionStatus.done) == found(status=b"done") == [1, 3]
    assert found(registered=True) == [2, 3]
    assert found(registered=False) == [1]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, 5),
        ({"reader": "KeysReader"}, 2),
        ({"mode": "sync"}, 1),
        ({"desc": "my*"}, 1),
        ({"desc": "*"}, 1),
        ({"key": "person:1"}, 1),
        ({"key": "exact"}, 1),
        ({"key": "other"}, 0),
        ({"stream": "s:1"}, 1),
        ({"stream": "t"}, 0),
        ({"trigger": "one"}, 1),
        ({"trigger": "three"}, 0),
        ({"reader": "CommandReader", "trigger": "two"}, 1),
    ],
)
def test_registrations_are_filtered_by_what_matches(filters, expected):
    listed = [
        entry(b"KeysReader", desc=b"my keys", regex=b"person:*"),
        entry(b"KeysReader", mode=b"sync", regex=b"exact"),
        entry(b"StreamReader", stream=b"s:*"),
        entry(b"CommandReader", trigger=b"one"),
        entry(b"CommandReader", trigger=b"two"),
    ]
    assert len(on(listed)[0].dumpregistrations(**filters)) == expected


def test_getexecution_passes_the_locality():
    gears, sent = on([], [])
    gears.getexecution(ExecID(sequence=1), "shard")
    gears.getexecution(ExecID(sequence=1))
    assert sent == [("RG.GETEXECUTION", f"{Z}-1".encode(), "SHARD"), ("RG.GETEXECUTION", f"{Z}-1".encode())]


# -- the engine


def test_versions():
    gears, sent = on(
        [[tagged(b"(3, 11, 7, 'final', 0)")], []], [[b"name", b"rg", b"ver", 10213], [b"name", b"x", b"ver", 1]]
    )
    assert gears.python_version() == gears.python_version() == (3, 11, 7, "final", 0)
    assert gears.gears_version() == gears.gears_version() == (1, 2, 13)
    assert len(sent) == 2
    assert on([])[0].gears_version() is None


def test_small_commands():
    assert on(b"no cluster mode")[0].infocluster() is None
    assert on(b"OK")[0].refreshcluster() is True
    assert on([b"TotalAllocated", 1, b"PeakAllocated", 2, b"CurrAllocated", 3])[0].pystats().PeakAllocated == 2
    reqs = [[b"Name", b"Foo_Bar==1", b"IsInstalled", b"yes"], [b"Name", b"baz", b"IsInstalled", b"no"]]
    assert [info.Name for info in on(reqs)[0].pydumpreqs(name="foo-bar")] == ["Foo_Bar==1"]
    assert [info.Name for info in on(reqs)[0].pydumpreqs(is_installed=False)] == ["baz"]


def test_sessions_are_listed():
    row = [b"ID", b"lib", b"sessionDescription", None, b"refCount", 2, b"linked", b"primary", b"dead", b"false"]
    row += [b"requirementInstallationNeeded", 1, b"registrations", [f"{Z}-3".encode()], b"requirements", [b"numpy"]]
    gears, sent = on([[*row, b"future", b"field"], b"Session none does not exists"], [], [])
    [session] = gears.pydumpsessions(["lib", b"none"])
    assert session == PySessionInfo("lib", None, 2, "primary", False, True, ["numpy"], [ExecID(sequence=3)])
    assert session.extra == {"future": b"field"}
    gears.pydumpsessions(verbose=True, dead=True)
    gears.pydumpsessions(session)
    words = [("SESSIONS", "lib", "none"), ("VERBOSE", "DEAD"), ("SESSIONS", "lib")]
    assert sent == [("RG.PYDUMPSESSIONS", *each) for each in words]


def test_verbose_sessions_have_registrations_and_requirements():
    row = [b"ID", b"lib", b"requirements", [[b"Name", b"numpy"]], b"registrations", [command_entry(3, b"t")]]
    [session] = on([row])[0].pydumpsessions(verbose=True)
    [requirement], [registration] = session.requirements, session.registrations
    assert requirement.Name == "numpy"
    assert (registration.id, registration.RegistrationData.args["trigger"]) == (ExecID(sequence=3), b"t")


def test_profiles():
    gears, sent = on(b"12 calls", b"1 call", b"OK")
    assert gears.pyprofile_stats("lib") == "12 calls"
    assert gears.pyprofile_stats(PySessionInfo("lib"), order="cumulative") == "1 call"
    assert gears.pyprofile_reset("lib") is True
    words = [("STATS", "lib"), ("STATS", "lib", "cumulative"), ("RESET", "lib")]
    assert sent == [("RG.PYPROFILE", *each) for each in words]


def test_a_command_is_triggered_on_a_key():
    gears, sent = on([tagged(1)])
    assert gears.triggeronkey("t", "user:1", 5) == 1
    assert sent == [(*PREFIX, "RG.TRIGGERONKEY", "t", "user:1", 5)]


def test_registrations_are_paused_and_removed():
    gears, sent = on(*[b"OK"] * 5)
    registration = Registration(ExecID(sequence=1), "StreamReader")
    assert gears.pauseregistrations(registration, f"{Z}-2")
    assert gears.pauseregistrations(registration, abort_pending=True)
    assert gears.unpauseregistrations(registration)
    assert gears.unregister(registration, abort_pending=True)
    assert gears.clearregistrationsstats()
    one, two = f"{Z}-1".encode(), f"{Z}-2".encode()
    assert sent == [
        ("RG.PAUSEREGISTRATIONS", one, two),
        ("RG.PAUSEREGISTRATIONS", "ABORTPENDING", one),
        ("RG.UNPAUSEREGISTRATIONS", one),
        ("RG.UNREGISTER", one, "ABORTPENDING"),
        ("RG.CLEARREGISTRATIONSSTATS",),
    ]
    with pytest.raises(TypeError, match="at least one"):
        gears.pauseregistrations()


def test_requirements_are_exported_and_imported():
    gears, sent = on([[b"Name", b"numpy"], [b"one", b"two"]], b"OK", b"OK")
    exported = gears.pyexportreq(PyRequirementInfo(Name="numpy"))
    assert isinstance(exported, ExportedRequirement)
    assert (exported.info.Name, exported.pieces) == ("numpy", [b"one", b"two"])
    assert gears.pyimportreq(exported) and gears.pyimportreq([b"one"])
    assert sent == [
        ("RG.PYEXPORTREQ", "numpy"),
        ("RG.PYIMPORTREQ", b"one", b"two"),
        ("RG.PYIMPORTREQ", b"one"),
    ]
    with pytest.raises(TypeError, match="list of its pieces"):
        gears.pyimportreq(b"one")


def test_the_links_between_shards_are_tested():
    gears, sent = on(b"OK", "OK", b"no")
    assert (gears.networktest(), gears.networktest(), gears.networktest()) == (True, True, False)
    assert sent[0] == ("RG.NETWORKTEST",)


def test_plugins():
    gears, _ = on([[b"name", b"GearsPythonPlugin", b"version", 10206]])
    assert gears.dumpplugins() == [PluginInfo("GearsPythonPlugin", 10206)]


def test_config():
    gears, sent = on([b"500"], [b"OK"], [ResponseError("Unsupported config parameter")], [b"1", b"x"])
    assert gears.config.MaxExecutions == 500
    gears.config.ProfileExecutions = True
    assert sent == [("RG.CONFIGGET", "MaxExecutions"), ("RG.CONFIGSET", "ProfileExecutions", 1)]
    with pytest.raises(KeyError, match="Nope"):
        gears.config.get_single("Nope")
    assert gears.config.get("CreateVenv", b"mine") == {"CreateVenv": True, "mine": b"x"}
    with pytest.raises(AttributeError, match="cannot be changed"):
        gears.config.ExecutionThreads = 5
    with pytest.raises(AttributeError, match="no option 'Unknown'"):
        gears.config.Unknown = 5
    with pytest.raises(AttributeError):
        gears.config.Unknown  # noqa: B018
    with pytest.raises(KeyError):
        gears.config.get_single(None)
    assert gears.config.set() is True


def test_config_set_tells_whether_all_were_accepted():
    saved = b"OK - value was saved in extra config dictionary"
    assert on([b"OK", saved])[0].config.set({"MaxExecutions": 5}, mine=None) is True
    assert on([b"OK", ResponseError("(error) not modifiable")])[0].config.set(a=1, b=2) is False
    gears, sent = on([*[b"1"] * 13])
    assert len(gears.config.get()) == len(sent[0]) - 1 == 13


# -- clients


class Connection:
    """A connection that is closed before the reply."""

    def __init__(self):
        self.sent = []

    def send_command(self, *args):
        self.sent.append(args)

    def read_response(self, disable_decoding):
        assert disable_decoding
        raise redis.exceptions.TimeoutError("no answer")

    def disconnect(self):
        self.closed = True


def test_what_starts_something_is_sent_once():
    connection, released = Connection(), []
    pool = SimpleNamespace(get_connection=lambda: connection, release=released.append)
    gears = Gears(SimpleNamespace(connection_pool=pool, connection=None, execute_command=None))
    for start in (lambda: gears.pyexecute("x"), lambda: gears.trigger("x"), lambda: gears.getresultsblocking(ExecID())):
        connection.sent.clear()
        with pytest.raises(redis.exceptions.TimeoutError):
            start()
        assert len(connection.sent) == 1
    assert len(released) == 3
    assert connection.closed


class Pool:
    """A pool of a version of redis-py before 5.3, or of valkey-py."""

    def __init__(self, connection):
        self.connection, self.names = connection, []

    def get_connection(self, command_name, *keys, **options):
        self.names.append(command_name)
        return self.connection

    def release(self, connection):
        pass


def test_pools_that_need_the_name_of_the_command_get_it():
    pool = Pool(Connection())
    with pytest.raises(redis.exceptions.TimeoutError):
        Gears(SimpleNamespace(connection_pool=pool, connection=None, execute_command=None)).trigger("x")
    assert pool.names == ["RG.WITHCODEC"]


def test_what_is_no_client_is_refused_where_it_is_given():
    for wrong in ("redis://localhost", 6379, object()):
        for use in (lambda wrong: redgrease.KeysReader().run(on=wrong), Gears):
            with pytest.raises(TypeError, match="such as redgrease"):
                use(wrong)


@pytest.mark.parametrize("client", [redis.Redis, Redis, redis.asyncio.Redis])
def test_a_pipeline_is_no_client(client):
    async def make():
        return client().pipeline()

    # In Python 3.9 locks of asyncio belong to the event loop that runs when they are made.
    pipeline = asyncio.run(make())
    for use in (Gears, redgrease.KeysReader().run().on):
        with pytest.raises(TypeError, match="is a pipeline"):
            use(pipeline)


# -- errors of valkey-py


def test_errors_of_valkey_py_are_caught_as_those_of_either_library():
    valkey = pytest.importorskip("valkey")

    class Client(Server, valkey.Valkey):
        def __del__(self):
            pass

    def raised(reply, call):
        with pytest.raises(Exception) as caught:
            call(Gears(Client(reply)))
        return caught.value

    error = raised(valkey.exceptions.ResponseError("['Traceback\\n', 'ValueError: no\\n']"), lambda r: r.trigger("x"))
    assert isinstance(error, ScriptError) and isinstance(error, valkey.exceptions.ResponseError)
    assert (error.type, error.message) == ("ValueError", "no")
    assert type(pickle.loads(pickle.dumps(error))) is ScriptError
    duplicate = valkey.exceptions.ResponseError(str(DUPLICATE))
    error = raised(duplicate, lambda r: r.pyexecute(redgrease.CommandReader().register(trigger="t")))
    assert isinstance(error, DuplicateTriggerError) and error.trigger == "t"
    for name in ("NoPermissionError", "OutOfMemoryError"):
        error = raised(getattr(valkey.exceptions, name)("no"), lambda r: r.trigger("x"))
        assert isinstance(error, getattr(redis.exceptions, name))
        assert isinstance(error, getattr(valkey.exceptions, name))
    for name in ("ConnectionError", "TimeoutError"):
        error = raised(getattr(valkey.exceptions, name)("no"), lambda r: r.dumpregistrations())
        assert isinstance(error, getattr(redis.exceptions, name))
        assert isinstance(error, getattr(valkey.exceptions, name))
    with pytest.raises(KeyError):
        Gears(Client([valkey.exceptions.ResponseError("unknown")])).config.get_single("x")
    with pytest.raises(DuplicateTriggerError):
        Gears(Client([duplicate])).pyexecute("x")


def test_the_factory_gives_a_server_client_that_complains_late():
    client = RedisGears(host="127.0.0.1", port=1)
    assert type(client) is Redis
    assert isinstance(client, RedisGears)
    assert issubclass(RedisCluster, RedisGears)
    assert not isinstance(redis.Redis(), RedisGears)
    assert client.connection_pool.connection_kwargs["port"] == 1
    assert repr(client) == "<Redis 127.0.0.1:1, db 0>"
    assert client.gears is client.gears


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, {"host": "localhost", "port": 6379}),
        ({"port": "7000"}, {"host": "localhost", "port": 7000}),
        ({"startup_nodes": [{"host": "10.0.0.1", "port": "7001"}]}, {"host": "10.0.0.1", "port": 7001}),
        ({"db": 3}, {"db": 3, "port": 6379}),
        ({"charset": "latin-1", "errors": "replace"}, {"encoding": "latin-1", "encoding_errors": "replace"}),
        ({"unix_socket_path": "/run/x.sock"}, {"path": "/run/x.sock"}),
        ({"init_slot_cache": True, "password": None}, {"password": None}),
        ({"socket_timeout": 3}, {"socket_timeout": 3}),
        ({"decode_responses": True}, {"decode_responses": True, "socket_timeout": None}),
    ],
)
def test_the_factory_passes_arguments_on(monkeypatch, arguments, expected):
    monkeypatch.setattr("redgrease.client._asks_cluster", lambda make, options: False)
    options = RedisGears(**arguments).connection_pool.connection_kwargs
    assert {name: options[name] for name in expected} == expected


def test_the_factory_asks_once_and_gives_a_cluster_client(monkeypatch):
    asked, made = [], []
    monkeypatch.setattr("redgrease.client._asks_cluster", lambda make, options: not asked.append(options))
    monkeypatch.setattr(RedisCluster, "__init__", lambda self, **options: made.append(options))
    monkeypatch.setattr(RedisCluster, "__del__", lambda self: None, raising=False)
    assert type(RedisGears(port=30001, db=0, password="p")) is RedisCluster
    assert made == [{"host": "localhost", "port": 30001, "password": "p"}]
    assert len(asked) == 1


def test_the_factory_asks_the_next_node_if_one_does_not_answer(monkeypatch):
    asked, made = [], []
    answers = iter([None, True])
    monkeypatch.setattr(
        "redgrease.client._asks_cluster", lambda make, options: asked.append(options["port"]) or next(answers)
    )
    monkeypatch.setattr(RedisCluster, "__init__", lambda self, **options: made.append(options["port"]))
    monkeypatch.setattr(RedisCluster, "__del__", lambda self: None, raising=False)
    RedisGears(startup_nodes=[{"host": "h", "port": port} for port in (1, 2, 3)])
    assert (asked, made) == ([1, 2], [2])


def test_the_factory_asks_no_server_that_cannot_be_in_a_cluster(monkeypatch):
    monkeypatch.setattr("redgrease.client._asks_cluster", lambda make, options: pytest.fail("it was asked"))
    pool = redis.ConnectionPool(port=1)
    for arguments in ({"db": 2}, {"unix_socket_path": "/run/x"}, {"connection_pool": pool}):
        assert type(RedisGears(**arguments)) is Redis
    assert RedisGears(connection_pool=pool).connection_pool is pool
    for url in ("redis://localhost:1/2", "unix:///run/x.sock"):
        assert type(RedisGears.from_url(url)) is Redis


def test_a_url_gives_the_client_for_its_server(monkeypatch):
    asked = []
    monkeypatch.setattr("redgrease.client._asks_cluster", lambda make, options: asked.append(make(options)))
    client = RedisGears.from_url("redis://user:secret@127.0.0.1:1/0?decode_responses=yes", client_name="me")
    options = client.connection_pool.connection_kwargs
    names = ("host", "port", "username", "password", "client_name", "socket_timeout")
    assert [options[name] for name in names] == ["127.0.0.1", 1, "user", "secret", "me", None]
    assert asked[0].connection_pool.connection_kwargs["port"] == 1
    limited = Redis.from_url("redis://localhost:1?socket_timeout=3", socket_timeout=7)
    assert limited.connection_pool.connection_kwargs["socket_timeout"] == 3


def test_a_url_of_a_cluster_gives_its_client(monkeypatch):
    made = []
    monkeypatch.setattr("redgrease.client._asks_cluster", lambda make, options: True)
    monkeypatch.setattr(RedisCluster, "__init__", lambda self, **options: made.append(options))
    monkeypatch.setattr(RedisCluster, "__del__", lambda self: None, raising=False)
    assert type(RedisGears.from_url("redis://localhost:30001", password="p")) is RedisCluster
    assert made == [{"url": "redis://localhost:30001", "password": "p"}]


def test_the_factory_is_a_type():
    def count(r: RedisGears) -> int:
        return len(r)

    hints = get_type_hints(count)
    assert hints["r"] is RedisGears is redgrease.RedisMods
    assert isinstance(Redis(), redgrease.RedisGears)


def test_replies_are_waited_for_as_long_as_they_take():
    assert Redis().connection_pool.connection_kwargs["socket_timeout"] is None
    assert Redis(socket_timeout=2).connection_pool.connection_kwargs["socket_timeout"] == 2
    assert Redis("localhost", 6379, 0, None, 4).connection_pool.connection_kwargs["socket_timeout"] == 4


def test_a_connection_says_why_it_does_not_travel():
    with pytest.raises(TypeError, match=r"redgrease\.cmd"):
        pickle.dumps(Redis())


# -- cluster


class Node:
    def __init__(self, number):
        self.name, self.server = f"127.0.0.1:3000{number}", Server()
        self.id = f"node{number}"


class Cluster:
    """Stands for redis-py's cluster client."""

    def __init__(self):
        self.nodes = [Node(1), Node(2), Node(3)]
        self.nodes_manager = SimpleNamespace(initialize=self.refresh)
        self.holder = self.nodes[0]
        self.refreshed = 0

    def get_primaries(self):
        return self.nodes

    def get_redis_connection(self, node):
        return node.server

    def get_node_from_key(self, key):
        assert key == "user:1"
        return self.holder

    def get_node(self, host, port):
        return next((node for node in self.nodes if node.name == f"{host}:{port}"), None)

    def refresh(self):
        self.refreshed += 1
        self.holder = self.nodes[1]

    def answer(self, *replies):
        """Prepare one reply of each node, and forget what was sent."""
        for node, reply in zip(self.nodes, replies):
            node.server.sent.clear()
            node.server.replies = [reply]

    def sent(self):
        """What each node got."""
        return [node.server.sent for node in self.nodes]


@pytest.fixture
def cluster():
    return Cluster()


def test_on_a_cluster_the_owner_of_an_execution_is_asked(cluster):
    cluster.answer(*(node.id.encode() for node in cluster.nodes))
    gears = Gears(cluster)
    owner = cluster.nodes[1].server
    identifier = ExecID("node2", 5, is_plain=True)
    calls = {
        "RG.GETRESULTS": lambda: gears.getresults(identifier),
        "RG.GETRESULTSBLOCKING": lambda: gears.getresultsblocking(identifier),
        "RG.GETEXECUTION": lambda: gears.getexecution(identifier),
        "RG.ABORTEXECUTION": lambda: gears.abortexecution(identifier),
        "RG.DROPEXECUTION": lambda: gears.dropexecution(identifier),
    }
    for command, call in calls.items():
        owner.replies.append([[b"1"], []] if "RESULTS" in command else [] if "GET" in command else b"OK")
        call()
        assert owner.sent[-1] == (command, b"node2-5")
    assert [len(sent) for sent in cluster.sent()] == [1, 6, 1]


def test_on_a_cluster_all_shards_are_asked_for_what_each_has(cluster):
    gears = Gears(cluster)
    cluster.answer([b"OK"], [b"OK"], [b"OK"])
    assert gears.config.set(MaxExecutions=1) is True
    assert cluster.sent() == [[("RG.CONFIGSET", "MaxExecutions", 1)]] * 3
    cluster.answer([b"OK"], [ResponseError("no")], [b"OK"])
    assert gears.config.set(MaxExecutions=1) is False

    cluster.answer(*[[b"TotalAllocated", 1]] * 3)
    assert list(gears.pystats()) == [node.name for node in cluster.nodes]
    cluster.answer(b"OK", b"OK", b"no")
    assert gears.refreshcluster() is False
    cluster.answer(b"one", b"two", b"three")
    assert list(gears.pyprofile_stats("s").values()) == ["one", "two", "three"]
    cluster.answer(b"OK", b"OK", b"OK")
    assert gears.pyprofile_reset("s") is True

    def line(shard):
        return [b"executionId", f"node{shard}-1".encode(), b"status", b"done", b"registered", 0]

    cluster.answer([line(1), line(2)], [line(2)], [])
    assert [info.executionId.shard_id for info in gears.dumpexecutions()] == ["node1", "node2"]


def test_on_a_cluster_a_key_is_triggered_on_its_shard(cluster):
    gears = Gears(cluster)
    cluster.answer(redis.exceptions.MovedError("1 127.0.0.1:30002"), [tagged(1)], None)
    assert gears.triggeronkey("t", "user:1") == 1
    assert [len(sent) for sent in cluster.sent()] == [1, 1, 0]
    cluster.answer(None, redis.exceptions.AskError("1 127.0.0.1:30003"), None)
    with pytest.raises(redis.exceptions.AskError):
        gears.triggeronkey("t", "user:1")


REFUSED = redis.exceptions.ReadOnlyError("functions are not run on a read-only replica")


def test_on_a_cluster_a_replica_sends_a_key_to_its_master(cluster):
    cluster.answer(REFUSED, [tagged(1)], None)
    assert Gears(cluster).triggeronkey("t", "user:1") == 1
    assert cluster.refreshed == 1
    cluster.answer(None, REFUSED, None)
    with pytest.raises(redis.exceptions.ReadOnlyError):
        Gears(cluster).triggeronkey("t", "user:1")
    assert cluster.refreshed == 2, "the cluster says that it is the master, so that nothing else can be asked"


@pytest.mark.parametrize("refusal", [REFUSED, redis.exceptions.ConnectionError("gone")], ids=["replica", "dead"])
def test_on_a_cluster_a_node_that_does_not_answer_is_replaced_by_another(cluster, refusal):
    gears = Gears(cluster)
    for _ in range(10):
        cluster.answer(refusal, [], [])
        assert gears.dumpregistrations() == []
    assert cluster.refreshed >= 1
    cluster.answer(refusal, refusal, refusal)
    with pytest.raises(type(refusal)):
        gears.dumpregistrations()


def test_on_a_cluster_what_was_sent_is_not_sent_to_another_node(cluster):
    gears = Gears(cluster)
    cluster.answer(*[redis.exceptions.ConnectionError("gone")] * 3)
    with pytest.raises(redis.exceptions.ConnectionError):
        gears.trigger("t")
    assert sum(len(sent) for sent in cluster.sent()) == 1
    assert cluster.refreshed == 0
    cluster.answer([tagged(1)], [tagged(1)], [tagged(1)])
    assert gears.trigger("t") == 1
    assert cluster.refreshed == 1


def test_on_a_cluster_a_command_with_keys_is_followed_to_their_shard(cluster):
    moved = redis.exceptions.MovedError("1 127.0.0.1:30002")
    for _ in range(10):
        cluster.answer(moved, [tagged(1)], moved)
        assert Gears(cluster).trigger("t") == 1
    cluster.answer(*[redis.exceptions.MovedError("1 127.0.0.1:30009")] * 3)
    with pytest.raises(redis.exceptions.MovedError):
        Gears(cluster).trigger("t")


def test_on_a_cluster_too_many_connections_are_no_fault_of_the_server(cluster):
    gears = Gears(cluster)
    cluster.answer(*[redis.exceptions.MaxConnectionsError("Too many connections")] * 3)
    with pytest.raises(redis.exceptions.MaxConnectionsError):
        gears.dumpregistrations()
    assert sum(len(sent) for sent in cluster.sent()) == 1
    cluster.answer([], [], [])
    gears.dumpregistrations()
    assert cluster.refreshed == 0


def test_on_a_cluster_all_shards_are_asked_again_if_one_was_replaced(cluster):
    gears = Gears(cluster)
    cluster.answer([], redis.exceptions.ConnectionError("gone"), [])
    for node in cluster.nodes:
        node.server.replies.append([])
    cluster.nodes[2].server.replies.pop()
    assert gears.dumpexecutions() == []
    assert cluster.refreshed == 1
    cluster.answer(b"OK", redis.exceptions.ConnectionError("gone"), b"OK")
    with pytest.raises(redis.exceptions.ConnectionError):
        gears._link.perform(Request(("X",), Shards.ALL, once=True))
    assert [len(sent) for sent in cluster.sent()] == [1, 1, 0], "a change was repeated"


def test_on_a_cluster_one_shard_is_enough_for_what_all_know(cluster):
    gears = Gears(cluster)
    cluster.answer([], [], [])
    for call in (gears.dumpregistrations, gears.pydumpsessions, gears.dumpplugins, gears.pydumpreqs):
        cluster.answer([], [], [])
        assert call() == []
        assert sum(len(sent) for sent in cluster.sent()) == 1


def test_the_cluster_client_of_valkey_py_has_other_names(cluster):
    class ValkeyCluster:
        get_primaries = cluster.get_primaries
        get_valkey_connection = cluster.get_redis_connection

    cluster.answer([b"OK"], [b"OK"], [b"OK"])
    assert Gears(ValkeyCluster()).config.set(MaxExecutions=1) is True
