"""Download of one web resource, with limits of time, size and hosts. Independent of the database.

It uses the client of the standard library, so nothing has to be installed on the server. Its connections can be closed
from another thread, which makes the deadline strict. The timeout of a socket does not: it restarts with every byte of a
slow source.
"""

from __future__ import annotations

import contextlib
import fnmatch
import functools
import http.client
import io
import socket
import ssl
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import __version__
from ..caching.messages import Refused, shown, span

__all__ = ["Download", "Entry", "check_url"]

URL_BYTES_MAX = 8192
"""Longest URL."""
HOST_BYTES_MAX = 253
"""Longest name of a host; each part between dots has 1 to 63 bytes."""
REDIRECTS_MAX = 5
"""Maximum number of redirects."""
HEADER_BYTES_MAX = 64 << 10
"""Maximum size of the headers of a response."""
FAILURE_BODY_MAX = 64 << 10
"""Maximum size of the stored body of a failed response."""

_PIECE = 64 << 10
_REDIRECTS = frozenset((301, 302, 303, 307, 308))
#: A range (206) and a delta (226): valid only for requests that ask for one.
_UNASKED = frozenset((206, 226))
#: Headers of the connection, or of one client of the source.
_NOT_KEPT = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "set-cookie",
        "set-cookie2",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)
OWN_HEADERS = "redgrease-"
"""Prefix of headers that only the cache itself writes."""


@dataclass(frozen=True)
class Entry:
    """A resource: the response of its source, or the reason why there is none."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    #: Kind of the failure, and a sentence about it; empty on success.
    error: str = ""


def check_url(url: Any, hosts: Sequence[str] = ()) -> str:
    """Return `url` if it may be requested.

    Args:
        url: anything that a client may send.
        hosts: glob patterns for host names; none: any host.

    Raises:
        Refused: it is not a web address, or its host matches none of `hosts`.

    >>> check_url("file:///etc/passwd")
    Traceback (most recent call last):
    redgrease.caching.messages.Refused: url 'file:///etc/passwd' begins with neither http:// nor https://
    """
    if not isinstance(url, str):
        raise Refused("url", f"{shown(url)} is not text")
    if len(url) > URL_BYTES_MAX:
        raise Refused("url", f"{shown(url)} is longer than {URL_BYTES_MAX} bytes")
    for position, sign in enumerate(url):
        if not "!" <= sign <= "~" or sign == "\\":
            raise Refused("url", f"{shown(url)} has {sign!r} at position {position}: percent-encode it")
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise Refused("url", f"{shown(url)} cannot be read: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise Refused("url", f"{shown(url)} begins with neither http:// nor https://")
    if not host or port == 0:
        raise Refused("url", f"{shown(url)} names no {'host' if not host else 'port'} that can be asked")
    if "@" in parts.netloc:
        raise Refused("url", "a user and a password may not stand in a URL: it would be seen in keys and logs")
    labels = host.removesuffix(".").split(".")
    if ":" not in host and (len(host) > HOST_BYTES_MAX or not all(0 < len(label) < 64 for label in labels)):
        raise Refused("url", f"{shown(url)} names no host: a part of its name is empty or too long")
    if "%" in parts.netloc:  # it would be decoded after this check
        raise Refused("url", f"{shown(url)} has a host with an escape: write the host as it is")
    if hosts and not any(fnmatch.fnmatchcase(host, pattern.lower()) for pattern in hosts):
        raise Refused("host", f"{host!r} is none of the hosts that may be asked: {', '.join(hosts)}")
    return url


class Download:
    """A download in its own thread, which its owner can cancel.

    Args:
        url: what to get; it has been checked.
        max_bytes: longest body.
        hosts: as in `check_url`, for redirects.
        seconds: total time, from the name lookup to the last byte. The owner enforces it with `cancel`: a name
            lookup, for example, cannot be interrupted, only abandoned.

    Attributes:
        done: set when `entry` is final.
        entry: the result.
    """

    #: Number of active downloads in this process, including abandoned ones.
    alive = 0
    _counting = threading.Lock()

    def __init__(self, url: str, max_bytes: int, hosts: Sequence[str], seconds: float) -> None:
        self.url = url
        self.max_bytes = max_bytes
        self.hosts = hosts
        self.seconds = seconds
        self.done = threading.Event()
        self.entry = Entry(error="broken the download did not end")
        self._end = 0.0
        self._guard = threading.Lock()
        self._cancelled = False
        self._line: socket.socket | None = None

    def start(self) -> Download:
        """Start."""
        self._end = time.monotonic() + self.seconds
        with Download._counting:
            Download.alive += 1
        try:
            threading.Thread(target=self._run, name="cache_get download", daemon=True).start()
        except BaseException:
            with Download._counting:
                Download.alive -= 1
            raise
        return self

    def cancel(self) -> None:
        """Cancel it at any point. Its result must not be used afterwards."""
        with self._guard:
            self._cancelled = True
            line, self._line = self._line, None
        if line is not None:
            with line, contextlib.suppress(OSError):  # it may have ended already
                line.shutdown(socket.SHUT_RDWR)

    # -- in the thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self.entry = self._entry()
        finally:
            self.cancel()
            with Download._counting:
                Download.alive -= 1
            self.done.set()

    def _entry(self) -> Entry:
        try:
            return self._get()
        except Refused as refused:
            return Entry(error=str(refused))
        except Exception as error:
            return Entry(error=f"{_kind(error)} {shown(self.url)}: {_reason(error)}")

    def _get(self) -> Entry:
        opener = self._opener()
        url = self.url
        for _ in range(REDIRECTS_MAX + 1):
            request = urllib.request.Request(url.partition("#")[0], headers={"Accept": "*/*"})
            with opener.open(request, timeout=self._left()) as response:
                target = response.headers.get("location") if response.status in _REDIRECTS else None
                if target is None:
                    return self._answer(response)
            # The standard library decodes headers as Latin-1; unencoded URLs in them are UTF-8.
            quoted = urllib.parse.quote(target.encode("latin-1", "replace"), safe="!#$%&'()*+,/:;=?@[]~")
            try:
                url = check_url(urllib.parse.urljoin(url, quoted), self.hosts)
            except (Refused, ValueError) as error:
                raise Refused("redirect", f"{shown(self.url)} redirects to a refused address: {error}") from None
        raise Refused("redirect", f"{shown(self.url)} has more than {REDIRECTS_MAX} redirects")

    def _answer(self, response: Any) -> Entry:
        status = int(response.status)
        headers: dict[str, str] = {}
        for name, value in response.headers.items():
            name = name.lower()
            if name not in _NOT_KEPT and not name.startswith(OWN_HEADERS):
                is_again = name in headers and name != "content-length"
                headers[name] = f"{headers[name]}, {value}" if is_again else value
        if sum(map(len, (*headers, *headers.values()))) > HEADER_BYTES_MAX:
            raise Refused("too_large", f"{shown(self.url)}: the headers are longer than {HEADER_BYTES_MAX} bytes")
        if status in _UNASKED:
            raise Refused("broken", f"{shown(self.url)}: status {status}, which is a range that was not requested")
        if 200 <= status < 300:
            return Entry(status, headers, self._body(response, self.max_bytes))
        try:
            body = self._body(response, min(self.max_bytes, FAILURE_BODY_MAX))
        except Exception:  # the status is what counts
            body = b""
            headers.pop("content-length", None)
        return Entry(status, headers, body, f"status {status} for {shown(self.url)}")

    def _body(self, response: Any, limit: int) -> bytes:
        said = self._length(response)
        if said is not None and said > limit:
            raise Refused("too_large", f"{shown(self.url)} has {said} bytes, and the limit is {limit}")
        body = bytearray()
        while piece := response.read(_PIECE):
            body += piece
            if len(body) > limit:
                raise Refused("too_large", f"{shown(self.url)} has more than {limit} bytes, which is the limit")
        self._left()
        if said is not None and len(body) != said:
            raise Refused("broken", f"{shown(self.url)} ended after {len(body)} of {said} bytes")
        return bytes(body)

    def _length(self, response: Any) -> int | None:
        """Length of the body, if the response has one."""
        told = {each.strip() for value in response.headers.get_all("content-length", ()) for each in value.split(",")}
        if len(told) > 1 or not all(each.isascii() and each.isdigit() for each in told):
            lengths = shown(", ".join(sorted(told)))
            raise Refused("broken", f"{shown(self.url)}: its Content-Length is {lengths}, which is not one number")
        length: int | None = response.length
        return int(told.pop()) if length is None and told and not response.chunked else length

    def _left(self) -> float:
        """Remaining seconds."""
        left = self._end - time.monotonic()
        if self._cancelled or left <= 0:
            raise TimeoutError(f"it took longer than {span(self.seconds)}")
        return left

    def _connect(self, address: Any, timeout: Any = None, source: Any = None) -> socket.socket:
        """Connect like `socket.create_connection`, and remember the socket before TLS starts on it."""
        line = socket.create_connection(address, self._left(), source)
        with self._guard:
            if not self._cancelled:
                if self._line is not None:
                    self._line.close()
                self._line = line.dup()
                return line
        line.close()
        raise TimeoutError(f"it took longer than {span(self.seconds)}")

    def _opener(self) -> urllib.request.OpenerDirector:
        """The standard library's client, for HTTP only, with the proxies of the environment."""
        connect = self._connect

        class Plain(http.client.HTTPConnection):
            response_class = _Answer

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self._create_connection = connect

        class Encrypted(http.client.HTTPSConnection):
            response_class = _Answer

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, context=_trust(), **kwargs)
                self._create_connection = connect

        class Handler(urllib.request.AbstractHTTPHandler):
            def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, request)

            def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Encrypted, request)

            http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

        opener = urllib.request.OpenerDirector()
        opener.addheaders = [("User-Agent", f"redgrease/{__version__}")]
        opener.add_handler(urllib.request.ProxyHandler())
        opener.add_handler(Handler())
        return opener


class _Lines(io.BufferedReader):
    """Remembers the last line that was read."""

    last = b""

    def readline(self, size: int | None = -1, /) -> bytes:
        self.last = super().readline(-1 if size is None else size)
        return self.last


class _Answer(http.client.HTTPResponse):
    """A response whose headers must be complete: the standard library accepts truncated headers."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fp = _Lines(self.fp.detach())

    def begin(self) -> None:
        lines = self.fp
        super().begin()
        if isinstance(lines, _Lines) and lines.last not in (b"\r\n", b"\n"):
            raise http.client.HTTPException("the headers broke off")


@functools.lru_cache(maxsize=1)
def _trust() -> ssl.SSLContext:
    """Trusted certificate authorities: those of the host, or of the file that ``SSL_CERT_FILE`` names."""
    return ssl.create_default_context()


def _cause(error: BaseException) -> BaseException:
    reason = error.reason if isinstance(error, urllib.error.URLError) else None
    return reason if isinstance(reason, BaseException) else error


def _kind(error: BaseException) -> str:
    cause = _cause(error)
    if isinstance(cause, TimeoutError):
        return "timeout"
    if isinstance(cause, ssl.SSLError):
        return "tls"
    if isinstance(cause, socket.gaierror) or isinstance(error, urllib.error.URLError):
        return "unreachable"
    return "broken"


def _reason(error: BaseException) -> str:
    cause = _cause(error)
    text = " ".join(str(cause).split())[:300]
    return text or type(cause).__name__
