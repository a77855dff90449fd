"""Named constants."""

from __future__ import annotations

import copy as copy_module
import json
import pickle

import pytest
import redgrease
from redgrease import FailurePolicy, KeyType, LogLevel, ReaderType, TriggerMode


def test_constants_are_the_plain_texts():
    assert (TriggerMode.Async, TriggerMode.AsyncLocal, TriggerMode.Sync) == ("async", "async_local", "sync")
    assert (FailurePolicy.Continue, FailurePolicy.Abort, FailurePolicy.Retry) == ("continue", "abort", "retry")
    assert (KeyType.ZSet, KeyType.Stream, KeyType.Module) == ("zset", "stream", "module")
    assert (LogLevel.Debug, LogLevel.Warning) == ("debug", "warning")
    assert len(ReaderType) == 6
    assert all(getattr(ReaderType, name) == name for name in ReaderType.__members__)


ALL = [constant for kind in (FailurePolicy, KeyType, LogLevel, ReaderType, TriggerMode) for constant in kind]


@pytest.mark.parametrize("constant", ALL, ids=repr)
def test_a_constant_is_its_text_wherever_a_text_is_used(constant):
    text = constant.value
    assert type(text) is str
    assert constant == text
    assert hash(constant) == hash(text)
    assert {text: 1}[constant] == 1
    assert (str(constant), repr(constant), f"{constant}", f"{constant:>12}") == (
        text,
        repr(text),
        text,
        text.rjust(12),
    )
    assert "%s" % constant == constant + "" == "".join([constant]) == text  # noqa: UP031
    assert json.dumps({constant: constant}) == json.dumps({text: text})
    assert constant.encode() == text.encode()
    copies = [pickle.loads(pickle.dumps(constant, protocol)) for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1)]
    assert all(copy is constant for copy in [*copies, copy_module.deepcopy(constant)])
    assert isinstance(constant, str)


@pytest.mark.parametrize("kind", [FailurePolicy, KeyType, LogLevel, ReaderType, TriggerMode])
def test_constants_can_be_listed_and_found_by_text(kind):
    assert all(kind(constant.value) is constant for constant in kind)
    with pytest.raises(ValueError, match="'nothing' is not a valid"):
        kind("nothing")


def test_a_plan_with_constants_is_the_plan_with_their_texts():
    pytest.importorskip("redgrease._native")
    from redgrease.gearialization import plan_of

    def plan(reader, mode, policy, types):
        function = redgrease.gears.OpenGearFunction(redgrease.gears.Reader(reader))
        options = {"keyTypes": types} if types else {"onFailedPolicy": policy}
        return plan_of(function.register(mode=mode, **options)).spec

    texts = plan("KeysReader", "sync", None, ["hash", "list"])
    assert plan(ReaderType.KeysReader, TriggerMode.Sync, None, [KeyType.Hash, KeyType.List]) == texts
    texts = plan("StreamReader", "async_local", "retry", None)
    assert plan(ReaderType.StreamReader, TriggerMode.AsyncLocal, FailurePolicy.Retry, None) == texts


def test_redis_py_sends_a_constant_as_its_text():
    encoder = pytest.importorskip("redis").connection.Encoder("utf-8", "strict", False)
    assert [encoder.encode(constant) for constant in TriggerMode] == [b"async", b"async_local", b"sync"]


@pytest.mark.parametrize(("python", "name"), [(str, "string"), (dict, "hash"), (list, "list"), (set, "set")])
def test_key_types_of_python_types(python, name):
    assert KeyType.of(python) == KeyType.of(python()) == name
    assert KeyType.constructor(name) is python


def test_other_types_have_no_key_type():
    for value in (b"", 1, None, bytes):
        with pytest.raises(ValueError, match="no key type"):
            KeyType.of(value)
    with pytest.raises(KeyError):
        KeyType.constructor("zset")


def test_log_levels():
    assert [LogLevel.to_logging_level(name) for name in ("debug", "verbose", "notice", "warning", "?")] == [
        10,
        20,
        30,
        40,
        20,
    ]
