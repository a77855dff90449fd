"""HTML of functions, results and replies; tables of pandas and Arrow. Data is escaped."""

from __future__ import annotations

import html.parser
import re
import xml.etree.ElementTree as ElementTree

import pytest
from redgrease import CommandReader, KeysReader, display, operations, utils
from redgrease.data import (
    ExecID,
    ExecutionInfo,
    ExecutionPlan,
    ExecutionResult,
    PyStats,
    RedisObjects,
    Registration,
    StepError,
)

HOSTILE = '<script>alert(\'"x&y")</script>'


class Outline(html.parser.HTMLParser):
    """The elements and the text of HTML."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on") or name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


def rows_of(source):
    """Texts of the cells of a table."""
    found = re.findall(r"<tr>(.*?)</tr>", source, re.DOTALL)
    return [[Outline(cell).text for cell in re.findall(r"<t[dh]>(.*?)</t[dh]>", row, re.DOTALL)] for row in found]


# -- results


def test_a_list_of_dicts_is_a_table():
    shown = ExecutionResult([{"key": "a", "value": 1}, {"value": b"\xff", "more": [None]}], errors=[])._repr_html_()
    assert rows_of(shown) == [["key", "value", "more"], ["a", "1", ""], ["", r"b'\xff'", "[None]"]]
    assert "mathjax_ignore" in shown
    assert rows_of(ExecutionResult({"a": 1}, records=[{"a": 1}])._repr_html_()) == [["a"], ["1"]]
    records = ExecutionResult([utils.Record("k", 1, "string"), utils.StreamRecord("s", "1-0", {})])
    assert rows_of(records._repr_html_())[0] == ["key", "value", "type", "event", "id"]


@pytest.mark.parametrize("value", [1, "text", [1, 2], [], None, [{"a": 1}, 2], True, print], ids=repr)
def test_other_results_have_no_table(value):
    assert ExecutionResult(value)._repr_html_() is None


def test_errors_are_shown_with_any_result():
    shown = ExecutionResult([1, 2], errors=[StepError(b"boo"), StepError(HOSTILE.encode())])._repr_html_()
    assert rows_of(shown) == [["value"], ["[1, 2]"]]
    assert "2 errors:" in shown and "boo" in shown and HOSTILE not in shown
    assert "boo" in ExecutionResult([], errors=[StepError(b"boo")])._repr_html_()


def test_a_value_that_knows_its_html_is_asked():
    class Frame:
        def _repr_html_(self):
            return "<b>own</b>"

        def to_pandas(self):
            return "pandas"

        def to_arrow(self):
            return "arrow"

    result = ExecutionResult(Frame())
    assert (result._repr_html_(), result.to_pandas(), result.to_arrow()) == ("<b>own</b>", "pandas", "arrow")


def test_data_is_escaped_everywhere():
    records = [{HOSTILE: HOSTILE, HOSTILE.encode(): HOSTILE.encode(), ("k", HOSTILE): [HOSTILE]}]
    errors = [StepError(HOSTILE.encode())]
    for shown in (
        ExecutionResult(records, errors=errors)._repr_html_(),
        Registration(ExecID(), HOSTILE, HOSTILE.encode())._repr_html_(),
        ExecutionPlan.from_redis(["status", HOSTILE, "errors", [HOSTILE], HOSTILE, HOSTILE])._repr_html_(),
        RedisObjects([Registration(ExecID(HOSTILE), HOSTILE)])._repr_html_(),
        KeysReader(HOSTILE, desc=HOSTILE).map(HOSTILE).aggregate([HOSTILE], named(HOSTILE)).run()._repr_html_(),
    ):
        outline = Outline(shown)
        assert "script" not in outline.tags
        assert "alert(" in outline.text


def named(name):
    def function(acc, record):
        return acc

    function.__name__ = name
    return function


def test_control_characters_and_half_characters_are_replaced():
    shown = ExecutionResult([{"a": "\x00\x1b[2J\u202ex\ud800\ny"}])._repr_html_()
    assert rows_of(shown)[1] == ["\ufffd\ufffd[2J\ufffdx\ufffd\ny"]
    shown.encode()


def test_tables_are_bounded():
    many = [{f"c{column}": "x" * 10_000 for column in range(100)} for _ in range(1000)]
    shown = ExecutionResult(many, errors=[StepError(b"e" * 10_000)] * 100)._repr_html_()
    assert len(rows_of(shown)) == display.ROWS_MAX + 1
    assert len(rows_of(shown)[0]) == display.COLUMNS_MAX
    assert "950 of 1000 rows are not shown" in shown
    assert "70 of 100 columns are not shown" in shown
    assert "100 errors" in shown
    assert len(shown) < 500_000


class Broken:
    def __repr__(self):
        raise ZeroDivisionError


def test_values_that_cannot_be_printed_are_shown():
    assert "Broken instance" in ExecutionResult([{"a": Broken()}])._repr_html_()
    function = KeysReader().aggregate([Broken()])
    assert "ZeroDivisionError in repr" in function._repr_html_()


# -- replies


def test_replies_are_tables():
    stats = PyStats(1, 2, 3)
    assert rows_of(stats._repr_html_())[1:] == [["TotalAllocated", "1"], ["PeakAllocated", "2"], ["CurrAllocated", "3"]]
    infos = RedisObjects([ExecutionInfo.from_redis(["executionId", "a-1", "status", "done", "registered", 0])])
    assert rows_of(infos._repr_html_()) == [["executionId", "status", "registered"], ["a-1", "done", "False"]]
    assert infos == list(infos)
    assert rows_of(RedisObjects()._repr_html_()) == [[]]
    registration = Registration.from_redis(
        ["id", "a-1", "reader", "KeysReader", "desc", None, "RegistrationData", ["mode", "async", "numTriggered", 7]]
    )
    row = dict(zip(*rows_of(RedisObjects([registration])._repr_html_())))
    assert (row["reader"], row["desc"], row["mode"], row["numTriggered"]) == ("KeysReader", "", "async", "7")
    plan = ExecutionPlan.from_redis(["status", "done", "steps", [["type", "map", "duration", 3, "name", "f"]]])
    shown = Outline(plan._repr_html_())
    assert shown.tags.count("table") == 2
    assert "typedurationnamearg" in shown.text and "map3f" in shown.text


# -- functions


def drawing(function):
    """Texts of the drawing, and the number of its frames."""
    shown = function._repr_html_()
    svg = ElementTree.fromstring(re.search(r"<svg.*</svg>", shown, re.DOTALL)[0])
    name = "{http://www.w3.org/2000/svg}"
    texts = [each.text for each in svg.iter(f"{name}text")]
    return texts, sum("stroke-dasharray" in each.attrib for each in svg.iter(f"{name}rect"))


def test_a_function_is_drawn_with_its_segments():
    texts, frames = drawing(KeysReader("user:*").map(len).groupby(str).sort().limit(3).run())
    assert texts[:6] == ["on every shard", "KeysReader", "'user:*'", "map", "len", "on the shard of each key"]
    assert frames == 3
    assert "on the first shard" in texts
    assert drawing(KeysReader())[0] == ["on every shard", "KeysReader"]
    assert drawing(KeysReader().register("a*"))[0][0] == "on the shard of the event"
    assert drawing(CommandReader().register(trigger="x"))[0][0] == "on every shard"
    assert drawing(CommandReader().register(trigger="x", mode="sync"))[0][0] == "on the shard of the event"


def test_it_is_known_for_each_operation_whether_records_move_before_it():
    stay = {"Reader", "Map", "FlatMap", "ForEach", "Filter", "Accumulate", "LocalGroupBy", "Limit", "Run", "Register"}
    assert set(operations.OPERATIONS) == stay | set(display._MOVES)
    assert not stay & set(display._MOVES)


def test_long_functions_are_drawn_in_part():
    function = KeysReader()
    for _ in range(1000):
        function = function.map(len)
    texts, _ = drawing(function.run())
    assert f"{1002 - display.STEPS_MAX} more steps" in texts
    assert texts[-1] == "run"


# -- data frames

RECORDS = [{"key": "a", "value": 1}, {"key": "b", "value": 2, "more": "x"}]


def test_to_pandas():
    pandas = pytest.importorskip("pandas")
    frame = ExecutionResult(RECORDS).to_pandas()
    assert list(frame.columns) == ["key", "value", "more"]
    assert list(frame["value"]) == [1, 2]
    assert list(ExecutionResult([3, 4]).to_pandas()["value"]) == [3, 4]
    assert list(ExecutionResult(5).to_pandas()["value"]) == [5]
    assert list(ExecutionResult([(1, 2), (3, 4)]).to_pandas()["value"]) == [(1, 2), (3, 4)]
    assert list(ExecutionResult([utils.Record("k")]).to_pandas()["key"]) == ["k"]
    assert isinstance(ExecutionResult([]).to_pandas(), pandas.DataFrame)


def test_to_arrow():
    pyarrow = pytest.importorskip("pyarrow")
    table = ExecutionResult(RECORDS).to_arrow()
    assert isinstance(table, pyarrow.Table)
    assert table.to_pydict() == {"key": ["a", "b"], "value": [1, 2], "more": [None, "x"]}
    assert ExecutionResult([3, 4]).to_arrow().to_pydict() == {"value": [3, 4]}
    for values in ([1, "x"], [2**100], [object()]):
        with pytest.raises(TypeError, match="column 'value' have no common Arrow type"):
            ExecutionResult(values, records=values).to_arrow()


@pytest.mark.parametrize(("method", "package"), [("to_pandas", "pandas"), ("to_arrow", "pyarrow")])
def test_a_missing_package_is_named(monkeypatch, method, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=f"{method}.*pip install {package}"):
        getattr(ExecutionResult(RECORDS), method)()
