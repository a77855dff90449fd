"""`redgrease.recipes.cache_get` on real servers, with a source that holds its responses until it is released."""

from __future__ import annotations

import code
import contextlib
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis

from .resp import Err
from .servers import free_port
from .waiting import wait_until

redgrease = pytest.importorskip("redgrease")
cache_get = pytest.importorskip("redgrease.recipes.cache_get")

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorials" / "cache_get.md"


class Source:
    """A web server that counts requests.

    ``/held/...`` and ``/failing/...`` are answered after `release`; the names of the others describe what they do.
    """

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.ended = threading.Event()
        self._gate = threading.Event()
        self._lock = threading.Lock()
        source = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with source._lock:
                    source.asked[self.path] += 1
                _, kind, what = (*self.path.split("/", 2), "")[:3]
                if kind in ("held", "failing"):
                    source._gate.wait(60)
                kind = what if kind == "failing" else kind
                with contextlib.suppress(OSError):
                    getattr(self, f"send_{kind}", self.send_content)()

            def send_content(self) -> None:
                self.answer(200, content(self.path), "image/png")

            def send_500(self) -> None:
                self.answer(500, b"oh no")

            def send_404(self) -> None:
                self.answer(404, b"nothing here")

            def send_empty(self) -> None:
                self.answer(200, b"")

            def send_lengths(self) -> None:
                self.send_response(200)
                for length in (4, 5):
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(b"12345")

            def send_part(self) -> None:
                self.answer(206, b"part")

            def send_text(self) -> None:
                self.answer(200, "täxt\r\n\0".encode(), "text/plain")

            def send_reset(self) -> None:
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

            def send_cut(self) -> None:
                self.head(200, "text/plain", 100)
                self.wfile.write(b"half")

            def send_long(self) -> None:
                self.head(200, "text/plain", 1 << 30)

            def send_endless(self) -> None:
                """More than any limit, without a length; detects when the client has stopped reading."""
                self.head(200, "text/plain", None)
                try:
                    for _ in range(1 << 14):
                        self.wfile.write(b"x" * 4096)
                except OSError:
                    source.ended.set()

            def send_drip(self) -> None:
                """A byte now and then: no socket timeout ever expires."""
                self.head(200, "text/plain", None)
                try:
                    while not source.ended.wait(0.02):
                        self.wfile.write(b"x")
                except OSError:
                    source.ended.set()

            def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
                self.head(status, kind, len(body))
                self.wfile.write(body)

            def head(self, status: int, kind: str, length: int | None) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                if length is not None:
                    self.send_header("Content-Length", str(length))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                pass

        self._http = Server(("127.0.0.1", 0), Handler)
        self.port = self._http.server_port
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def release(self) -> None:
        """Send the held responses, and hold no further ones."""
        self._gate.set()

    def wait_asked(self, path: str, times: int = 1) -> None:
        wait_until(lambda: self.asked[f"/{path}"], f"{path} is asked for", until=lambda count: count >= times)

    def __enter__(self) -> Source:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        self.ended.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)


def content(path: str) -> bytes:
    """The content of a path: not UTF-8."""
    return b"\x89PNG\0\xff " + path.encode()


@pytest.fixture
def source():
    with Source() as server:
        yield server


@pytest.fixture
def r(db):
    client = redgrease.RedisGears(host="127.0.0.1", port=db.server.port)
    yield client
    client.close()


@pytest.fixture
def together():
    """Calls a function in several threads at once; returns futures."""
    pools = []

    def start(count, function, *arguments):
        pool = ThreadPoolExecutor(count)
        pools.append(pool)
        return [pool.submit(function, *arguments) for _ in range(count)]

    yield start
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)


def results(futures):
    return [future.result(30) for future in futures]


def triggered(db, count, trigger="cache_get"):
    """Wait until this number of requests have arrived at the server."""

    def arrived():
        rows = [found for found in db.registrations() if found.args.get("trigger") == trigger]
        return rows[0].numTriggered if rows else 0

    wait_until(arrived, f"{count} requests have arrived", until=lambda seen: seen >= count, deadline=20)


def downloading(db, source):
    """Pid of the worker that has a connection to the source."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{source.port:04X}")}
    for worker in db.server.workers():
        for descriptor in Path(f"/proc/{worker.pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if os.readlink(descriptor) in sockets:
                    return worker.pid
    raise AssertionError("no worker has a connection to the source")


def lease_of(get, url):
    return f"{get.key_of(url)}:lease"


# -- main behaviour


def test_a_resource_is_downloaded_once_and_then_served_from_the_database(r, db, source):
    get = cache_get.on(r)
    url = source.url("a")
    assert get(url) == content("/a")
    assert get(url) == content("/a")
    assert source.asked == {"/a": 1}
    assert get.stats() == {"hit": 1, "created": 1, "waited": 0, "failed": 0, "under_way": 0}
    assert db.r.keys() == [f"cache_get:{{{url}}}".encode()]
    assert 3500_000 < db.r.pttl(get.key_of(url)) <= 3600_000


def test_text_and_nothing_are_resources_too(r, db, source):
    get = cache_get.on(r)
    for _ in range(2):
        assert get(source.url("text")) == "täxt\r\n\0".encode()
        assert get(source.url("empty")) == b""
    assert source.asked == {"/text": 1, "/empty": 1}


def test_two_hundred_clients_and_ten_urls_are_ten_downloads(r, db, source):
    """All 200 requests, each on its own connection, are in the server before the source answers the first."""
    get = cache_get.on(r)
    paths = [f"held/{number}" for number in range(10)]
    connections = [db.wire() for _ in range(200)]
    for number, connection in enumerate(connections):
        connection.send("RG.TRIGGER", "cache_get", source.url(paths[number % 10]))
    triggered(db, 200)
    assert source.asked.total() <= 10
    source.release()
    for number, connection in enumerate(connections):
        assert connection.read() == [content(f"/{paths[number % 10]}")]
    assert source.asked == {f"/{path}": 1 for path in paths}
    stats = get.stats()
    assert stats["created"] == 10
    assert stats["hit"] + stats["waited"] == 190


def test_any_client_can_ask_without_the_package(r, db, source):
    cache_get.on(r)
    wire = db.wire()
    assert wire("RG.TRIGGER", "cache_get", source.url("a")) == [content("/a")]
    assert wire("RG.TRIGGER", "cache_get", source.url("b"), "60", "2.5") == [content("/b")]
    assert wire("RG.TRIGGER", "cache_get", source.url("c"), "", "") == [content("/c")]
    assert 55_000 < db.r.pttl(cache_get.key_of(source.url("b"))) <= 60_000
    assert 3500_000 < db.r.pttl(cache_get.key_of(source.url("c"))) <= 3600_000
    assert wire("RG.TRIGGER", "cache_get", source.url("404")) == [b""]


def test_a_user_who_may_only_trigger_can_use_it(r, db, source):
    cache_get.on(r)
    db.r.execute_command("ACL", "SETUSER", "app", "on", ">secret", "+rg.trigger")
    app = db.wire()
    app("AUTH", "app", "secret")
    assert app("RG.TRIGGER", "cache_get", source.url("a")) == [content("/a")]


# -- failures


@pytest.mark.parametrize("how", ["500", "404", "reset", "cut", "long", "endless", "lengths", "part"])
def test_a_failing_download_releases_all_who_wait(r, db, source, together, how):
    cache_get.on(r, max_bytes=1 << 20)
    url = source.url(f"failing/{how}")
    waiting = together(8, db.server.client().execute_command, "RG.TRIGGER", "cache_get", url)
    triggered(db, 8)
    began = time.monotonic()
    source.release()
    assert results(waiting) == [[b""]] * 8
    assert time.monotonic() - began < 5
    assert source.asked.total() == 1
    if how == "endless":
        assert source.ended.wait(10), "the download went on"


@pytest.mark.parametrize("path", ["held/x", "drip"])
def test_a_download_that_takes_too_long_is_ended_and_releases_all_who_wait(r, db, source, together, path):
    get = cache_get.on(r, timeout=0.4, full=True)
    began = time.monotonic()
    found = results(together(3, get, source.url(path)))
    assert time.monotonic() - began < 5
    assert {(one.status, one.error.split()[0], one.body) for one in found} == {(0, "timeout", b"")}
    assert source.asked.total() == 1
    if path == "drip":
        assert source.ended.wait(10), "the download went on"


@pytest.mark.parametrize("kept", [True, False])
def test_after_a_timeout_the_next_request_gets_what_is_kept_or_starts_again(r, db, source, kept):
    get = cache_get.on(r, timeout=0.3, negative_expiry=10 if kept else 0, full=True)
    url = source.url("held/x")
    found = [get(url) for _ in range(3)]
    assert [one.outcome for one in found] == ["created", *(["hit"] * 2 if kept else ["created"] * 2)]
    # The deadline of the request and that of the queue coincide.
    told = re.escape(f"timeout '{url}'") + r"( was given up after|: it took longer than|: timed out).*"
    assert all(re.fullmatch(told, one.error) for one in found), found
    assert not any(re.search(r"\d\.\d\d", one.error) for one in found), found
    assert source.asked.total() == (1 if kept else 3)


def test_a_failure_is_kept_for_a_while_with_its_status(r, db, source):
    get = cache_get.on(r, negative_expiry=60, full=True)
    url = source.url("404")
    for outcome in ("created", "hit"):
        found = get(url)
        assert (found.status, found.body, found.outcome, found.ok) == (404, b"nothing here", outcome, False)
        assert found.error == f"status 404 for '{url}'"
    assert 50_000 < db.r.pttl(get.key_of(url)) <= 60_000
    nobody = f"http://127.0.0.1:{free_port()}/"
    assert [get(nobody).outcome, get(nobody).outcome] == ["created", "hit"]
    assert get(nobody).error.startswith(f"unreachable '{nobody}': ")
    assert source.asked.total() == 1
    assert get.stats()["failed"] == 5


def test_failures_are_not_kept_when_that_is_wanted(r, db, source):
    get = cache_get.on(r, negative_expiry=0)
    assert [get(source.url("404")), get(source.url("404"))] == [b"", b""]
    assert source.asked.total() == 2
    assert db.r.dbsize() == 0


def test_a_strict_cache_answers_errors(r, db, source):
    get = cache_get.on(r, strict=True)
    url = source.url("404")
    for _ in range(2):
        with pytest.raises(cache_get.CacheGetError, match="404") as raised:
            get(url)
        assert (raised.value.kind, raised.value.text) == ("status", f"404 for '{url}'")
        assert db.wire()("RG.TRIGGER", "cache_get", url) == Err(f"CACHEGET status 404 for '{url}'")
    assert source.asked.total() == 1


def test_an_impatient_client_spoils_nothing_for_the_others(r, db, source, together):
    get = cache_get.on(r, full=True)
    url = source.url("held/x")
    impatient = get(url, timeout=0.05)
    assert (impatient.status, impatient.error) == (0, f"timeout '{url}' is still being downloaded after 0.05 s")
    [patient] = together(1, get, url)
    triggered(db, 2)
    source.release()
    assert patient.result(30).body == content("/held/x")
    assert source.asked.total() == 1


# -- expiry


@pytest.mark.parametrize("sliding", [False, True])
def test_expiry_is_counted_from_the_download_or_slides(r, db, source, sliding):
    get = cache_get.on(r, expiry=600, sliding=sliding)
    url = source.url("a")
    get(url)
    db.r.pexpire(get.key_of(url), 50_000)
    get(url)
    assert (db.r.pttl(get.key_of(url)) > 500_000) is sliding
    get(url, expiry=2000)
    assert (db.r.pttl(get.key_of(url)) > 1900_000) is sliding


def test_a_failure_does_not_slide(r, db, source):
    get = cache_get.on(r, sliding=True, negative_expiry=5)
    get(source.url("404"))
    get(source.url("404"))
    assert db.r.pttl(get.key_of(source.url("404"))) <= 5000


def test_what_has_expired_or_is_forgotten_is_downloaded_again(r, db, source):
    get = cache_get.on(r)
    url = source.url("a")
    get(url, expiry=0.05)
    wait_until(lambda: not db.r.exists(get.key_of(url)), "the resource has expired")
    get(url)
    assert source.asked.total() == 2
    assert get.forget(url)
    assert not get.forget(url)
    get(url)
    assert source.asked.total() == 3


# -- full answers


def test_a_full_answer_has_status_headers_and_body(r, db, source):
    get = cache_get.on(r, full=True)
    url = source.url("a")
    status, headers, body = get(url)
    assert (status, body, headers["content-type"]) == (200, content("/a"), "image/png")
    assert get(url).outcome == "hit"
    assert get(source.url("empty")).ok
    [[status, headers, body]] = db.wire()("RG.TRIGGER", "cache_get", url)
    fields = dict(zip(headers[::2], headers[1::2]))
    assert (status, body, fields[b"content-type"], fields[b"redgrease-cache"]) == (
        200,
        content("/a"),
        b"image/png",
        b"hit",
    )


def test_registrations_with_one_prefix_share_what_they_keep(r, db, source):
    plain, full = cache_get.on(r), cache_get.on(r, trigger="cache_get_full", full=True)
    other = cache_get.on(r, trigger="other", prefix="other:")
    url = source.url("a")
    assert plain(url) == full(url).body == content("/a")
    assert full(url).outcome == "hit"
    assert source.asked.total() == 1
    assert other(url) == content("/a")
    assert source.asked.total() == 2


# -- workers and leases


def test_two_workers_share_one_download(r, db, source, together):
    gets = [cache_get.on(r, trigger=f"cache_{name}", full=True) for name in "ab"]
    url = source.url("held/x")
    [first] = together(1, gets[0], url)
    source.wait_asked("held/x")
    [second] = together(1, gets[1], url)
    wait_until(lambda: gets[1].stats()["under_way"], "the second worker waits")
    source.release()
    assert first.result(30).outcome == "created"
    assert second.result(30).outcome == "waited"
    assert second.result(30).body == content("/held/x")
    assert source.asked.total() == 1
    wait_until(lambda: db.r.keys(), "nothing is left but the resource", until=lambda keys: len(keys) == 1)


def test_a_killed_worker_leaves_nothing_stuck(r, db, source, together):
    get = cache_get.on(r, lease=0.6)
    url = source.url("held/x")
    waiting = together(2, get, url)
    triggered(db, 2)
    source.wait_asked("held/x")
    os.kill(downloading(db, source), signal.SIGKILL)
    for future in waiting:
        with pytest.raises(redis.ResponseError, match="WORKERDIED"):
            future.result(10)
    began = time.monotonic()
    [again] = together(1, get, url)
    source.wait_asked("held/x", 2)
    source.release()
    assert again.result(30) == content("/held/x")
    assert time.monotonic() - began < 8
    assert source.asked.total() == 2
    assert db.r.keys() == [get.key_of(url).encode()]


def test_a_lease_is_renewed_while_the_download_goes_on(r, db, source, together):
    get = cache_get.on(r, lease=0.3)
    url = source.url("held/x")
    [waiting] = together(1, get, url)
    source.wait_asked("held/x")
    before, renewals = 300, 0
    while renewals < 3:
        left = wait_until(lambda seen=before: db.r.pttl(lease_of(get, url)), "the lease changes", until=before.__ne__)
        assert left > 0, "the lease has ended"
        renewals += left > before
        before = left
    source.release()
    assert waiting.result(30) == content("/held/x")
    assert not db.r.exists(lease_of(get, url))


def test_a_lease_of_somebody_else_is_waited_for(r, db, source):
    get = cache_get.on(r, full=True)
    url = source.url("a")
    db.r.set(lease_of(get, url), "somebody", px=400)
    began = time.monotonic()
    assert get(url, timeout=0.1).error.startswith("timeout")
    assert get(url).body == content("/a")
    assert 0.35 < time.monotonic() - began < 5
    assert source.asked.total() == 1


def test_waiting_for_somebody_else_has_an_end(r, db, source):
    get = cache_get.on(r, full=True, timeout=0.3)
    url = source.url("a")
    db.r.set(lease_of(get, url), "somebody", px=60_000)
    found = get(url)
    assert (found.status, found.error.split()[0]) == (0, "timeout")
    assert source.asked.total() == 0
    assert db.r.get(lease_of(get, url)) == b"somebody"
    assert db.r.dbsize() == 1, "a failure that is not the source's is kept"


def test_what_somebody_else_stores_ends_the_waiting(r, db, source, together):
    get = cache_get.on(r, full=True)
    url = source.url("a")
    db.r.set(lease_of(get, url), "somebody", px=60_000)
    [waiting] = together(1, get, url)
    wait_until(lambda: get.stats()["under_way"], "the request waits")
    db.r.hset(get.key_of(url), mapping={"status": 200, "headers": '{"x": "y"}', "body": b"other", "error": ""})
    found = waiting.result(10)
    assert (found.status, found.body, found.headers["x"], found.outcome) == (200, b"other", "y", "waited")


def test_a_lease_that_was_lost_is_left_alone_and_nothing_is_stored(r, db, source, together):
    get = cache_get.on(r)
    url = source.url("held/x")
    [waiting] = together(1, get, url)
    source.wait_asked("held/x")
    db.r.set(lease_of(get, url), "somebody", px=60_000)
    source.release()
    assert waiting.result(30) == content("/held/x")
    assert db.r.get(lease_of(get, url)) == b"somebody"
    assert not db.r.exists(get.key_of(url))


@pytest.mark.parametrize("kind", ["string", "hash", "list", "part"])
def test_what_is_not_of_the_cache_is_refused_and_left_alone(r, db, source, kind):
    get = cache_get.on(r, sliding=True)
    url = source.url("a")
    key = get.key_of(url)
    store = {
        "string": lambda: db.r.set(key, "mine"),
        "hash": lambda: db.r.hset(key, "mine", "x"),
        "list": lambda: db.r.rpush(key, "mine"),
        "part": lambda: db.r.hset(key, mapping={"status": 200, "body": "x"}),
    }
    store[kind]()
    before = db.r.dump(key)
    for act in (get, get.forget):
        with pytest.raises(cache_get.CacheGetError, match="is not a resource of this cache") as error:
            act(url)
        assert error.value.kind == "key"
    assert (db.r.dump(key), db.r.ttl(key), db.r.dbsize()) == (before, -1, 1)
    assert source.asked.total() == 0
    db.r.delete(key)
    assert get(url) == content("/a")
    assert get.forget(url)
    assert not get.forget(url)


def test_what_is_stored_at_the_key_during_a_download_is_left_alone(r, db, source, together):
    get = cache_get.on(r)
    url = source.url("held/x")
    [waiting] = together(1, get, url)
    source.wait_asked("held/x")
    db.r.set(get.key_of(url), "mine")
    source.release()
    assert waiting.result(30) == content("/held/x")
    assert db.r.get(get.key_of(url)) == b"mine"
    db.wait_log("is not a resource of this cache")
    wait_until(lambda: db.r.exists(lease_of(get, url)), "the lease is released", until=lambda there: not there)


def test_a_key_that_is_no_lease_is_refused_and_left_alone(r, db, source):
    get = cache_get.on(r)
    url = source.url("a")
    db.r.set(lease_of(get, url), "mine")
    with pytest.raises(cache_get.CacheGetError, match="is not a resource"):
        get(url)
    assert db.r.get(lease_of(get, url)) == b"mine"


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("protocol", [2, 3])
def test_a_request_takes_as_long_as_it_may_whatever_the_client_would_wait(r, db, source, together, single, protocol):
    with redis.Redis(
        port=db.server.port, socket_timeout=0.3, single_connection_client=single, protocol=protocol
    ) as client:
        get = cache_get.on(client, timeout=30)
        [waiting] = together(1, get, source.url("held/x"))
        source.wait_asked("held/x")
        with pytest.raises(TimeoutError):
            waiting.result(0.7)
        source.release()
        assert waiting.result(30) == content("/held/x")
        assert client.ping()
        assert source.asked.total() == 1


def test_a_reply_that_does_not_come_is_given_up_with_what_was_waited_for(r, db, monkeypatch):
    monkeypatch.setattr("redgrease.link.MARGIN", 0.2)
    with redis.Redis(port=db.server.port, socket_timeout=0.1) as client:
        get = cache_get.on(redgrease.RedisGears(port=db.server.port))
        caller = cache_get.CacheGet(client, "cache_get", get.settings)
        assert client.ping()
        db.r.client_pause(2_000)
        with pytest.raises(redis.exceptions.TimeoutError, match=r"RG\.\w+ within 0\.5 s: 0\.3 s for"):
            caller("http://127.0.0.1:1/", timeout=0.3)
        assert db.r.ping()  # answered when the pause ends
        assert client.ping()


def test_an_abort_ends_a_request_and_not_the_download(r, db, source, together):
    get = cache_get.on(r)
    url = source.url("held/x")
    [aborted] = together(1, get, url)
    source.wait_asked("held/x")
    worker = downloading(db, source)
    [execution] = [each for each in db.executions() if each.status in ("created", "running")]
    db.r.execute_command("RG.ABORTEXECUTION", execution.id)
    with contextlib.suppress(redis.ResponseError, IndexError):
        aborted.result(10)
    [waiting] = together(1, get, url)
    triggered(db, 2)
    assert downloading(db, source) == worker
    source.release()
    assert waiting.result(30) == content("/held/x")
    assert source.asked.total() == 1


def test_unregistering_does_not_leave_anybody_waiting(r, db, source, together):
    get = cache_get.on(r)
    url = source.url("held/x")
    waiting = together(2, get, url)
    source.wait_asked("held/x")
    triggered(db, 2)
    get.unregister()
    began = time.monotonic()
    source.release()
    assert results(waiting) == [content("/held/x")] * 2
    assert time.monotonic() - began < 5
    assert not db.r.exists(lease_of(get, url))


def test_a_full_memory_is_no_reason_not_to_answer(r, db, source):
    get = cache_get.on(r)
    url = source.url("a")
    get(source.url("b"))
    try:
        db.r.config_set("maxmemory", 1)
        assert get(url) == content("/a")
        assert get(source.url("b")) == content("/b")
    finally:
        db.r.config_set("maxmemory", 0)
    assert db.r.keys() == [get.key_of(source.url("b")).encode()]
    db.wait_log("is not kept: OOM")
    assert get(url) == content("/a")
    assert source.asked == {"/a": 2, "/b": 1}


# -- hostile requests


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["file:///etc/passwd"], "url 'file:///etc/passwd' begins with neither http:// nor https://"),
        ([""], "url '' begins with neither http:// nor https://"),
        (["http://"], "url 'http://' names no host that can be asked"),
        (["http://a..b/"], "url 'http://a..b/' names no host: a part of its name is empty or too long"),
        (["/abc"], "url '/abc' begins with neither http:// nor https://"),
        (["http://a/\0b"], r"url 'http://a/\x00b' has '\x00' at position 9: percent-encode it"),
        (["http://a/\r\nX: y"], r"url 'http://a/\r\nX: y' has '\r' at position 9: percent-encode it"),
        (["http://ä/"], "url 'http://ä/' has 'ä' at position 7: percent-encode it"),
        ([b"http://a/\xff"], r"url b'http://a/\xff' is not text"),
        (["http://a/" + "x" * 10_000], "(10009 long) is longer than 8192 bytes"),
        ([], "argument needed are a URL and at most expiry and timeout, not 0 arguments"),
        (["http://a/", 1, 2, 3], "argument needed are a URL and at most expiry and timeout, not 4 arguments"),
        (["http://a/", "soon"], "argument expiry is a number of seconds from 0.001 to 315360000, not 'soon'"),
        (["http://a/", 0], "argument expiry is a number"),
        (["http://a/", "nan"], "argument expiry is a number"),
        (["http://a/", 1, -1], "argument timeout is a number of seconds from 0.001 to 3600, not '-1'"),
        (["http://a/", 1, "inf"], "argument timeout is a number"),
    ],
)
def test_a_hostile_request_is_refused_with_what_is_wrong(r, db, arguments, error):
    cache_get.on(r)
    answer = db.wire()("RG.TRIGGER", "cache_get", *arguments)
    assert isinstance(answer, Err)
    assert answer.text.startswith("CACHEGET ")
    assert error in answer.text
    assert len(answer.text) < 300
    assert db.r.dbsize() == 0


def test_hosts_can_be_limited(r, db, source):
    get = cache_get.on(r, hosts=["localhost", "*.example.org"])
    with pytest.raises(cache_get.CacheGetError, match=r"'127.0.0.1' is none of the hosts") as refused:
        get(source.url("a"))
    assert refused.value.kind == "host"
    assert get(source.url("a").replace("127.0.0.1", "localhost")) == content("/a")


def test_downloads_are_bounded(r, db, source, together):
    get = cache_get.on(r, max_downloads=1)
    [waiting] = together(1, get, source.url("held/x"))
    source.wait_asked("held/x")
    with pytest.raises(cache_get.CacheGetError, match="1 downloads are under way, and the limit is 1") as refused:
        get(source.url("b"))
    assert refused.value.kind == "busy"
    source.release()
    waiting.result(30)
    assert get(source.url("b")) == content("/b")


# -- registration


def test_registering_again_changes_nothing(r, db, source):
    cache_get.on(r, expiry=60)
    before = db.registration().id
    get = cache_get.on(db.client(), expiry=60)
    assert db.registration().id == before
    assert get(source.url("a")) == content("/a")


def test_other_options_are_a_conflict_that_is_named(r, db, source):
    cache_get.on(r, expiry=60)
    with pytest.raises(ValueError, match="expiry is 60 there, not 5, full is False there, not True"):
        cache_get.on(r, expiry=5, full=True)
    kept = cache_get.on(r, full=True, replace=False)
    assert (kept.settings.expiry, kept.settings.full) == (60, False)
    assert kept(source.url("a")) == content("/a")
    replaced = cache_get.on(r, full=True, replace=True)
    assert replaced(source.url("a")).outcome == "hit"
    assert len(db.registrations()) == 1
    replaced.unregister()
    assert db.registrations() == []
    with pytest.raises(redis.ResponseError, match="subcommand not found"):
        replaced(source.url("a"))


def test_a_command_that_is_no_cache_is_left_alone(r, db):
    db.ok("GB('CommandReader').register(trigger='cache_get')")
    with pytest.raises(ValueError, match="it is not a cache"):
        cache_get.on(r, replace=False)
    assert len(db.registrations()) == 1


# -- the tutorial


def test_the_tutorial_does_what_it_shows(db, monkeypatch, capsys):
    """Its programs and commands are run in order, and print the documented output."""
    text = TUTORIAL.read_text().replace(":8000/", f":{(port := free_port())}/").replace(", 8000)", f", {port})")
    text = text.replace("redgrease.RedisGears()", f"redgrease.RedisGears(port={db.server.port})")
    steps = re.findall(r"```(python|sh)\n(.*?)```(?:\s*```console\n(.*?)```)?", text, re.DOTALL)
    assert len(steps) >= 7
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    prompt = code.InteractiveConsole({})
    for number, (language, program, output) in enumerate(steps):
        if language == "sh":
            command = program.replace("redgrease call", f"redgrease call --port {db.server.port}")
            assert command != program
            printed = subprocess.check_output(command, shell=True, text=True, timeout=30)
        else:
            if number == 0:  # the file
                exec(program, prompt.locals)
            for line in [*program.splitlines(), ""] if number else ():
                prompt.push(line)
            printed, errors = capsys.readouterr()
            assert errors == "", program
        assert without_luck(printed) == without_luck(output), program
    assert db.registrations() == []


def without_luck(text):
    """The numbers of hits and of waits depend on how many ran at once; their sum does not."""
    numbers = [int(number) for number in re.findall(r"'(?:hit|waited)': (\d+)", text)]
    return re.sub(r"'(hit|waited)': \d+", "", text), sum(numbers)


# -- clusters


def owner(nodes, key):
    """The node that has a key."""
    wire = nodes[0].wire()
    slot = wire("CLUSTER", "KEYSLOT", key)
    [port] = [node[1] for first, last, node, *_ in wire("CLUSTER", "SLOTS") if first <= slot <= last]
    return slot, next(node for node in nodes if node.server.port == port)


def test_a_cluster_keeps_each_url_on_its_shard(nodes, cluster_client, source, together):
    get = cache_get.on(cluster_client)
    assert cache_get.on(cluster_client).settings == get.settings
    urls = [source.url(f"held/{number}") for number in range(12)]
    futures = [future for url in urls for future in together(3, get, url)]
    for node in nodes:
        own = sum(owner(nodes, get.key_of(url))[1] is node for url in urls)
        assert own
        triggered(node, 3 * own)
    source.release()
    assert results(futures) == [content(f"/held/{number}") for number in range(12) for _ in range(3)]
    assert source.asked == {f"/held/{number}": 1 for number in range(12)}
    for url in urls:
        assert owner(nodes, get.key_of(url))[1].r.exists(get.key_of(url))
    assert get.stats()["created"] == 12
    assert get.forget(urls[0])
    get.unregister()
    assert [node.registrations() for node in nodes] == [[], [], []]


def test_a_wrong_shard_says_where_a_url_is(nodes, cluster_client, source):
    cache_get.on(cluster_client)
    url = source.url("a")
    slot, right = owner(nodes, cache_get.key_of(url))
    for node in nodes:
        if node is not right:
            answer = node.wire()("RG.TRIGGER", "cache_get", url)
            assert answer == Err(f"MOVED {slot} 127.0.0.1:{right.server.port}")
    assert right.wire()("RG.TRIGGER", "cache_get", url) == [content("/a")]


def test_a_url_is_followed_when_its_slot_moves(nodes, cluster_client, source):
    get = cache_get.on(cluster_client)
    url = source.url("a")
    slot, before = owner(nodes, get.key_of(url))
    after = next(node for node in nodes if node is not before)
    ids = {node: node.r.execute_command("CLUSTER", "MYID").decode() for node in nodes}
    try:
        before.r.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[after])
        answer = before.wire()("RG.TRIGGER", "cache_get", url)
        assert answer == Err(f"TRYAGAIN slot {slot} is just being moved")
        for node in (after, before, *nodes):
            node.r.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[after])
        assert get(url) == content("/a")
        assert after.r.exists(get.key_of(url))
    finally:
        get.forget(url)
        for node in (before, after, *nodes):
            node.r.execute_command("CLUSTER", "SETSLOT", slot, "NODE", ids[before])
