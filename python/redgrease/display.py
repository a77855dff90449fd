"""Functions, results and replies of a server as HTML for notebooks, and results as tables of pandas and Arrow.

Texts come from data and are not trusted: they are escaped, shortened, and not typeset as formulas.

>>> from redgrease.data import ExecutionResult
>>> "&lt;b&gt;" in result(ExecutionResult([{"name": "<b>"}]))
True
"""

from __future__ import annotations

import dataclasses
import html
import importlib
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import operations, utils

if TYPE_CHECKING:
    from .data import ExecutionResult, RedisObject
    from .gears import GearFunction

__all__ = ["fields", "pipeline", "result", "table", "to_arrow", "to_pandas"]

ROWS_MAX = 50
"""Rows of a table that are shown."""
COLUMNS_MAX = 30
"""Columns of a table that are shown."""
CELL_CHARS_MAX = 200
"""Characters of a value that are shown."""
ERRORS_MAX = 5
"""Errors of a result that are shown."""
STEPS_MAX = 40
"""Steps of a function that are drawn."""

# --------------------------------------------------------------------------------------------------------------
# Texts
# --------------------------------------------------------------------------------------------------------------

_shortened = reprlib.Repr()
_shortened.maxstring = _shortened.maxother = CELL_CHARS_MAX
_shortened.maxlong = 60
_shortened.maxlist = _shortened.maxtuple = _shortened.maxset = _shortened.maxfrozenset = _shortened.maxdict = 10


def _escaped(text: str, chars_max: int = CELL_CHARS_MAX) -> str:
    """Text for HTML, shortened; control characters and halves of surrogate pairs are replaced."""
    if len(text) > chars_max:
        text = f"{text[: chars_max - 1]}…"
    text = "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)
    return html.escape(text)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return _escaped(str.__str__(value))
    return _escaped(_shortened.repr(value[: CELL_CHARS_MAX + 1] if isinstance(value, (bytes, bytearray)) else value))


# --------------------------------------------------------------------------------------------------------------
# Tables
# --------------------------------------------------------------------------------------------------------------

#: Classes that keep notebooks from typesetting `$` as formulas.
_PLAIN = 'class="tex2jax_ignore mathjax_ignore"'


def _html_table(columns: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str] = ()) -> str:
    """A table of escaped texts, with notes below."""
    head = "".join(f"<th>{column}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    below = "".join(f"<p>{note}</p>" for note in notes)
    return f"<div {_PLAIN}><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}</div>"


def _columns(rows: Iterable[Mapping[Any, Any]]) -> list[Any]:
    """Keys of all rows, in the order in which they appear."""
    return list(dict.fromkeys(key for row in rows for key in row))


def _rows_html(rows: Sequence[Mapping[Any, Any]], notes: Sequence[str] = ()) -> str:
    shown = rows[:ROWS_MAX]
    columns = _columns(shown)
    missing = []
    if len(rows) > len(shown):
        missing.append(f"{len(rows) - len(shown)} of {len(rows)} rows are not shown.")
    if len(columns) > COLUMNS_MAX:
        missing.append(f"{len(columns) - COLUMNS_MAX} of {len(columns)} columns are not shown.")
        columns = columns[:COLUMNS_MAX]
    cells = ([_cell(row[column]) if column in row else "" for column in columns] for row in shown)
    return _html_table([_cell(column) for column in columns], cells, [*missing, *notes])


def _as_rows(records: Sequence[Any]) -> list[Mapping[Any, Any]] | None:
    """Records as dicts, if all are dicts or record objects."""
    rows: list[Mapping[Any, Any]] = []
    for record in records:
        if isinstance(record, (utils.Record, utils.StreamRecord)):
            rows.append({**{name: value for name, value in vars(record).items() if name != "kwargs"}, **record.kwargs})
        elif isinstance(record, Mapping):
            rows.append(record)
        else:
            return None
    return rows


def result(result: ExecutionResult[Any]) -> str | None:
    """HTML of results: a table if all are dicts, what their type makes of it if there is one, else `None`.

    Errors are shown below, because notebooks print a list of results as a list.
    """
    value = result.value
    own = getattr(type(value), "_repr_html_", None)
    if own is not None:
        made: str | None = own(value)
        return made
    rows = _as_rows(result.records) if isinstance(result.records, list) else None
    errors = [_escaped(str(error), 2 * CELL_CHARS_MAX) for error in (result.errors or ())[:ERRORS_MAX]]
    notes = [f"{len(result.errors or ())} errors:", *(f"<code>{error}</code>" for error in errors)] if errors else []
    if rows:
        return _rows_html(rows, notes)
    return _html_table(["value"], [[_cell(value)]], notes) if errors else None


def _reply_rows(item: RedisObject) -> dict[str, Any]:
    """Fields of a reply, those of nested replies among them."""
    from .data import RedisObject

    row: dict[str, Any] = {}
    for field in dataclasses.fields(item):  # type: ignore[arg-type]
        value = getattr(item, field.name)
        if isinstance(value, RedisObject):
            row.update(_reply_rows(value))
        elif field.repr:
            row[field.name] = _readable(value)
    return {**row, **item.extra}


def _readable(value: Any) -> Any:
    """A value as a reader of a table expects it: text for texts, ids and states, nothing for `None`."""
    from .data import ExecID, ExecutionStatus

    if value is None:
        return ""
    return utils.safe_str(value) if isinstance(value, (bytes, ExecID, ExecutionStatus)) else value


def table(items: Iterable[RedisObject]) -> str:
    """HTML of a list of replies: a row for each."""
    return _rows_html([_reply_rows(item) for item in items])


def fields(item: RedisObject) -> str:
    """HTML of a reply: a row for each field; lists of replies are tables."""
    from .data import RedisObject

    rows = []
    for name, value in _reply_rows(item).items():
        nested = isinstance(value, list) and value and all(isinstance(each, RedisObject) for each in value)
        rows.append([_escaped(name), table(value) if nested else _cell(value)])
    return _html_table([_escaped(type(item).__name__), ""], rows)


# --------------------------------------------------------------------------------------------------------------
# Data frames
# --------------------------------------------------------------------------------------------------------------


def _package(name: str, method: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        raise ModuleNotFoundError(f"{method} needs the package {name!r}: pip install {name}", name=name) from missing


def to_pandas(records: Sequence[Any]) -> Any:
    """The implementation of `redgrease.data.ExecutionResult.to_pandas`."""
    if len(records) == 1 and hasattr(records[0], "to_pandas"):
        return records[0].to_pandas()
    pandas = _package("pandas", "to_pandas()")
    rows = _as_rows(records)
    if rows is None:
        return pandas.DataFrame({"value": pandas.Series(list(records))})
    return pandas.DataFrame.from_records([dict(row) for row in rows], columns=_columns(rows))


def to_arrow(records: Sequence[Any]) -> Any:
    """The implementation of `redgrease.data.ExecutionResult.to_arrow`."""
    if len(records) == 1 and hasattr(records[0], "to_arrow"):
        return records[0].to_arrow()
    pyarrow = _package("pyarrow", "to_arrow()")
    rows = _as_rows(records)
    if rows is None:
        rows = [{"value": record} for record in records]
    columns = {}
    for key in _columns(rows):
        try:
            columns[utils.safe_str(key)] = pyarrow.array([row.get(key) for row in rows])
        except (pyarrow.ArrowException, OverflowError) as error:
            raise TypeError(f"the values of column {key!r} have no common Arrow type: {error}") from error
    return pyarrow.table(columns)


# --------------------------------------------------------------------------------------------------------------
# Functions
# --------------------------------------------------------------------------------------------------------------

#: Operations before which records move, and where to.
_MOVES = {
    **dict.fromkeys(("Repartition", "GroupBy", "BatchGroupBy", "AggregateBy", "CountBy"), "on the shard of each key"),
    **dict.fromkeys(("Collect", "Aggregate", "Sort", "Distinct", "Count", "Avg"), "on the first shard"),
}
#: Sizes of the drawing, in pixels.
_CHAR, _BOX_HEIGHT, _GAP, _PADDING, _CAPTION, _WIDTH_MAX, _ARG_CHARS = 7.3, 40, 26, 12, 20, 860, 32


def pipeline(function: GearFunction[Any]) -> str:
    """HTML of a gear function: a drawing of its steps; those in one frame run without moving records."""
    parts: list[str] = []
    y, width = 0.0, 0.0
    for caption, steps in _segments(function.operations):
        if parts:
            parts.append(_arrow(30, y, 30, y + _GAP - 4))
            y += _GAP
        drawn, right, bottom = _segment(caption, steps, y)
        parts.append(drawn)
        y, width = bottom, max(width, right)
    size = f'width="{width + 2:.0f}" height="{y + 2:.0f}" viewBox="-1 -1 {width + 2:.0f} {y + 2:.0f}"'
    style = 'font-family="monospace" font-size="12" fill="none" stroke="currentColor"'
    shown = _escaped(_text_of(function), 2 * CELL_CHARS_MAX)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} {style}><title>{shown}</title>{"".join(parts)}'
    return f"<div {_PLAIN}>{svg}</svg></div>"


def _text_of(item: Any) -> str:
    try:
        return repr(item)
    except Exception as error:  # of an argument of the user
        return f"{type(item).__name__}({type(error).__name__} in repr)"


def _segments(steps: Sequence[operations.Operation]) -> list[tuple[str, list[str]]]:
    """Captions and texts of the groups of steps that run without moving records."""
    action = steps[-1]
    local = isinstance(action, operations.Register) and (
        steps[0] != operations.Reader("CommandReader") or action.mode in ("async_local", "sync")
    )
    segments: list[tuple[str, list[str]]] = [("on the shard of the event" if local else "on every shard", [])]
    for number, step in enumerate(steps):
        if number == STEPS_MAX - 1 and len(steps) > STEPS_MAX:
            segments[-1][1].append(f"{len(steps) - STEPS_MAX} more steps")
        if STEPS_MAX - 1 <= number < len(steps) - 1:
            continue
        target = _MOVES.get(type(step).__name__)
        if target is not None and target != segments[-1][0]:
            segments.append((target, []))
        segments[-1][1].append(_text_of(step))
    return segments


def _segment(caption: str, steps: Sequence[str], top: float) -> tuple[str, float, float]:
    """Drawing of a segment, its width and the position of its lower edge."""
    parts = []
    x, y, right = float(_PADDING), top + _CAPTION, 0.0
    for number, step in enumerate(steps):
        name, _, arguments = step.partition("(")
        arguments = arguments[:-1] if arguments.endswith(")") else arguments
        if len(arguments) > _ARG_CHARS:
            arguments = f"{arguments[: _ARG_CHARS - 1]}…"
        width = max(len(name), len(arguments), 4) * _CHAR + 20
        if number and x + width > _WIDTH_MAX:
            x, y = float(_PADDING), y + _BOX_HEIGHT + _PADDING
        elif number:
            parts.append(_arrow(x - _GAP, y + _BOX_HEIGHT / 2, x - 4, y + _BOX_HEIGHT / 2))
        parts.append(_box(x, y, width, name, arguments, step))
        right = max(right, x + width + _PADDING)
        x += width + _GAP
    bottom = y + _BOX_HEIGHT + _PADDING
    right = max(right, len(caption) * _CHAR + 2 * _PADDING)
    frame = (
        f'<rect x="0" y="{top:.0f}" width="{right:.0f}" height="{bottom - top:.0f}" rx="8" stroke-dasharray="4 3" '
        f'stroke-opacity=".5"/>{_label(_PADDING, top + 14, caption, "11")}'
    )
    return frame + "".join(parts), right, bottom


def _box(x: float, y: float, width: float, name: str, arguments: str, whole: str) -> str:
    lines = _label(x + 10, y + 17, name, "12", 'font-weight="bold"') + _label(x + 10, y + 32, arguments, "11")
    rect = f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{_BOX_HEIGHT}" rx="4"'
    return f'<g><title>{_escaped(whole)}</title>{rect} fill="currentColor" fill-opacity=".06"/>{lines}</g>'


def _label(x: float, y: float, text: str, size: str, style: str = "") -> str:
    place = f'x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="currentColor" stroke="none"'
    return f"<text {place} {style}>{_escaped(text)}</text>" if text else ""


def _arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """A line with a head, to the right or downwards."""
    head = f"{x2 - 5:.0f},{y2 - 3:.0f} {x2 - 5:.0f},{y2 + 3:.0f}"
    if x1 == x2:
        head = f"{x2 - 3:.0f},{y2 - 5:.0f} {x2 + 3:.0f},{y2 - 5:.0f}"
    return (
        f'<path d="M{x1:.0f} {y1:.0f}L{x2:.0f} {y2:.0f}"/>'
        f'<polygon points="{x2:.0f},{y2:.0f} {head}" fill="currentColor"/>'
    )
