"""Expensive work once, in two sizes: the server fetches pictures, workers keep thumbnails of them as files.

Several processes want thumbnails of the same pictures at the same time. The command ``cache_get`` downloads each
picture once, beside the data, and keeps it in the server; what is made of it, and may be large, is kept by the file
cache in a directory that all processes share, and is made once, too. The same server coordinates both.
"""

from __future__ import annotations

import multiprocessing
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import redgrease
from redgrease.filecache import CacheError, FileCache
from redgrease.recipes import cache_get

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS_MAX = 50_000_000


class NoThumbnail(Exception):  # noqa: N818 - an answer, not a fault
    """There is none of this address, and why."""


def shrink(png: bytes, factor: int = 8) -> bytes:
    """A picture of 8-bit colours, smaller by ``factor``: as PPM, which needs no library.

    Raises `NoThumbnail` for anything else.
    """
    if not png.startswith(SIGNATURE):
        raise NoThumbnail(f"no PNG picture: its {len(png)} bytes begin with {png[:8]!r}")
    try:
        header, data = chunks(png)
        width, height, *form = struct.unpack(">IIBBBBB", header)
        if form not in ([8, 2, 0, 0, 0], [8, 6, 0, 0, 0]) or not 0 < width * height <= PIXELS_MAX:
            raise NoThumbnail(
                f"a PNG picture of {width} x {height} pixels, depth {form[0]}, colour type {form[1]}, interlacing "
                f"{form[4]}: save it with 8-bit RGB colours, at most {PIXELS_MAX} pixels, not interlaced"
            )
        size = 3 if form[1] == 2 else 4
        rows = zlib.decompressobj().decompress(data, height * (1 + size * width))
        lines = unfiltered(rows, width, height, size)[::factor]
    except (struct.error, zlib.error, ValueError, IndexError) as error:
        raise NoThumbnail(f"a damaged PNG picture of {len(png)} bytes: {error}") from None
    pixels = b"".join(line[size * x :][:3] for line in lines for x in range(0, width, factor))
    return b"P6 %d %d 255\n" % (-(-width // factor), -(-height // factor)) + pixels


def chunks(png: bytes) -> tuple[bytes, bytes]:
    """The header of a PNG, and its compressed rows."""
    header, data, at, kind = b"", b"", len(SIGNATURE), b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", png, at)
        content = png[at + 8 : at + 8 + length]
        header = content if kind == b"IHDR" else header
        data += content if kind == b"IDAT" else b""
        at += 12 + length
    return header, data


def unfiltered(rows: bytes, width: int, height: int, size: int) -> list[bytes]:
    """The lines of a PNG with ``size`` bytes a pixel: each was written as what it differs from its neighbours."""
    if len(rows) != height * (1 + size * width):
        raise ValueError(f"{len(rows)} bytes are no {height} lines of {width} pixels")
    lines, above = [], bytes(size * width)
    for y in range(height):
        how, *line = rows[y * (1 + size * width) : (y + 1) * (1 + size * width)]
        for x in range(size * width) if how else ():
            left, corner = (line[x - size], above[x - size]) if x >= size else (0, 0)
            near = left + above[x] - corner
            _, _, paeth = min((abs(near - value), n, value) for n, value in enumerate((left, above[x], corner)))
            line[x] = (line[x] + (0, left, above[x], (left + above[x]) // 2, paeth)[how]) % 256
        above = bytes(line)
        lines.append(above)
    return lines


def thumbnails(host: str, port: int, directory: Path, urls: Sequence[str]) -> list[tuple[str, bytes | str]]:
    """What one worker does: for each of ``urls``, how its thumbnail was come by, and its content.

    When there is none that is ``"failed"``, and why.
    """
    get = cache_get.on(redgrease.RedisGears(host=host, port=port), full=True)
    with FileCache(directory, url=f"redis://{host}:{port}/0") as cache:
        made: list[tuple[str, bytes | str]] = []
        for url in urls:

            def thumbnail(url: str = url) -> bytes:
                picture = get(url)
                if not picture.ok:
                    raise NoThumbnail(f"not available: {picture.error}")
                time.sleep(0.05)  # thumbnails are quick; let us say that this is a film
                try:
                    return shrink(picture.body)
                except NoThumbnail as error:
                    kind = picture.headers.get("content-type", "no type")
                    raise NoThumbnail(f"{error} (the source says: {kind})") from None

            try:
                with cache.get_or_create(url, thumbnail, timeout=60, content_type="image/x-portable-pixmap") as got:
                    made.append((got.outcome, got.read()))
            except (NoThumbnail, cache_get.CacheGetError, CacheError) as error:
                made.append(("failed", " ".join(str(error).split())))
        return made


@dataclass(frozen=True)
class Outcome:
    """What the workers came to."""

    seconds: float
    outcomes: Counter[str]
    files: list[bytes]
    failures: dict[str, str]
    same: bool

    def show(self) -> None:
        """Print it."""
        sum_of_all = sum(self.outcomes.values())
        different = len(self.files) + len(self.failures)
        print(f"{sum_of_all} thumbnails were wanted, {different} different ones, in {self.seconds:.2f} seconds")
        hows = ("created", "waited", "hit", *(["failed"] if self.failures else []))
        print(", ".join(f"{self.outcomes[how]} {how}" for how in hows))
        for url, why in self.failures.items():
            print(f"no thumbnail of {url}: {why}", file=sys.stderr)


def main(r: Any, urls: Sequence[str], directory: Path, workers: int = 4) -> Outcome:
    """Let ``workers`` processes make thumbnails of ``urls``, all at once."""
    cache_get.on(r, full=True)
    where = r.connection_pool.connection_kwargs
    began = time.perf_counter()
    with pool_of(workers) as pool:
        each = pool.starmap(thumbnails, [(where["host"], where["port"], directory, urls)] * workers)
    seconds = time.perf_counter() - began
    files = [content for _, content in each[0] if isinstance(content, bytes)]
    failures = {url: why for one in each for url, (_, why) in zip(urls, one, strict=True) if isinstance(why, str)}
    same = all([content for _, content in one if isinstance(content, bytes)] == files for one in each)
    return Outcome(seconds, Counter(how for one in each for how, _ in one), files, failures, same)


def pool_of(workers: int) -> Any:
    """Processes that leave Ctrl-C to this one, which ends them."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        return multiprocessing.get_context("spawn").Pool(workers)
    finally:
        signal.signal(signal.SIGINT, before)


def run(r: Any, urls: Sequence[str], directory: Path | None) -> int:
    """Make the thumbnails, remove all results in any case, and return the exit code of the program."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix="thumbnails-") if directory is None else nullcontext(directory) as place
        ):
            outcome = main(r, urls, Path(place))
            outcome.show()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # who is impatient now would leave something behind
            signal.signal(number, signal.SIG_IGN)
        clean = common.clean_up(r)
    return 0 if clean and outcome.same and not outcome.failures else 1


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL", help="addresses of PNG pictures with 8-bit colours")
    parser.add_argument("--directory", type=Path, help="the cache's directory (default: a temporary one)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        sys.exit(run(common.connect(given), given.urls, given.directory))
    except KeyboardInterrupt:
        sys.exit("interrupted; the server is empty again")
