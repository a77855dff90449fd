"""Logging helpers."""

from __future__ import annotations

import json
import logging
import time

import pytest
from redgrease import formatting
from redgrease.formatting import UTC_ISO8601_Formatter, initialize_logger, log_formatter


@pytest.fixture(autouse=True)
def root(monkeypatch):
    """The root logger; what tests change is undone."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level
    yield root
    root.setLevel(level)


def without_handlers(root):
    """Remove the handlers that pytest adds when a test begins."""
    root.handlers.clear()


def record(message="hello", created=0.000_25):
    made = logging.LogRecord("name", logging.WARNING, "/x.py", 12, message, (), None, "func")
    made.created = created
    return made


def test_a_line_has_five_fields_and_its_time_is_utc(monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    monkeypatch.undo()
    line = log_formatter.format(record("two\nlines"))
    assert line == "1970-01-01T00:00:00.000250\tWARNING\tname.func@12:\ttwo\nlines\tEOL"
    assert UTC_ISO8601_Formatter("%(asctime)s", "%H:%M").format(record()) == "00:00"
    time.tzset()


def test_the_root_logger_gets_a_handler_a_format_and_a_level(root, capsys):
    without_handlers(root)
    initialize_logger()
    assert root.level == logging.DEBUG
    logging.getLogger("some.name").debug("message")
    assert capsys.readouterr().err.endswith(":\tmessage\tEOL\n")
    initialize_logger("INFO", "%(message)s!")
    logging.debug("not shown")
    logging.info("shown")
    assert capsys.readouterr().err == "shown!\n"
    assert len(root.handlers) == 1


def test_a_formatter_is_used_as_it_is(root):
    without_handlers(root)
    mine = logging.Formatter("%(message)s")
    initialize_logger(fmt=mine)
    assert root.handlers[0].formatter is mine


def test_existing_handlers_are_kept(root):
    without_handlers(root)
    mine = logging.NullHandler()
    root.addHandler(mine)
    initialize_logger()
    assert root.handlers == [mine]
    assert mine.formatter is log_formatter


CONFIG = {"version": 1, "loggers": {"of.the.file": {"level": "ERROR"}}}
INI = """
[loggers]
keys=root,mine
[handlers]
keys=
[formatters]
keys=
[logger_root]
handlers=
[logger_mine]
qualname=of.the.file
level=ERROR
handlers=
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.json", json.dumps(CONFIG)), ("a.ini", INI), ("a.conf", json.dumps(CONFIG)), ("a.conf", INI)],
)
def test_a_file_is_read_by_its_suffix_or_tried(tmp_path, name, text):
    logging.getLogger("of.the.file").setLevel(logging.NOTSET)
    existing = logging.getLogger("an.existing.logger")
    (tmp_path / name).write_text(text)
    initialize_logger(config=tmp_path / name)
    assert logging.getLogger("of.the.file").level == logging.ERROR
    assert not existing.disabled


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.other"])
def test_yaml(tmp_path, name):
    pytest.importorskip("yaml")
    logging.getLogger("of.the.file").setLevel(logging.NOTSET)
    (tmp_path / name).write_text("version: 1\nloggers:\n  of.the.file:\n    level: ERROR\n")
    initialize_logger(config=str(tmp_path / name))
    assert logging.getLogger("of.the.file").level == logging.ERROR


def test_a_dict_is_a_configuration():
    logging.getLogger("of.the.file").setLevel(logging.NOTSET)
    initialize_logger(config=CONFIG)
    assert logging.getLogger("of.the.file").level == logging.ERROR
    with pytest.raises(ValueError, match="version"):
        initialize_logger(config={})


def test_wrong_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.json"):
        initialize_logger(config=tmp_path / "missing.json")
    for name, text in (("a.json", INI), ("a.ini", json.dumps(CONFIG)), ("a.conf", "???"), ("b.json", "[]")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=f"{name}.*no configuration"):
            initialize_logger(config=tmp_path / name)


def test_all_names_exist():
    assert {name for name in formatting.__all__ if not hasattr(formatting, name)} == set()
