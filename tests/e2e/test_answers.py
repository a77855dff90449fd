"""Replies that were wrong in earlier versions, and input that was accepted and then ignored."""

from __future__ import annotations

import pytest

from .database import text
from .resp import Err, Simple
from .servers import free_port
from .waiting import wait_until

# -- replies


@pytest.mark.parametrize("value", ["-7", "+49 170", "-", "+OK", "-ERR no", "--"])
def test_what_a_run_gives_is_data(db, value):
    db.r.set("k", value)
    assert db.results("GB().map(lambda r: r['value']).run('k')") == [value]
    assert db.results("GB('ShardsIDReader').map(lambda _: -5).run()") == ["-5"]
    execution = db.start("GB().map(lambda r: r['value']).run('k')")
    db.wait_status(execution, "done")
    assert text(db.r.execute_command("RG.GETRESULTS", execution)) == [[value], []]


def test_only_a_text_with_a_sign_and_a_letter_is_a_status_or_an_error_of_a_trigger(db):
    db.ok("GB('CommandReader').map(lambda x: eval(x[1])).register(trigger='t')")
    for expression, value in (("-5", "-5"), ("'+49 170'", "+49 170"), ("'-'", "-"), ("'--x'", "--x")):
        assert db.trigger("t", expression) == [value]
    wire = db.wire()
    wire.send("RG.TRIGGER", "t", "'+OK'")
    assert wire.read() == [Simple("OK")]
    wire.send("RG.TRIGGER", "t", "'-ERR went wrong'")
    assert wire.read() == [Err("ERR went wrong")]


# -- operations


def test_an_accumulator_that_becomes_zero_is_kept(db):
    values = "GB('PythonReader').{}.run(lambda: iter([3, 0, 4]))"
    assert db.results(values.format("aggregate(1, lambda a, x: a * x, lambda a, x: a * x)")) == ["0"]
    by_key = "aggregateby(lambda x: 'k', 1, lambda k, a, x: a * x, lambda k, a, x: a * x)"
    assert db.results(values.format(by_key)) == ["{'key': 'k', 'value': 0}"]


def test_flatmap_emits_backwards_unless_it_is_asked_for_the_order_of_the_list(db):
    script = "GB('ShardsIDReader').flatmap(lambda _: [1, 2, 3]{}).run()"
    assert db.results(script.format("")) == ["3", "2", "1"]
    assert db.results(script.format(", inOrder=True")) == ["1", "2", "3"]
    words = db.results("GB('ShardsIDReader').flatmap(lambda _: 'b a b'.split(), inOrder=True).countby().run()")
    assert sorted(words) == ["{'key': 'a', 'value': 1}", "{'key': 'b', 'value': 2}"]
    assert "inOrder" in db.refused("GB().flatmap(lambda r: [], inOrder=1).run()")


@pytest.mark.parametrize(
    "callback",
    ["generator", "functools.partial(generator)", "Callable()", "Callable().method"],
)
@pytest.mark.parametrize("end", ["run()", "register('s')"])
def test_async_generators_are_refused_before_anything_happens(db, callback, end):
    db.r.xadd("s", {"a": 1})
    script = f"""
import functools
async def generator(r): yield r
class Callable:
    async def __call__(self, r): yield r
    async def method(self, r): yield r
GB('StreamReader').map({callback}).{end}
"""
    assert "map got an async generator" in db.refused(script)
    assert db.registrations() == []
    assert db.r.xlen("s") == 1 and db.r.xinfo_groups("s") == []


# -- records and runtime functions


def test_the_record_of_a_stream_says_so(db):
    db.r.xadd("s", {"a": 1})
    assert db.results("GB().map(lambda r: r['type']).run('s')") == ["stream"]


def test_execute_without_a_command_is_an_empty_list(db):
    assert db.results("GB('ShardsIDReader').map(lambda _: execute()).run()") == ["[]"]


def test_execute_passes_a_memoryview_as_its_bytes(db):
    db.results("GB('ShardsIDReader').map(lambda _: execute('set', 'k', memoryview(b'a\\x00\\xff'))).run()")
    assert db.r.get("k") == b"a\x00\xff"
    db.results("GB('ShardsIDReader').map(lambda _: execute('set', 'k', memoryview(b'abcdef')[::2])).run()")
    assert db.r.get("k") == b"ace"


def test_what_a_function_logs_is_one_line(db):
    db.results(
        "def say(_):\n    log('first\\r\\nsecond\\x00 %s %n')\n    log('\\udc80 and \\u0100')\n    return 1\n"
        "GB('ShardsIDReader').map(say).run()"
    )
    wait_until(db.server.new_log, "it is logged", until=lambda log: r"\x80 and Ā" in log)
    assert r"first\r\nsecond\u{0} %s %n" in db.server.new_log()


# -- commands and clusters


def test_a_cluster_of_one_shard_is_one_server(fresh_server):
    db = fresh_server(conf={"cluster-enabled": "yes", "cluster-port": free_port()})
    db.r.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
    wait_until(
        lambda: str(text(db.r.execute_command("CLUSTER", "INFO"))),
        "all slots are served",
        until=lambda info: "cluster_state:ok" in info,
    )
    db.r.set("k", "v")
    assert db.results("GB().count().run()") == ["1"]
