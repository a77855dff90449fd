"""The parts of `redgrease.recipes.cache_get` that need no server: addresses, downloads, options, routing."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import pickle
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time

import pytest
from redgrease.caching import store
from redgrease.caching.messages import Refused
from redgrease.recipes import _caching, _download, cache_get
from redgrease.recipes._download import Download, check_url
from redis.exceptions import MovedError, ResponseError, TryAgainError

# -- addresses


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "https://example.org:8443/a/b?c=d&e=%20#f",
        "http://127.0.0.1:1/",
        "http://[::1]:80/x",
        "http://example.org./",
        "http://" + "x" * 63 + ".org/",
        "HTTP://EXAMPLE.org/",
        "http://example.org/" + "x" * (_download.URL_BYTES_MAX - 19),
    ],
)
def test_an_address_of_the_web_is_accepted_as_it_is(url):
    assert check_url(url) is url


@pytest.mark.parametrize(
    ("url", "fragment"),
    [
        ("", "neither http:// nor https://"),
        ("example.org", "neither http:// nor https://"),
        ("file:///etc/passwd", "neither http:// nor https://"),
        ("ftp://example.org/", "neither http:// nor https://"),
        ("javascript:alert(1)", "neither http:// nor https://"),
        ("http://", "names no host"),
        ("http:///path", "names no host"),
        ("http://:80/", "names no host"),
        ("http://host:0/", "names no port"),
        ("/abc", "neither http:// nor https://"),
        ("http://a..b/", "a part of its name is empty"),
        ("http://.a/", "a part of its name is empty"),
        ("http://a../", "a part of its name is empty"),
        ("http://./", "a part of its name is empty"),
        ("http://" + "x" * 64 + ".org/", "or too long"),
        ("http://" + "x." * 127 + "/", "or too long"),
        ("http://host:99999/", "cannot be read"),
        ("http://host:x/", "cannot be read"),
        ("http://[::1/", "cannot be read"),
        ("http://me:secret@host/", "a user and a password"),
        ("http://host/a b", "' ' at position 13"),
        ("http://host/\0", r"'\x00' at position 12"),
        ("http://host/\r\nX-Evil: 1", r"'\r' at position 12"),
        ("http://h\u00f6st/", "'\u00f6' at position 8"),
        ("http://evil.net%2f.example.org/", "a host with an escape"),
        ("http://host\\@evil/", r"'\\' at position 11"),
        ("http://host/" + "x" * 10_000, "longer than 8192 bytes"),
        (b"http://\xff/", "is not text"),
        (None, "is not text"),
    ],
)
def test_a_hostile_address_is_refused_with_what_is_wrong(url, fragment):
    with pytest.raises(Refused) as refused:
        check_url(url)
    assert refused.value.kind == "url"
    assert fragment in refused.value.text
    assert "secret" not in refused.value.text
    assert len(refused.value.text) < 300
    assert "\n" not in refused.value.text


@pytest.mark.parametrize("host", ["example.org", "www.EXAMPLE.org", "a.b.example.org"])
def test_hosts_limit_what_may_be_asked(host):
    hosts = ("example.org", "*.Example.org")
    check_url(f"http://{host}:8080/x", hosts)
    for other in (f"{host}.evil.net", "evil.net", "evilexample.org", "127.0.0.1"):
        with pytest.raises(Refused, match="none of the hosts") as refused:
            check_url(f"http://{other}/", hosts)
        assert refused.value.kind == "host"


# -- downloads, from a source that sends exactly these bytes


class Source:
    """Answers each connection with the next of the given answers, byte by byte.

    An answer is bytes, or a function that is called with the connection and the request.
    """

    def __init__(self, *answers):
        self.asked: list[bytes] = []
        self._answers = list(answers)
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/it"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)
        for connection in self._open:
            connection.close()

    def _serve(self):
        for answer in self._answers:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.append(connection)
            asked = b""
            while b"\r\n\r\n" not in asked:
                piece = connection.recv(4096)
                if not piece:
                    break
                asked += piece
            self.asked.append(asked)
            try:
                if callable(answer):
                    answer(connection)
                else:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def answer(body=b"", status="200 OK", **headers):
    lines = [f"HTTP/1.1 {status}", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def get(url, max_bytes=1 << 20, hosts=(), seconds=20.0):
    """The result of a download that ends by itself."""
    download = Download(url, max_bytes, hosts, seconds).start()
    assert download.done.wait(20), "the download did not end"
    return download.entry


def failure(entry, kind):
    assert entry.error.split(" ")[0] == kind, entry
    assert (entry.status, entry.body) == (0, b"")
    return entry.error


def test_the_body_comes_with_status_and_headers():
    sent = answer(b"\0\xff body", Content_Length=7, X_Thing="a", x_thing="b", Set_Cookie="id=1", Redgrease_Cache="hit")
    with Source(sent) as source:
        entry = get(source.url + "?q=1#part")
    assert (entry.status, entry.body, entry.error) == (200, b"\0\xff body", "")
    assert entry.headers == {"content-length": "7", "x-thing": "a, b"}
    asked = source.asked[0].decode().split("\r\n")
    assert asked[0] == "GET /it?q=1 HTTP/1.1"
    assert {"Accept: */*", "Accept-Encoding: identity"} <= set(asked)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (answer(b"until the end"), b"until the end"),
        (answer(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", Transfer_Encoding="chunked"), b"abcde"),
        (answer(b"", Content_Length=0), b""),
        (answer(b"", status="204 No Content"), b""),
        (answer(b"exact", Content_Length=5) + b"and more", b"exact"),
        (answer(b"exact", Content_Length=5, content_length=5), b"exact"),
        (answer(b"exact", Content_Length="5, 5"), b"exact"),
    ],
)
def test_every_way_to_send_a_body(sent, body):
    with Source(sent) as source:
        entry = get(source.url)
    assert (entry.body, entry.error) == (body, "")


@pytest.mark.parametrize(
    ("sent", "fragment"),
    [
        (answer(b"half", Content_Length=8), "ended after 4 of 8 bytes"),
        (answer(b"5\r\nab", Transfer_Encoding="chunked"), "IncompleteRead"),
        (b"", "Remote end closed connection"),
        (b"HTTP/1.1 200", "the headers broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: te", "the headers broke off"),
        (b"this is no HTTP\r\n\r\n", "this is no HTTP"),
        (answer(b"", X="y" * 70_000), ""),
        (answer(b"12345", Content_Length=5, content_length=4), "Content-Length is '4, 5', which is not one number"),
        (answer(b"12345", Content_Length="5, 4"), "which is not one number"),
        (answer(b"12345", Content_Length=-5), "which is not one number"),
        (answer(b"12345", Content_Length="five"), "which is not one number"),
        (answer(b"123", Content_Length="5, 5"), "ended after 3 of 5 bytes"),
        (
            answer(b"1", "206 Partial Content", Content_Length=1, Content_Range="bytes 0-0/5"),
            "status 206, which is a range",
        ),
        (answer(b"1", "226 IM Used", Content_Length=1), "status 226, which is a range"),
    ],
)
def test_half_an_answer_is_none(sent, fragment):
    with Source(sent) as source:
        assert fragment in failure(get(source.url), "broken")


def test_a_failure_keeps_its_status_and_a_short_body():
    with Source(answer(b"no such thing", status="404 Not Found", X="y"), answer(b"x" * 70_000, "500 Oh")) as source:
        entry = get(source.url)
        assert (entry.status, entry.headers, entry.body) == (404, {"x": "y"}, b"no such thing")
        assert entry.error.startswith("status 404 for 'http://127.0.0.1")
        entry = get(source.url)
        assert (entry.status, entry.body) == (500, b"")


def test_the_size_limit_is_looked_up_before_anything_is_read():
    with Source(lambda connection: connection.sendall(answer(Content_Length=1001))) as source:
        assert "has 1001 bytes, and the limit is 1000" in failure(get(source.url, max_bytes=1000), "too_large")


def test_the_size_limit_is_counted_where_no_length_is_told():
    with Source(answer(b"x" * 1001), answer(b"x" * 1000)) as source:
        assert "more than 1000 bytes" in failure(get(source.url, max_bytes=1000), "too_large")
        assert len(get(source.url, max_bytes=1000).body) == 1000


def test_headers_without_end_are_refused():
    many = {f"X-{number}": "y" * 1000 for number in range(90)}
    with Source(answer(b"", **many)) as source:
        failure(get(source.url), "too_large")


def test_redirects_are_followed():
    with Source(
        answer(b"", "301 Moved", Location="/two"),
        answer(b"", "307 There", Location="three?x#y"),
        answer(b"", "302 Found", Location="/a b\u00e4"),
        answer(b"there"),
    ) as source:
        assert get(source.url).body == b"there"
    assert [asked.split(b" ")[1] for asked in source.asked] == [b"/it", b"/two", b"/three?x", b"/a%20b%E4"]


def test_redirects_have_an_end():
    with Source(*[answer(b"", "302 Found", Location="/it")] * 10) as source:
        assert "more than 5 redirects" in failure(get(source.url), "redirect")
    assert len(source.asked) == 6


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://x/", "http://u:p@h/", "http://[", "//:0", "gopher://x"]
)
def test_redirects_lead_nowhere_else(target):
    with Source(answer(b"", "302 Found", Location=target)) as source:
        assert "redirects to a refused address" in failure(get(source.url), "redirect")


def test_redirects_stay_within_the_hosts():
    with Source(answer(b"", "302 Found", Location="http://localhost:1/")) as source:
        assert "'localhost' is none of the hosts" in failure(get(source.url, hosts=["127.0.0.1"]), "redirect")


def test_a_redirect_without_a_target_is_a_status():
    with Source(answer(b"", "304 Not Modified")) as source:
        assert get(source.url).status == 304


def test_who_does_not_answer_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    assert "Connection refused" in failure(get(f"http://127.0.0.1:{port}/"), "unreachable")


def test_a_host_without_an_address_is_unreachable(monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in failure(get("http://nobody.example/"), "unreachable")


def drip(connection):
    """One byte of headers at a time, forever: each of them would restart a socket's timeout."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"y")
        time.sleep(0.01)


def drip_body(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"y")
        time.sleep(0.01)


def say_nothing(connection):
    connection.recv(1)


@pytest.mark.parametrize("how", [drip, drip_body, say_nothing])
def test_a_cancelled_download_ends_at_once_and_closes_its_connection(how):
    ended = threading.Event()

    def until_closed(connection):
        with contextlib.suppress(OSError):
            how(connection)
        ended.set()

    with Source(until_closed) as source:
        download = Download(source.url, 1 << 20, (), 60).start()
        while not source.asked:
            assert not download.done.wait(0.01)
        began = time.monotonic()
        download.cancel()
        assert download.done.wait(10)
        assert time.monotonic() - began < 2
        assert download.entry.error
        assert ended.wait(10)
    assert Download.alive == 0


def test_a_cancelled_download_ends_in_the_middle_of_the_handshake_of_tls():
    """The source accepts the connection, and then sends nothing in TLS."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        download = Download(f"https://127.0.0.1:{listening.getsockname()[1]}/", 1, (), 60).start()
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(10)
            download.cancel()
            assert download.done.wait(10)
    assert download.entry.error


def test_the_timeout_of_a_download_holds_for_silence_without_any_help():
    with Source(say_nothing) as source:
        began = time.monotonic()
        assert "timeout" in get(source.url, seconds=0.3).error
        assert time.monotonic() - began < 5


@pytest.fixture
def authority(tmp_path, monkeypatch):
    """A server with TLS, and the file with its certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no program openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=test"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    def secure(connection):
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=True) as line:
            line.recv(4096)
            line.sendall(answer(b"secret"))
            line.unwrap()

    listening = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            try:
                secure(connection)
            except OSError:
                continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    _download._trust.cache_clear()
    yield f"https://127.0.0.1:{listening.getsockname()[1]}/", certificate
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)
    _download._trust.cache_clear()


def test_certificates_are_verified(authority):
    url, _ = authority
    assert "CERTIFICATE_VERIFY_FAILED" in failure(get(url), "tls")


def test_an_authority_of_the_environment_is_trusted(authority, monkeypatch):
    url, certificate = authority
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert get(url).body == b"secret"


def test_a_proxy_of_the_environment_is_used(monkeypatch):
    with Source(answer(b"by proxy")) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "other.example")
        assert get("http://example.invalid/x").body == b"by proxy"
    assert proxy.asked[0].startswith(b"GET http://example.invalid/x HTTP/1.1\r\n")


# -- options


@pytest.mark.parametrize(
    ("options", "fragment"),
    [
        ({"expiry": 0}, "expiry is a number from 0.001 to 3.1536e+08, not 0"),
        ({"expiry": float("nan")}, "expiry"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": "30"}, "timeout"),
        ({"negative_expiry": -1}, "negative_expiry"),
        ({"max_bytes": True}, "max_bytes"),
        ({"max_bytes": 1 << 40}, "max_bytes"),
        ({"lease": 0}, "lease"),
        ({"max_downloads": 0}, "max_downloads"),
        ({"hosts": [""]}, "hosts are names of hosts"),
        ({"hosts": [7]}, "hosts are names of hosts"),
        ({"hosts": []}, "hosts is [], so no host is allowed; name hosts"),
        ({"hosts": iter(())}, "leave it out to allow any host"),
        ({"hosts": ""}, "hosts are names of hosts"),
        ({"trigger": ""}, "trigger is the name of the command, such as 'cache_get', not ''"),
        ({"trigger": " "}, "trigger is the name of the command"),
        ({"trigger": None}, "trigger is the name of the command"),
        ({"prefix": ""}, "prefix"),
        ({"prefix": "{a}"}, "prefix"),
    ],
)
def test_an_option_out_of_its_range_is_named(options, fragment):
    with pytest.raises(ValueError, match=r"\bnot?\b") as refused:
        cache_get.on(FakeServer(), **options)
    assert fragment in str(refused.value)


def test_settings_travel_whole():
    settings = _caching.Settings(expiry=1.5, hosts=("a", "b"), full=True)
    assert _caching.Settings.loads(settings.dumps()) == settings
    assert _caching.Settings.loads('{"expiry": 7, "of a newer version": 1}') == _caching.Settings(expiry=7)


class FakeServer:
    """A client that must not be used."""

    def execute_command(self, *args, **options):
        raise AssertionError(f"unexpected: {args}")


# -- beside the data, with given replies


@pytest.fixture
def beside(server, monkeypatch):
    """The inside of a server, with sessions."""
    server.getGearsSession = lambda: "session"
    server.setGearsSession = lambda session: None
    server.GearsFlatError = type("FakeFlatError", (Exception,), {})
    return server


def test_what_was_stored_before_the_lease_was_taken_is_not_downloaded_again(beside):
    looks = iter([[None] * 4, ["200", "{}", "body", ""]])
    beside.replies["HMGET"] = lambda *_: next(looks)
    assert _caching.serve(_caching.Settings(full=True).dumps(), "http://127.0.0.1:1/") == (
        200,
        {"redgrease-cache": "waited"},
        b"body",
    )
    taken = next(command for command in beside.commands if command[0] == "SET")
    assert beside.commands[-1] == ("EVAL", store.RELEASE, "1", taken[1], taken[2])


def test_a_flight_whose_session_is_gone_releases_who_waits(beside):
    def gone(*_):
        raise beside.GearsError("NOPERM the caller is unknown")

    beside.replies["HMGET"] = [None] * 4
    beside.replies["SET"] = gone
    status, headers, _ = _caching.serve(_caching.Settings(full=True).dumps(), "http://127.0.0.1:1/")
    assert (status, headers["redgrease-cache"]) == (0, "waited")
    assert "was given up: NOPERM" in headers["redgrease-error"]
    assert not _caching._Flight._all


def test_a_value_that_comes_while_a_lease_is_waited_for_ends_the_wait(beside):
    looks = iter([[None] * 4, ["200", "{}", "body", ""], ["200", None, None, None]])
    beside.replies["HMGET"] = lambda *_: next(looks)
    beside.replies["EXISTS"] = 1
    options = _caching.Settings(full=True).dumps()
    assert _caching.serve(options, "http://127.0.0.1:1/")[2] == b"body", "it was stored between two looks"
    for values in (
        [None] * 4,
        ["200", None, None, None],
        ["x", "{}", "", ""],
        ["200", "[]", "", ""],
        ["1", "{", "", ""],
    ):
        looks = iter([values] * 2)
        with pytest.raises(
            beside.GearsFlatError, match=r"CACHEGET key 'cache_get:\{http://127\.0\.0\.1:1/\}' is not a resource"
        ):
            _caching.serve(options, "http://127.0.0.1:1/")
    looks = iter([[None] * 4])
    beside.replies.update(EXISTS=0, SET=None, PTTL=-1)
    beside.replies["SET"] = lambda *_: None
    with pytest.raises(beside.GearsFlatError, match="lease' is not a resource"):
        _caching.serve(options, "http://127.0.0.1:1/")
    assert not _caching._Flight._all
    assert not any(command[0] in ("DEL", "PEXPIRE") for command in beside.commands)


@pytest.mark.parametrize("kept", [True, False])
def test_who_asks_after_a_failure_starts_again_unless_it_is_kept(beside, monkeypatch, kept):
    """Also while the failed download is still releasing its lease."""
    releasing, go_on, published = threading.Event(), threading.Event(), threading.Event()

    def evaluated(_, script, *__):
        if script == store.RELEASE and not releasing.is_set():
            releasing.set()
            assert go_on.wait(20)
        if script == store._PUBLISH:
            published.set()
        return 1

    beside.replies["HMGET"] = lambda *_: ["0", "{}", "", "kept it"] if published.is_set() else [None] * 4
    beside.replies["SET"] = "OK"
    beside.replies["EVAL"] = evaluated
    began = []
    monkeypatch.setattr(
        _caching._Flight, "_work", lambda self, end: began.append(self) or _download.Entry(error="broken it")
    )
    options = _caching.Settings(full=True, negative_expiry=10 if kept else 0).dumps()
    first = threading.Thread(target=_caching.serve, args=(options, "http://127.0.0.1:1/"))
    first.start()
    try:
        assert releasing.wait(20)
        _, headers, _ = _caching.serve(options, "http://127.0.0.1:1/")
    finally:
        go_on.set()
        first.join(20)
    assert headers["redgrease-cache"] == ("hit" if kept else "created")
    assert len(began) == (1 if kept else 2)
    assert not _caching._Flight._all


# -- the callable


class FakeNode:
    """A shard: answers triggers with given replies, or raises."""

    inside_server = True

    def __init__(self, *replies):
        self.replies = list(replies)
        self.asked = []

    def execute_command(self, *args, **options):
        self.asked.append([arg for arg in args if arg not in ("RG.WITHCODEC", 1)])
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


class FakeCluster:
    """Two shards; the keys of the request are on the first, and after a refresh of the cluster on the second."""

    def __init__(self, first, second):
        self.nodes = [first, second]
        first.name, second.name = "first", "second"
        self.looks = 0
        self.keys = []
        self.nodes_manager = self

    def initialize(self):
        self.looks += 1

    def get_primaries(self):
        return self.nodes

    def get_node_from_key(self, key):
        self.keys.append(key)
        return self.nodes[min(self.looks, 1)]

    def get_node(self, host, port):
        return None

    def get_redis_connection(self, node):
        return node


def reply(value):
    from redgrease import codec

    return [codec.dumps(value)]


def caller(redis, **options):
    return cache_get.CacheGet(redis, "cache_get", _caching.Settings(**options))


def test_the_callable_goes_to_the_shard_of_the_url():
    first, second = FakeNode(reply(b"body")), FakeNode()
    cluster = FakeCluster(first, second)
    assert caller(cluster)("http://x/", 5) == b"body"
    assert cluster.keys == ["cache_get:{http://x/}"]
    assert first.asked == [["RG.TRIGGER", "cache_get", "http://x/", 5, ""]]


@pytest.mark.parametrize("before", [[], [TryAgainError("slot 7 is just being moved")]])
def test_the_callable_follows_a_url_to_another_shard(before):
    first, second = FakeNode(*before, MovedError("7 127.0.0.1:1")), FakeNode(reply(b"body"))
    cluster = FakeCluster(first, second)
    assert caller(cluster)("http://x/") == b"body"
    assert cluster.looks == 1
    assert (len(first.asked), len(second.asked)) == (len(before) + 1, 1)


def test_the_callable_does_not_follow_forever():
    second = FakeNode(*[MovedError("7 127.0.0.1:1")] * 20)
    with pytest.raises(MovedError):
        caller(FakeCluster(FakeNode(MovedError("7 127.0.0.1:1")), second))("http://x/")
    with pytest.raises(TryAgainError):
        caller(FakeCluster(Again(), Again()))("http://x/", timeout=0.2)


def test_the_callable_waits_for_a_worker_that_is_being_replaced():
    down = ResponseError("WORKERDOWN the worker of session 'x' is being replaced: try again")
    node = FakeNode(down, down, reply(b"body"))
    assert caller(node)("http://x/") == b"body"
    dead = ResponseError("WORKERDOWN the session's worker died 3 times without finishing an execution, last: x")
    for error in (dead, ResponseError("WORKERDIED worker 1 (pid 7) was killed by signal 9")):
        with pytest.raises(ResponseError, match=str(error)[:10]):
            caller(FakeNode(error))("http://x/")
    with pytest.raises(ResponseError, match="being replaced"):
        caller(FakeNode(*[down] * 100))("http://x/", timeout=0.1)


class Again(FakeNode):
    """A shard whose slot never arrives anywhere."""

    def execute_command(self, *args, **options):
        raise TryAgainError("slot 7 is just being moved")


def test_a_client_with_coroutines_is_refused():
    class Coroutines:
        async def execute_command(self, *args, **options):
            raise AssertionError("nothing is sent")

    with pytest.raises(TypeError, match=r"cache_get needs a client without coroutines.*asyncio\.to_thread"):
        cache_get.on(Coroutines())


def test_a_full_answer_has_names():
    headers = {"content-type": "text/plain", "redgrease-cache": "waited", "redgrease-error": "status 404 for x"}
    node = FakeNode(reply((404, headers, b"")), reply((200, {"redgrease-cache": "hit"}, b"x")))
    get = caller(node, full=True)
    status, got, body = response = get("http://x/")
    assert (status, got, body) == (404, headers, b"")
    assert (response.outcome, response.error, response.ok) == ("waited", "status 404 for x", False)
    response = get("http://x/")
    assert (response.outcome, response.error, response.ok) == ("hit", "", True)


def test_the_error_travels_between_processes():
    error = cache_get.CacheGetError("url", "'x' begins with neither")
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.kind, copy.text, str(copy)) == (cache_get.CacheGetError, "url", error.text, str(error))


# -- the package


@pytest.mark.parametrize("name", ["recipes", "recipes.cache_get", "recipes._caching", "recipes._download"])
def test_examples_of(name):
    assert doctest.testmod(importlib.import_module(f"redgrease.{name}")).failed == 0


def test_what_runs_on_the_server_needs_no_other_package():
    code = (
        "import sys; import redgrease.recipes._caching; print({'redis', 'cloudpickle', 'requests'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "set()"


def test_recipes_are_listed():
    recipes = importlib.import_module("redgrease.recipes")
    assert recipes.cache_get is cache_get
    assert "cache_get" in dir(recipes)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        recipes.nothing  # noqa: B018
