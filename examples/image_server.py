"""A small HTTP server with pictures, for trying out the cache: a slow source that counts its downloads."""

from __future__ import annotations

import struct
import threading
import time
import zlib
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


def picture(number: int, size: int = 64) -> bytes:
    """A PNG of one colour, another one for each number."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    colour = bytes((number * 37 % 256, number * 91 % 256, number * 151 % 256))
    rows = (b"\0" + colour * size) * size
    header = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class ImageServer:
    """Serves ``/image-N.png`` on a free port of this host. Anything else is not found.

    Each download takes ``delay`` seconds. ``downloads`` counts them by path.
    """

    def __init__(self, delay: float = 0.05) -> None:
        self.downloads: Counter[str] = Counter()
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with lock:
                    server.downloads[self.path] += 1
                time.sleep(delay)
                name = self.path.removeprefix("/image-").removesuffix(".png")
                found = name.isdigit()
                content = picture(int(name)) if found else b"no such picture"
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "image/png" if found else "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)

    def url(self, number: int) -> str:
        """Address of a picture."""
        return f"http://127.0.0.1:{self._http.server_port}/image-{number}.png"

    def urls(self, count: int) -> list[str]:
        """Addresses of so many pictures."""
        return [self.url(number) for number in range(count)]

    def __enter__(self) -> ImageServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)
