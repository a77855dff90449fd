"""Named constants."""

from __future__ import annotations

import pytest
from redgrease import FailurePolicy, KeyType, LogLevel, ReaderType, TriggerMode


def test_constants_are_the_plain_texts():
    assert (TriggerMode.Async, TriggerMode.AsyncLocal, TriggerMode.Sync) == ("async", "async_local", "sync")
    assert (FailurePolicy.Continue, FailurePolicy.Abort, FailurePolicy.Retry) == ("continue", "abort", "retry")
    assert (KeyType.ZSet, KeyType.Stream, KeyType.Module) == ("zset", "stream", "module")
    assert (LogLevel.Debug, LogLevel.Warning) == ("debug", "warning")
    readers = [name for name in vars(ReaderType) if not name.startswith("_")]
    assert len(readers) == 6
    assert all(getattr(ReaderType, name) == name for name in readers)


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
