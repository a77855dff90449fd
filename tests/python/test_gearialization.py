"""Serialised functions run in a process that has not imported their module."""

from __future__ import annotations

import base64
import functools
import importlib
import io
import json
import operator
import os
import pickle
import pickletools
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
import redgrease
from redgrease import CommandReader, KeysReader, gearialization
from redgrease.gearialization import deserialize_gear_function, get_function_string, serialize_gear_function

from . import travelling_functions, travelling_helpers

HERE = Path(__file__).parent


def on_a_server(function, *shards):
    """Results of the script for `function` in a fresh interpreter that looks like a server's."""
    script, _ = get_function_string(function)
    program = """
        import importlib.util, json, sys, types
        paths, fake, script, shards = json.load(sys.stdin)
        sys.path[:] = paths
        spec = importlib.util.spec_from_file_location("fake_builder", fake)
        builder = importlib.util.module_from_spec(spec); spec.loader.exec_module(builder)
        native = types.ModuleType("redisgears"); native.GearsBuilder = builder.FakeBuilder
        native.executeCommand = lambda *args: "executed " + " ".join(map(str, args))
        native.log = lambda message, level: None
        sys.modules["redisgears"] = native
        exec(script, {"__name__": "not_main", "GearsBuilder": builder.FakeBuilder})
        print(json.dumps(builder.FakeBuilder.made[-1].on(*shards)))
    """
    paths = [path for path in sys.path if path and Path(path) not in (HERE, HERE.parent, HERE.parents[1])]
    given = json.dumps([paths, str(HERE / "fake_builder.py"), script, shards])
    command = [sys.executable, "-I", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_lambdas_closures_and_built_ins_travel():
    factor = 3
    function = KeysReader().values().map(int).map(lambda x: x * factor).aggregate(0, operator.add)
    assert on_a_server(function, [{"key": "a", "value": "1"}], [{"key": "b", "value": "2"}]) == [9]


def test_functions_of_modules_that_are_not_installed_travel_by_value():
    assert on_a_server(KeysReader().map(travelling_functions.times), [1, 2]) == [3, 6]
    partial = functools.partial(travelling_functions.times)
    assert on_a_server(KeysReader().map(partial), [1]) == [3]
    command = CommandReader().apply(travelling_functions.times).register(trigger="x")
    assert on_a_server(command, [["x", 2]]) == [6]


def test_what_these_modules_use_of_others_travels_too():
    assert on_a_server(KeysReader().map(travelling_functions.shifted), [1]) == [201]

    def through_a_closure(number, shift=travelling_helpers.Shifted):
        return shift(number).number

    assert on_a_server(KeysReader().map(through_a_closure), [1]) == [101]


def test_modules_that_come_later_travel_by_value_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    for number in (1, 2):  # the second one has the same name, and is another module
        monkeypatch.delitem(sys.modules, "comes_later", raising=False)
        (tmp_path / "comes_later.py").write_text(f"def answer(_):\n    return {number} * 100\n")
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        function = KeysReader().map(importlib.import_module("comes_later").answer).run()
        assert on_a_server(function, [{"key": "a"}]) == [number * 100]


def test_modules_that_are_installed_travel_by_name():
    data = serialize_gear_function(KeysReader().map(json.dumps))
    assert b"json" in data
    assert not gearialization._holds_code(data)


def test_names_of_this_package_go_to_the_server_side():
    def use(record):
        return redgrease.cmd.get(record)

    assert on_a_server(KeysReader().map(use), ["k"]) == ["executed GET k"]
    assert on_a_server(KeysReader().map(redgrease.execute), ["PING"]) == ["executed PING"]


def test_a_decorated_function_of_the_main_script_travels_without_its_connection(tmp_path):
    script = tmp_path / "program.py"
    script.write_text(
        textwrap.dedent(
            """
            import json
            import sys
            import redgrease

            r = redgrease.Redis(port=1)  # not to be taken along

            class Sent(Exception):
                pass

            def execute_command(*args, **options):
                if "REGISTER" in args:  # as a server that takes no plans
                    raise redgrease.client.redis.ResponseError("Unknown arguments were given: REGISTER")
                raise Sent(args)

            class Server:
                execute_command = staticmethod(execute_command)

            def sent(function):
                try:
                    function.on(Server())
                except Sent as sent:
                    return next(arg for arg in sent.args[0] if "run_serialized" in str(arg))

            def helper(text):
                return json.dumps(text)

            @redgrease.command(requirements=["requests"])
            def cache_get(url):
                redgrease.log(url)
                return helper(redgrease.cmd.get(url))

            print(sent(cache_get))
            """
        ),
        encoding="utf-8",
    )
    environment = {"PYTHONPATH": ":".join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    builder_script = done.stdout
    assert "run_serialized" in builder_script
    assert on_a_server(builder_script, [["cache_get", "u"]]) == ['"executed GET u"']


def test_a_child_can_pickle_while_a_thread_of_its_parent_does():
    with gearialization._by_value_lock:
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(10)
                gearialization.serialize_gear_function(redgrease.KeysReader().run())
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0


def test_what_cannot_travel_is_named():
    connection = redgrease.Redis()
    with pytest.raises(TypeError, match=r"cannot be sent to the server.*redgrease\.cmd"):
        serialize_gear_function(KeysReader().map(lambda record: connection.get(record)))
    lock = threading.Lock()
    with pytest.raises(TypeError, match="cannot be sent"):
        serialize_gear_function(KeysReader().map(lambda record: lock.locked()))


def test_code_is_refused_by_another_python_before_it_is_loaded():
    with_code = serialize_gear_function(KeysReader().map(lambda record: record))
    without = serialize_gear_function(KeysReader().values(type="hash").map(len).count())
    with pytest.raises(SystemError, match=r"from Python 3\.7\.16.*same version on both sides"):
        deserialize_gear_function(with_code, (3, 7, 16, "final", 0))
    assert repr(deserialize_gear_function(without, (3, 7, 16))).endswith(".map(len).count()")
    assert deserialize_gear_function(with_code, sys.version_info).reader == "KeysReader"


def test_a_module_that_is_missing_on_the_server_names_the_fix():
    data = serialize_gear_function(KeysReader().map(json.dumps)).replace(b"\x8c\x04json", b"\x8c\x04jsno")
    with pytest.raises(ModuleNotFoundError, match=r"'jsno'.*requirements="):
        deserialize_gear_function(data)


def test_another_layout_is_refused():
    data = base64.b64encode(pickle.dumps({"format": 99})).decode()
    with pytest.raises(ValueError, match=r"does not understand \(client: redgrease 9\.9, server: redgrease 1"):
        gearialization.run_serialized(data, sys.version_info[:3], "9.9", None)


def test_pickles_are_protocol_4():
    data = serialize_gear_function(KeysReader().map(lambda record: record))
    assert next(pickletools.genops(io.BytesIO(data)))[1] == 4


def test_context_of_a_function():
    text, context = get_function_string(KeysReader(requirements=["a"]).count(requirements=["b"]))
    assert context == {"requirements": {"a", "b"}}
    assert text.startswith("# redgrease function, format 1, python ")
    _, context = get_function_string(CommandReader().register(trigger="x"))
    assert context == {"requirements": set(), "trigger": "x"}
    assert get_function_string("GB().run()") == ("GB().run()", {})
