"""Invalid, huge or unusual input: a clear error in the documented format, no lost data, and the server stays up."""

from __future__ import annotations

import pytest

from .database import text
from .resp import Err, Simple
from .waiting import wait_until

COMMANDS = [
    "RG.PYEXECUTE",
    "RG.TRIGGER",
    "RG.GETRESULTS",
    "RG.GETRESULTSBLOCKING",
    "RG.DROPEXECUTION",
    "RG.ABORTEXECUTION",
    "RG.UNREGISTER",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_arguments_says_so(db, command):
    reply = db.wire()(command)
    assert isinstance(reply, Err)
    assert "wrong number of arguments" in reply.text


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("argument", [b"\xff\xfe\0", b"", b"x" * 100_000, b"%s%n%d", b"\r\n+OK\r\n"])
def test_strange_arguments_are_answered_with_one_reply(db, command, argument):
    wire = db.wire()
    wire(command, argument)
    assert wire("ECHO", "in step") == b"in step"


@pytest.mark.parametrize(
    "script",
    [b"\xff\xfe", b"x = '\xff'", b"x = 1\0y = 2", b"\xef\xbb\xbf1/0"],
    ids=["no-text", "no-text-inside", "nul", "byte-order-mark"],
)
def test_a_script_that_is_no_text_is_an_error_reply(db, script):
    assert db.refused(script)
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


@pytest.mark.parametrize(
    "script",
    [
        "GB(.run()",
        "def f(:\n  pass",
        "  indented = 1",
        "return 7",
        "yield 7",
        "await x",
        "'unterminated",
        "x = 1 +",
        "\t if",
    ],
)
def test_a_script_that_is_no_python_is_an_error_reply(db, script):
    message = db.refused(script)
    assert "Error" in message


def test_a_very_long_script_is_read(db):
    lines = "\n".join(f"x{i} = {i}" for i in range(20_000))
    assert db.results(f"{lines}\nGB('ShardsIDReader').map(lambda _: x19999).run()") == ["19999"]


def test_a_script_with_deeply_nested_brackets_is_an_error_reply(db):
    assert db.refused("(" * 10_000 + ")" * 10_000)
    assert db.r.ping()


def test_windows_and_old_mac_line_ends_are_read(db):
    assert db.results("x = 1\r\nGB('ShardsIDReader').map(lambda _: x).run()\r\n") == ["1"]


def test_a_script_that_raises_a_very_long_error_is_answered(db):
    message = db.refused("raise ValueError('x' * 1_000_000)")
    assert "ValueError" in message
    assert db.r.ping()


@pytest.mark.parametrize("error", ["'two\\r\\nlines'", "'\\0nul'", "'ünï 🦀'", "'%s %n'", "b'\\xff'", "'\\udcff'"])
def test_any_text_of_an_exception_is_one_well_formed_error(db, error):
    wire = db.wire()
    reply = wire("RG.PYEXECUTE", f"raise ValueError({error})")
    assert isinstance(reply, Err)
    assert "ValueError" in reply.text
    assert wire("ECHO", "in step") == b"in step"


def test_an_exception_that_cannot_be_printed_is_still_an_error(db):
    script = """
class Shy(Exception):
    def __str__(self):
        raise RuntimeError('no words')
raise Shy()
"""
    assert "Shy" in db.refused(script)


@pytest.mark.parametrize(
    "expression", ["SystemExit(0)", "SystemExit('bye')", "KeyboardInterrupt()", "GeneratorExit()", "BaseException('b')"]
)
def test_a_script_that_tries_to_leave_is_an_error_reply(db, expression):
    assert expression.partition("(")[0] in db.refused(f"raise {expression}")
    assert db.results("GB('ShardsIDReader').run()") == ["1"]


def test_steps_that_return_what_cannot_be_pickled_work_on_one_server(db):
    script = (
        "import threading\nGB('ShardsIDReader').map(lambda _: threading.Lock()).map(lambda lock: lock.locked()).run()"
    )
    assert db.results(script) == ["False"]


def test_a_result_that_cannot_be_pickled_is_its_text_for_vanilla_scripts(db):
    [result] = db.results("import threading\nGB('ShardsIDReader').map(lambda _: threading.Lock()).run()")
    assert "lock" in result


def test_a_result_that_cannot_be_pickled_is_an_error_for_clients_that_ask_for_objects(db):
    script = (
        "import threading\nGB('ShardsIDReader').map(lambda _: threading.Lock()).run(convertToStr=False, reply='plain')"
    )
    results, errors = db.r.execute_command("RG.WITHCODEC", "1", "RG.PYEXECUTE", script)
    assert results == []
    assert "pickle" in text(errors[0]).lower()


def test_a_value_above_the_limit_is_an_error_that_names_key_and_size(fresh_server):
    db = fresh_server(load_args={"MaxRecordBytes": 1_000_000})
    db.r.set("small", "x" * 1000)
    db.r.set("large", "x" * 2_000_000)
    [message] = db.errors("GB().map(lambda r: len(r['value'])).run('large')")
    assert "large" in message
    assert "2000" in message
    assert "MaxRecordBytes" in message
    assert db.results("GB().map(lambda r: len(r['value'])).run('small')") == ["1000"]
    assert db.results("GB().map(lambda r: r['key']).run('large', readValue=False)") == ["large"]
    assert db.results("GB().count().run('*')") in (["2"], ["1"], [])


def test_a_value_of_a_hundred_megabytes_is_an_error_by_default(db):
    db.r.set("large", b"x" * 100_000_000)
    with db.pinging() as pings:
        [message] = db.errors("GB().map(lambda r: len(r['value'])).run('large')")
    pings.assert_never_stalled(1.0)
    assert "large" in message
    assert "MaxRecordBytes" in message
    assert db.r.strlen("large") == 100_000_000


@pytest.mark.parametrize("fill", ["rpush", "hset"])
def test_a_large_collection_above_the_limit_is_an_error_that_names_it(fresh_server, fill):
    db = fresh_server(load_args={"MaxRecordBytes": 100_000})
    for number in range(200):
        if fill == "rpush":
            db.r.rpush("large", "x" * 1000)
        else:
            db.r.hset("large", f"f{number}", "x" * 1000)
    [message] = db.errors("GB().map(lambda r: len(r['value'])).run('large')")
    assert "large" in message and "MaxRecordBytes" in message


def test_a_large_stream_entry_above_the_limit_is_an_error_that_names_it(fresh_server):
    db = fresh_server(load_args={"MaxRecordBytes": 100_000})
    db.r.xadd("s", {"f": "x" * 200_000})
    [message] = db.errors("GB('StreamReader').map(lambda r: len(r['value'])).run('s')")
    assert "MaxRecordBytes" in message


def test_an_event_with_a_value_above_the_limit_is_a_failure_of_the_registration(fresh_server):
    db = fresh_server(load_args={"MaxRecordBytes": 100_000})
    db.ok("GB().foreach(lambda r: execute('incr', 'n')).register('w:*', mode='sync')")
    assert db.r.set("w:1", "x" * 200_000)
    assert "MaxRecordBytes" in db.registration().lastError
    assert db.r.set("w:1", "small")
    assert db.r.get("n") == b"1"


def test_a_large_argument_reaches_a_trigger(db):
    db.ok("GB('CommandReader').map(lambda x: len(x[1])).register(trigger='t')")
    assert db.trigger("t", "x" * 20_000_000) == ["20000000"]


def test_a_hundred_thousand_arguments_reach_a_trigger(db):
    db.ok("GB('CommandReader').map(lambda x: len(x)).register(trigger='t')")
    assert db.trigger("t", *range(100_000)) == ["100001"]


# -- numeric options

#: Numbers of users, with whether they may be valid at all.
NUMBERS = [
    "0", "1", "2", "1000", "10**9", "10**9 + 1", "31536000", "31536001", "31536000000", "31536000001",
    "2**31", "2**32", "2**62", "2**63 - 1", "2**63", "2**64", "10**400", "10**5000", "-1", "-2**63",
    "-2**63 - 1", "-10**400", "0.5", "2.0", "1e308", "float('inf')", "float('-inf')", "float('nan')", "True",
    "False", "None", "'7'", "1j",
]  # fmt: skip
RANGES = {"batch": (1, 10**9), "duration": (0, 31_536_000_000), "onFailedRetryInterval": (0, 31_536_000)}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_of_a_stream_registration_works_or_is_refused_with_name_value_and_range(db, name):
    least, most = RANGES[name]
    works = []
    for number in NUMBERS:
        value = eval(number)
        script = f"GB('StreamReader').foreach(lambda r: 1 / 0).register('s', onFailedPolicy='retry', {name}={number})"
        if type(value) in (int, float) and least <= value <= most and value == int(value):
            db.ok(script)
            works.append(number)
            continue
        message = db.refused(script)
        assert name in message or "retryInterval" in message, message
        assert "must be a" in message and "got " in message
        assert len(message) < 1500
        if type(value) in (int, float):
            assert f"from {least} to {most}" in message
    with db.pinging() as pings:
        # The first event, the timer that it sets, and a failure that sets another one.
        for _ in range(3):
            db.r.xadd("s", {"f": "v"})
        wait_until(
            lambda: [one for one in db.registrations() if one.numTriggered == 0],
            "all registrations have read their stream",
            until=lambda idle: not idle,
        )
        for registration in db.registrations():
            db.unregister(registration.id)
    pings.assert_never_stalled(2.0)
    assert len(works) >= 3


@pytest.mark.parametrize("count", ["0", "-1", "100001", "2**63 - 1", "10**400", "1.5"])
def test_a_count_of_a_scan_that_would_stall_the_server_is_refused(db, count):
    message = db.refused(f"GB('KeysOnlyReader').run(count={count})")
    assert "count" in message and "got" in message


@pytest.mark.parametrize("number", ["-1", "9" * 400, "1.5", "", "0x1", "1 ", "\0", "NaN"])
def test_a_number_of_a_command_that_is_none_is_an_error(db, number):
    wire = db.wire()
    for command in (["RG.GETRESULTS", "0" * 40 + "-" + number], ["RG.UNREGISTER", "0" * 40 + "-" + number],
                    ["RG.WITHCODEC", number, "RG.TRIGGER", "t"]):  # fmt: skip
        assert isinstance(wire(*command), Err)
    assert wire("PING") == Simple("PONG")


# -- pushed topologies, and commands that are gone

BAD_TOPOLOGIES = [
    [],
    ["a"],
    ["a"] * 5 + ["1"] + ["a", "x"] + ["a"] * 8,
    ["a"] * 5 + ["1", "a", "-1"] + ["a"] * 8,
    ["a"] * 5 + ["1", "a", "99999999999999999999"] + ["a"] * 8,
    ["a"] * 5 + ["1", "a", "1", "a", "1", "a", "0", "16384", "a", "@h:1", "a"],
    ["a"] * 5 + ["1", "a", "1", "a", "1", "a", "0", "1", "a", "h:1", "a"],
    ["a"] * 5 + ["1" * 41, "a", "1", "a", "1", "a", "0", "1", "a", "@h:1", "a"],
]


@pytest.mark.parametrize("name", ["CLUSTERSET", "CLUSTERSETFROMSHARD"])
@pytest.mark.parametrize("arguments", BAD_TOPOLOGIES, ids=range(len(BAD_TOPOLOGIES)))
def test_what_is_no_topology_is_refused(db, name, arguments):
    before = db.wire()("RG.INFOCLUSTER")
    assert db.wire()(f"rg.{name.lower()}", *arguments) == Err("Could not parse cluster set arguments")
    assert db.wire()("RG.INFOCLUSTER") == before


def test_commands_that_redisgears_had_given_up_answer_its_text(db):
    assert db.wire()("RG.PYEXECUTEREMOTE", "x") == b"Execute remote is not longer supported"
    assert db.wire()("RG.PYFREEINTERPRETER") == b"Free interpreter is not longer supported"


# -- asynchronous functions


def test_an_async_generator_is_refused_before_it_consumes_an_entry(db):
    db.r.xadd("s", {"f": "v"})
    script = "import functools\nasync def f(*args):\n    yield 1\n"
    for use in ("f", "functools.partial(f, 1)"):
        message = db.refused(f"{script}GB('StreamReader').foreach({use}).register('s')")
        assert "foreach got an async generator" in message
        assert "map got an async generator" in db.refused(f"{script}GB().map({use}).run()")
    assert (db.registrations(), db.r.xlen("s")) == ([], 1)


@pytest.mark.single("each shard has a result or an error of its own")
def test_an_async_function_of_the_package_is_awaited(db):
    import redgrease

    async def answer(*_arguments):
        return 1

    redgrease.CommandReader().apply(answer).register(trigger="t").on(db.r)
    assert db.trigger("t") == [1]
    db.r.set("k", "v")
    assert redgrease.KeysReader().map(answer).run().on(db.r) == 1
    with pytest.raises(ValueError, match="pyreader got an async function"):
        redgrease.PythonReader().run(answer).on(db.r)
