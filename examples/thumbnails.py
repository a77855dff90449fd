"""Expensive work once, in two sizes: the server fetches pictures, workers keep thumbnails of them as files.

Several processes want thumbnails of the same pictures at the same time. The command ``cache_get`` downloads each
picture once, beside the data, and keeps it in the server; what is made of it, and may be large, is kept by the file
cache in a directory that all processes share, and is made once, too. The same server coordinates both.
"""

from __future__ import annotations

import multiprocessing
import shutil
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import redgrease
from redgrease.filecache import FileCache
from redgrease.recipes import cache_get


def shrink(png: bytes, factor: int = 8) -> bytes:
    """A picture of 8-bit colours, smaller by ``factor``: as PPM, which needs no library."""
    width, height = struct.unpack(">II", png[16:24])
    rows = zlib.decompress(png[41 : png.rindex(b"IEND") - 8])
    lines = [rows[y * (1 + 3 * width) + 1 :][: 3 * width] for y in range(0, height, factor)]
    pixels = b"".join(line[3 * x :][:3] for line in lines for x in range(0, width, factor))
    return b"P6 %d %d 255\n" % (-(-width // factor), -(-height // factor)) + pixels


def thumbnails(host: str, port: int, directory: Path, urls: Sequence[str]) -> list[tuple[str, bytes]]:
    """What one worker does: for each of ``urls``, how its thumbnail was come by, and its content."""
    get = cache_get.on(redgrease.RedisGears(host=host, port=port))
    with FileCache(directory, url=f"redis://{host}:{port}/0") as cache:
        made = []
        for url in urls:

            def thumbnail(url: str = url) -> bytes:
                picture = get(url)
                time.sleep(0.05)  # thumbnails are quick; let us say that this is a film
                return shrink(picture)

            with cache.get_or_create(url, thumbnail, timeout=60, content_type="image/x-portable-pixmap") as got:
                made.append((got.outcome, got.read()))
        return made


@dataclass(frozen=True)
class Outcome:
    """What the workers came to."""

    seconds: float
    outcomes: Counter[str]
    files: list[bytes]
    same: bool

    def show(self) -> None:
        """Print it."""
        sum_of_all = sum(self.outcomes.values())
        print(f"{sum_of_all} thumbnails were wanted, {len(self.files)} different ones, in {self.seconds:.2f} seconds")
        print(", ".join(f"{self.outcomes[how]} {how}" for how in ("created", "waited", "hit")))


def main(r: Any, urls: Sequence[str], directory: Path, workers: int = 4) -> Outcome:
    """Let ``workers`` processes make thumbnails of ``urls``, all at once."""
    cache_get.on(r)
    where = r.connection_pool.connection_kwargs
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        each = pool.starmap(thumbnails, [(where["host"], where["port"], directory, urls)] * workers)
    seconds = time.perf_counter() - began
    files = [content for _, content in each[0]]
    same = all([content for _, content in one] == files for one in each)
    return Outcome(seconds, Counter(how for one in each for how, _ in one), files, same)


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    parser.add_argument("urls", nargs="+", metavar="URL", help="addresses of PNG pictures with 8-bit colours")
    parser.add_argument("--directory", type=Path, help="the cache's directory (default: a temporary one)")
    given = parser.parse_args()
    connection = common.connect(given)
    place = given.directory or Path(tempfile.mkdtemp(prefix="thumbnails-"))
    outcome = main(connection, given.urls, place)
    outcome.show()
    if given.directory is None:
        shutil.rmtree(place)
    clean = common.clean_up(connection)
    sys.exit(0 if clean and outcome.same else 1)
