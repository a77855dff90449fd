"""The example programs, with different input, so that their output must come from the server."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path

import pytest

from .servers import ROOT, free_port
from .waiting import wait_until

redgrease = pytest.importorskip("redgrease")

EXAMPLES = ROOT / "examples"


@pytest.fixture(autouse=True, scope="module")
def _examples_can_be_imported():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def example(name: str):
    return import_module(name)


@pytest.fixture
def r(db):
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


def assert_same(comparison):
    assert comparison.same, f"vanilla: {comparison.vanilla!r}\nRedGrease: {comparison.redgrease!r}"
    return comparison.vanilla


def test_basics(r, capsys):
    found = example("basics").main(r, {"A-fighter": 5, "B-fighter": -7, "C-fighter": 40, "D-fighter": 1})
    assert found["nothing"] is True
    assert found["registrations"] == []
    assert found["count"] == found["object count"] == len(found["records"]) == 6
    assert found["sum"] == 39
    assert "Sum of '-fighter'-keys values: 39" in capsys.readouterr().out


def test_word_count(r):
    assert assert_same(example("word_count").main(r, ["a b a", "", "b a c"])) == {"a": 3, "b": 2, "c": 1}


def test_word_count_of_one_word(r):
    assert assert_same(example("word_count").main(r, ["alone"])) == {"alone": 1}


def test_delete_by_prefix(r):
    names = ["tmp:1", "tmp:2", "tmp:3", "tmpx", "keep"]
    found = assert_same(example("delete_by_prefix").main(r, names, "tmp:"))
    assert found == {"deleted": 3, "left": ["keep", "tmpx"]}


def test_delete_by_prefix_when_there_is_nothing(r):
    assert assert_same(example("delete_by_prefix").main(r, ["keep"], "tmp:")) == {"deleted": 0, "left": ["keep"]}


def test_stream_processing(r):
    messages = [{"a": "1", "b": "2"}, {"c": "3"}, {"d": "ö"}]
    found = assert_same(example("stream_processing").main(r, messages))
    assert found == {"hashes": messages, "left in the stream": 0}


def test_automatic_expiry(r):
    assert assert_same(example("automatic_expiry").main(r, {"k": "v", "l": "w"}, 77)) == {"k": "77 s", "l": "77 s"}


def test_keyspace_notification_processing(r, db):
    assert assert_same(example("keyspace_notification").main(r, ["soon", "later"], 20)) == ["later", "soon"]
    assert "GEARS: Key 'soon' expired at " in db.wait_log("Key 'soon' expired at")


def test_reliable_keyspace_notification(r):
    changes = [("person:x", {"n": "1"}), ("cat:y", {"n": "2"}), ("person:x", {"n": "3"})]
    found = assert_same(example("reliable_keyspace_notification").main(r, changes))
    assert found == ["person:x {'n': '1'}", "person:x {'n': '3'}"]


def test_monte_carlo_pi(r):
    dice = random.Random(7)
    hits = sum(dice.random() ** 2 + dice.random() ** 2 < 1 for _ in range(5000))
    assert assert_same(example("monte_carlo_pi").main(r, 5000, 7)) == pytest.approx(4 * hits / 5000)


def test_dataset_with_other_rows(r):
    rows = [
        {"date": "2020/01/01", "precipitation": "0.0", "temp_max": "25", "weather": "sun"},
        {"date": "2020/01/02", "precipitation": "1.0", "temp_max": "30", "weather": "rain"},
        {"date": "2020/02/01", "precipitation": "0.0", "temp_max": "21", "weather": "sun"},
        {"date": "2020/03/01", "precipitation": "0.0", "temp_max": "5", "weather": "sun"},
    ]
    answer = example("dataset").main(r, rows, warm=20)
    assert answer.rows == 4
    assert [(m.name, m.days, m.pleasant) for m in answer.months] == [
        ("February", 1, 1),
        ("January", 2, 1),
        ("March", 1, 0),
    ]
    assert (answer.hottest, answer.hottest_date) == (25.0, "2020/01/01")


def test_dataset_with_a_part_of_the_real_rows(r):
    rows = example("dataset").seattle_weather()
    assert len(rows) > 1000
    part = rows[::3]
    answer = example("dataset").main(r, part, warm=18)
    pleasant = Counter(
        row["date"][5:7] for row in part if float(row["precipitation"]) == 0 and float(row["temp_max"]) >= 18
    )
    assert answer.rows == len(part)
    assert sorted(m.pleasant for m in answer.months) == sorted(pleasant.get(f"{n:02}", 0) for n in range(1, 13))


def test_the_best_customers_are_those_with_the_highest_totals(r):
    module = example("top_customers")
    orders = module.some_orders(300, seed=7)
    totals = Counter()
    for order in orders:
        totals[order["customer"]] += order["cents"]
    found = module.main(r, orders, minimum=25_000, length=4)
    expected = [(cents, name) for name, cents in totals.items() if cents >= 25_000]
    assert [row[:2] for row in found] == sorted(expected, reverse=True)[:4]
    for _, name, number, products in found:
        own = [order for order in orders if order["customer"] == name]
        assert (number, products) == (len(own), sorted({order["product"] for order in own}))
    assert module.main(r, orders, minimum=10**9) == []


def test_an_alarm_is_raised_once_when_a_sensor_stays_hot(r):
    hot = [("a", 51.0), ("a", 52.0), ("b", 60.0), ("a", 50.0), ("a", 53.0), ("a", 54.0), ("a", 55.0), ("a", 56.0)]
    outcome = example("sensor_alarms").main(r, hot, limit=50, in_a_row=3)
    assert outcome.alarms == [("a", 55.0)]
    assert outcome.latest == {"a": 56.0, "b": 60.0}


def test_the_leaderboard_ranks_players(r):
    ranks, best = example("leaderboard_command").main(r, [("x", 5), ("y", 7), ("x", 3), ("z", 1)], length=2)
    assert (ranks, best) == ([1, 1, 1, 3], [["x", 8], ["y", 7]])


def test_the_leaderboard_refuses_what_is_no_number_and_changes_nothing(r, db):
    example("leaderboard_command").score.on(r)
    with pytest.raises(redgrease.exceptions.ScriptError) as refused:
        r.gears.trigger("score", "x", -5)
    assert refused.value.message == "points are a number from 0 on, not '-5'"
    assert db.r.dbsize() == 0


# -- examples with a SQL database


@pytest.fixture(scope="module")
def postgresql():
    """The URL of a PostgreSQL server of this test run."""
    if shutil.which("initdb") is None and not any(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip("PostgreSQL is not installed (initdb was not found); Debian, as root: apt-get install postgresql")
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
    user = "postgres" if os.geteuid() == 0 else None  # it does not run as root

    def command(name: str, *arguments: str) -> list[str]:
        return [str(programs / name) if programs else name, *arguments]

    with tempfile.TemporaryDirectory(prefix="redgrease-postgresql-") as place:
        if user:
            shutil.chown(place, user)
        data, port = f"{place}/data", free_port()
        options = f"-p {port} -k {place} -h 127.0.0.1 -c fsync=off"
        quiet = {"user": user, "cwd": place, "stdout": subprocess.DEVNULL, "timeout": 120}
        subprocess.run(command("initdb", "-A", "trust", "-U", "bank", "-D", data), check=True, **quiet)
        start = command("pg_ctl", "-w", "-D", data, "-l", f"{place}/log", "-o", options, "start")
        subprocess.run(start, check=True, **quiet)
        try:
            yield f"postgresql+pg8000://bank@127.0.0.1:{port}/postgres"
        finally:
            subprocess.run(command("pg_ctl", "-D", data, "-m", "immediate", "stop"), check=True, **quiet)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def sql(request, tmp_path):
    """The URL of a SQL database that is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/bank.db"
    return request.getfixturevalue("postgresql")


def test_a_missing_key_is_filled_from_the_database_once(r, sql):
    outcome = example("key_miss").main(r, sql, {"7": "Ärmel", "8": "b"}, seconds=30)
    assert outcome.first == outcome.again == {"7": "Ärmel".encode(), "8": b"b"}
    assert (outcome.missing, outcome.queries) == (None, 3)
    assert 20 < outcome.expiry <= 30


def test_write_behind_writes_the_last_state_of_each_account_in_batches(r, sql):
    changes = [(f"account:{n % 7}", {"owner": f"o{n}", "cents": n}) for n in range(300)]
    changes += [
        ("account:3", None),
        ("other", {"owner": "x", "cents": 1}),
        ("account:4", None),
        ("account:4", {"owner": "y", "cents": -1}),
    ]
    outcome = example("write_behind").main(r, sql, changes, batch=100)
    assert outcome.rows == [
        ("account:0", "o294", 294),
        ("account:1", "o295", 295),
        ("account:2", "o296", 296),
        ("account:4", "y", -1),
        ("account:5", "o299", 299),
        ("account:6", "o293", 293),
    ]
    assert 3 <= outcome.transactions <= 10


@pytest.mark.slow
def test_write_behind_tries_again_until_the_database_is_there(r, tmp_path, db):
    module, store = example("write_behind"), example("sql_store")
    url = f"sqlite:///{tmp_path}/later/bank.db"
    module.REMEMBER.on(r)
    module.write_to(url, batch=10, milliseconds=20).on(r)
    r.hset("account:1", mapping={"owner": "Ada", "cents": 5})
    wait_until(lambda: any(entry.numFailures for entry in db.registrations()), "a try has failed")
    (tmp_path / "later").mkdir()
    store.query(r, url, "CREATE TABLE accounts (id VARCHAR(50) PRIMARY KEY, owner VARCHAR(100), cents BIGINT)")
    wait_until(lambda: r.get("transactions") == b"1", "the batch is written")
    assert store.query(r, url, "SELECT * FROM accounts") == [("account:1", "Ada", 5)]


def test_write_through_answers_when_the_database_has_the_change(r, sql):
    accounts = [(f"account:{n}", {"owner": f"o{n}", "cents": n}) for n in range(30)]
    outcome = example("write_through").main(r, sql, accounts)
    assert outcome.replies == [2] * 30
    assert 1 <= outcome.transactions <= 30
    assert outcome.rows == sorted((key, row["owner"], row["cents"]) for key, row in accounts)


@pytest.mark.slow
def test_write_through_tells_the_client_what_was_not_saved(r, tmp_path):
    example("write_through").write_to(f"sqlite:///{tmp_path}/nowhere/bank.db").on(r)
    with pytest.raises(redgrease.client.redis.ResponseError, match=r"the account was not saved: .*unable to open"):
        r.hset("account:1", mapping={"owner": "Ada", "cents": 5})


# -- the caching command


@pytest.fixture
def source():
    with example("image_server").ImageServer(delay=0.02) as server:
        yield server


@pytest.fixture
def cache_get(r):
    return example("cache_get_command").cache_get.on(r, replace=False)


def test_the_cache_gives_what_the_source_has_and_downloads_once(r, source, tmp_path, db):
    outcome = example("cache_get_command").main(r, source.urls(3), tmp_path)
    picture = example("image_server").picture
    assert [file.read_bytes() for file in outcome.files] == [picture(n) for n in range(3)]
    assert dict(source.downloads) == {f"/image-{n}.png": 1 for n in range(3)}
    url = source.url(1)
    for line in (
        f"GEARS: Cache request #1 for resource '{url}'",
        f"GEARS: Cache miss #1 - Downloading resource '{url}'.",
        f"GEARS: Cache update #1 - Request status for resource '{url}': 200",
        f"GEARS: Cache request #2 for resource '{url}'",
    ):
        db.wait_log(line)


def test_any_client_can_use_the_cache(cache_get, source, db):
    [content] = db.wire()("RG.TRIGGER", "cache_get", source.url(5))
    assert content == example("image_server").picture(5)


def test_requests_that_come_together_cause_one_download(cache_get, source, db):
    url, contents = source.url(9), []

    def fetch():
        with db.server.client() as client:
            contents.append(client.execute_command("RG.TRIGGER", "cache_get", url))

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert contents == [[example("image_server").picture(9)]] * 8
    assert source.downloads["/image-9.png"] == 1


def test_what_the_source_does_not_have_is_empty_and_is_not_kept(cache_get, source, r):
    url = source.url(1).replace("image-1", "nothing")
    assert cache_get(url).value == b""
    assert not r.exists(url)


def test_a_source_that_cannot_be_reached_is_empty(cache_get, r):
    assert cache_get("http://127.0.0.1:1/x.png", 60, 2).value == b""


def test_the_expiry_is_set_and_renewed(cache_get, source, r):
    url = source.url(2)
    cache_get(url, 50)
    assert 40 <= r.ttl(url) <= 50
    cache_get(url, 500)
    assert 490 <= r.ttl(url) <= 500


# -- as programs


PROGRAMS = [
    "top_customers",
    "sensor_alarms",
    "leaderboard_command",
    "basics",
    "word_count",
    "delete_by_prefix",
    "stream_processing",
    "automatic_expiry",
    "keyspace_notification",
    "reliable_keyspace_notification",
    "monte_carlo_pi",
    "dataset",
]


def run_program(name: str, *arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
    env = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)


#: Their functions have requirements, which are installed for each of them.
SQL_PROGRAMS = ["key_miss", "write_behind", "write_through"]


@pytest.mark.parametrize("name", [*PROGRAMS, *(pytest.param(name, marks=pytest.mark.slow) for name in SQL_PROGRAMS)])
def test_each_example_runs_as_a_program_and_leaves_nothing(db, name):
    done = run_program(name, "--host", "127.0.0.1", "--port", db.server.port)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert db.r.dbsize() == 0
    assert db.registrations() == []


def test_the_caching_example_runs_as_a_program(db, source, tmp_path):
    done = run_program("cache_get_command", "--port", db.server.port, "--directory", tmp_path, *source.urls(2))
    assert done.returncode == 0, done.stderr
    assert "times faster!" in done.stdout
    assert sorted(file.name for file in tmp_path.iterdir()) == ["image-0.png", "image-1.png"]


def test_pictures_are_fetched_and_thumbnails_made_once_for_all_workers(r, source, tmp_path):
    outcome = example("thumbnails").main(r, source.urls(3), tmp_path / "cache", workers=3)
    assert dict(source.downloads) == {f"/image-{n}.png": 1 for n in range(3)}
    assert outcome.outcomes["created"] == 3
    assert sum(outcome.outcomes.values()) == 9
    shrink, picture = example("thumbnails").shrink, example("image_server").picture
    assert outcome.files == [shrink(picture(n)) for n in range(3)]
    assert outcome.same


def test_a_thumbnail_is_the_picture_made_smaller():
    header, _, pixels = example("thumbnails").shrink(example("image_server").picture(3, size=64)).partition(b"\n")
    assert header == b"P6 8 8 255"
    assert pixels == bytes((3 * 37, 3 * 91 % 256, 3 * 151 % 256)) * 64


def test_the_thumbnails_run_as_a_program(db, source):
    done = run_program("thumbnails", "--port", db.server.port, *source.urls(2))
    assert done.returncode == 0, done.stderr
    assert "8 thumbnails were wanted, 2 different ones" in done.stdout
    assert done.stdout.splitlines()[1].startswith("2 created, ")


def png(rows: bytes, width: int, height: int, form=(8, 2, 0, 0, 0), pieces: int = 1) -> bytes:
    """A PNG with a text chunk, and its rows in several chunks."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    data = zlib.compress(rows)
    cut = [data[len(data) * n // pieces : len(data) * (n + 1) // pieces] for n in range(pieces)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *form))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"tEXt", b"a\0b")
        + b"".join(chunk(b"IDAT", piece) for piece in cut)
        + chunk(b"IEND", b"")
    )


def test_a_thumbnail_is_the_picture_however_its_lines_are_written():
    """With each filter; the sums were computed by hand."""
    rows = [
        (0, 10, 20, 30, 40, 50, 60),
        (1, 1, 2, 3, 4, 5, 6),  # to the left: 1 2 3, 5 7 9
        (2, 1, 1, 1, 255, 255, 255),  # above: 2 3 4, 4 6 8
        (3, 1, 1, 1, 1, 1, 1),  # half of both: 2 2 3, 4 5 6
        (4, 1, 1, 1, 1, 1, 1),  # nearest: 3 3 4, 5 6 7
    ]
    made = example("thumbnails").shrink(png(b"".join(map(bytes, rows)), 2, 5, pieces=3), factor=1)
    lines = ((10, 20, 30, 40, 50, 60), (1, 2, 3, 5, 7, 9), (2, 3, 4, 4, 6, 8), (2, 2, 3, 4, 5, 6), (3, 3, 4, 5, 6, 7))
    assert made == b"P6 2 5 255\n" + b"".join(map(bytes, lines))
    transparent = png(bytes((0, 1, 2, 3, 99, 4, 5, 6, 99)), 2, 1, (8, 6, 0, 0, 0))
    assert example("thumbnails").shrink(transparent, factor=1) == b"P6 2 1 255\n\1\2\3\4\5\6"


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "no PNG picture: its 0 bytes begin with b''"),
        (b"<html>", "no PNG picture: its 6 bytes begin with b'<html>'"),
        (b"\x89PNG\r\n\x1a\n", "a damaged PNG picture of 8 bytes"),
        (png(bytes(7), 2, 1)[:-30], "a damaged PNG picture"),
        (png(bytes(6), 2, 1), "6 bytes are no 1 lines of 2 pixels"),
        (png(b"\5" + bytes(6), 2, 1), "a damaged PNG picture"),
        (png(bytes(7), 2, 1, (8, 3, 0, 0, 0)), "colour type 3, interlacing 0: save it with 8-bit RGB"),
        (png(bytes(7), 2, 1, (16, 2, 0, 0, 1)), "depth 16, colour type 2, interlacing 1"),
        (png(bytes(7), 1 << 30, 1 << 30), "at most 50000000 pixels"),
        (png(bytes(7), 0, 1), "of 0 x 1 pixels"),
    ],
)
def test_what_is_no_picture_is_named(content, fragment):
    with pytest.raises(example("thumbnails").NoThumbnail) as refused:
        example("thumbnails").shrink(content)
    assert fragment in str(refused.value)


@pytest.fixture
def page():
    """Address of a resource that exists and is not an image."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page"
        server.shutdown()


def test_thumbnails_that_cannot_be_made_are_named_and_leave_nothing(db, source, page, tmp_path):
    missing = source.url(0).replace("image-0", "nothing")
    nobody = "http://127.0.0.1:1/x.png"
    for _ in range(2):
        done = run_program(
            "thumbnails", "--port", db.server.port, source.url(1), page, missing, nobody, "file:///x", TMPDIR=tmp_path
        )
        assert done.returncode == 1, done.stderr
        lines = dict(line.removeprefix("no thumbnail of ").split(": ", 1) for line in done.stderr.splitlines())
        assert list(lines) == [page, missing, nobody, "file:///x"]
        assert lines[page] == "no PNG picture: its 6 bytes begin with b'<html>' (the source says: text/html)"
        assert lines[missing] == f"not available: status 404 for '{missing}'"
        assert lines[nobody].startswith(f"not available: unreachable '{nobody}': ")
        assert "begins with neither http:// nor https://" in lines["file:///x"]
        assert "20 thumbnails were wanted, 5 different ones" in done.stdout
        assert done.stdout.splitlines()[1].endswith(" hit, 16 failed")
        assert (db.r.dbsize(), db.registrations(), list(tmp_path.iterdir())) == (0, [], [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_thumbnails_that_are_interrupted_leave_nothing(db, tmp_path, number):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.png"
        command = [sys.executable, str(EXAMPLES / "thumbnails.py"), "--port", str(db.server.port), url]
        program = subprocess.Popen(
            command, stderr=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}, process_group=0
        )
        silent.settimeout(30)
        line, _ = silent.accept()
        with line:
            # Ctrl-C reaches all processes of a program.
            os.killpg(program.pid, number) if number == signal.SIGINT else program.send_signal(number)
            _, told = program.communicate(timeout=30)
    assert program.returncode == (1 if number == signal.SIGINT else 128 + number)
    assert told == ("interrupted; the server is empty again\n" if number == signal.SIGINT else "")
    assert (db.r.dbsize(), db.registrations(), list(tmp_path.iterdir())) == (0, [], [])


def test_an_example_leaves_a_database_alone_that_is_not_empty(db):
    db.r.set("precious", "data")
    done = run_program("word_count", "--port", db.server.port)
    assert done.returncode != 0
    assert "redgrease serve" in done.stderr
    assert db.r.get("precious") == b"data"


def test_every_example_is_tested():
    helpers = {"common", "image_server", "quickstart", "sql_store"}
    # It is tested in test_cache_stress.
    elsewhere = {"test_poc_cache_mproc"}
    tested = {*PROGRAMS, *SQL_PROGRAMS, "cache_get_command", "thumbnails", *elsewhere}
    assert {path.stem for path in Path(EXAMPLES).glob("*.py")} == {*tested, *helpers}


def test_the_quickstart_passes_all_its_checks():
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "quickstart.py")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout
