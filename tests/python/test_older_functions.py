"""Functions as RedGrease 0.3.30 pickles them, and replies that its clients expect.

The pickles in `PICKLES` were written by that version, with Python 3.11 and cloudpickle 3.1, of these functions:

    count    KeysReader("user:*", desc="users", requirements=["numpy"]).count().run()
    steps    GearsBuilder("KeysReader", "a*").limit(5, 1).collect().sort(False).distinct().count()
                 .gearfunction.run("b*", collect=False, noScan=True)
    stream   StreamReader("st:*").register("st:*", batch=3, duration=5, onFailedPolicy="retry", trimStream=False,
                 mode="async_local")
    command  CommandReader().register(trigger="echo", mode="sync")
    code     KeysReader().values(type="hash").map(lambda v: int(v["age"]) + 1)
                 .aggregate(0, lambda a, x: a + x, lambda a, x: a + x).run()
"""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path

import pytest
import redgrease
from redgrease import CommandReader, KeysReader, StreamReader, gearialization, runtime
from redgrease.gears import ClosedGearFunction, Map, Run

from .fake_builder import FakeBuilder

PICKLES = Path(__file__).parents[1] / "pickles"

COUNT, STEPS, STREAM, COMMAND, CODE = (
    (PICKLES / f"redgrease-0.3-{name}.pickle").read_bytes()
    for name in ("count", "steps", "stream", "command", "code-3.11")
)


def loaded(data: bytes) -> ClosedGearFunction:
    return gearialization.deserialize_gear_function(data, python_version=(3, 11, 7, "final", 0))


def test_functions_without_code_are_restored():
    count = loaded(COUNT)
    assert repr(count) == repr(KeysReader("user:*", desc="users").count().run())
    assert (count.requirements, count.reader) == ({"numpy"}, "KeysReader")
    assert repr(loaded(STEPS)) == (
        "KeysReader('a*').limit(5, 1).collect().sort(False).distinct().count().run('b*', collect=False, noScan=True)"
    )
    stream = StreamReader("st:*").register(
        "st:*", batch=3, duration=5, onFailedPolicy="retry", trimStream=False, mode="async_local"
    )
    assert repr(loaded(STREAM)) == repr(stream)
    assert repr(loaded(COMMAND)) == repr(CommandReader().register(trigger="echo", mode="sync"))


def test_results_are_never_converted_to_text():
    # `convertToStr` was True by default, without effect.
    assert not any(loaded(data).operation.convertToStr for data in (COUNT, STEPS, STREAM, COMMAND))


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the pickle holds code of Python 3.11")
def test_functions_with_code_run():
    runtime.run(loaded(CODE), FakeBuilder)
    records = [
        {"key": "a", "type": "hash", "event": None, "value": {"age": "7"}},
        {"key": "b", "type": "string", "event": None, "value": "x"},
    ]
    assert FakeBuilder.made[-1].on(records) == [8]


def test_code_of_another_python_is_refused_by_both_versions():
    with pytest.raises(SystemError, match=r"sent from Python 2\.7\.18, and the server's worker is Python 3"):
        gearialization.deserialize_gear_function(CODE, (2, 7, 18))
    assert gearialization.deserialize_gear_function(COUNT, (2, 7, 18)).reader == "KeysReader"


def test_restored_functions_are_those_of_today():
    count = loaded(COUNT)
    with pytest.raises(AttributeError, match="immutable"):
        count.operation = None
    again = pickle.loads(pickle.dumps(count))
    assert (repr(again), again.requirements) == (repr(count), count.requirements)
    assert isinstance(count.operation, Run)


@pytest.mark.parametrize("name", ["accumulator", "reducer", "batch_reducer", "extractor"])
def test_default_callbacks_are_found(name):
    reference = f"credgrease.gears\n_default_{name}\n.".encode()
    assert callable(gearialization._Unpickler(io.BytesIO(reference)).load())


def test_unknown_keywords_of_a_step_are_refused():
    with pytest.raises(TypeError, match=r"map\(\) got an unexpected keyword argument 'typo'"):
        Map.__new__(Map).__setstate__({"op": len, "kwargs": {"typo": 1}})


def test_the_server_is_asked_for_objects():
    # What that means depends on the client of the script: see the worker's builder.
    runtime.run(loaded(COUNT), FakeBuilder)
    assert FakeBuilder.made[-1].action[1]["reply"] == "objects"


def test_the_name_of_a_session_has_both_names():
    text = b"{'sessionName':'s', 'linkedTo': primary, 'dead': false, 'depsList':[]}"
    assert redgrease.data.parse_PD(text)["sessionId"] == "s"
    assert redgrease.data.parse_PD(b"{'sessionId':'s', 'depsList':[]}") == {"sessionId": "s", "depsList": []}
