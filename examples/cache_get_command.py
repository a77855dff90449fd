"""A caching system as a command of the server: ``RG.TRIGGER cache_get URL`` gives the resource behind a URL.

The first request for a resource downloads it and keeps it in the database; later ones are served from there. The
logic is in one place, next to the cache: all clients, in any language, share it, and requests that come while the
resource is being downloaded wait for that download instead of starting their own.

This shows how one writes such a command. To use one, take `redgrease.recipes.cache_get`, which has what is left out
here: limits of size and of hosts, a deadline that covers the whole download, downloads that survive an impatient
client, leases that end with a killed worker, and clusters.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import redgrease


# CommandReader Decorator
@redgrease.command(mode=redgrease.TriggerMode.AsyncLocal, requirements=["requests"])
def cache_get(url: str, expiry: float = 3600, timeout: float = 30) -> bytes:
    """Get a resource from the cache, or from its source. This function runs on the server.

    ``expiry``: seconds that the resource is kept after the latest request for it. ``timeout``: seconds that a
    download, or waiting for another request's download, may take. Empty bytes if the resource is not available.
    """
    import requests

    cmd = redgrease.cmd
    expiry, timeout = math.ceil(float(expiry)), float(timeout)
    claim = f"{url}:download"

    request = cmd.incr(f"{url}:requests")
    cmd.expire(f"{url}:requests", expiry)
    redgrease.log(f"Cache request #{request} for resource '{url}'")

    # Serve it from the cache, or be the one who downloads it, or wait for that one.
    deadline = time.monotonic() + timeout
    while True:
        cached = cmd.get(url)
        if cached is not None:
            cmd.expire(url, expiry)
            return bytes(cached)
        if cmd.set(claim, f"request #{request}", nx=True, ex=math.ceil(timeout)):
            break
        if cmd.get(claim) == "failed" or time.monotonic() > deadline:
            return b""
        time.sleep(0.01)

    # The resource may have arrived between the look into the cache and the claim.
    cached = cmd.get(url)
    if cached is not None:
        cmd.delete(claim)
        return bytes(cached)

    redgrease.log(f"Cache miss #{request} - Downloading resource '{url}'.")
    try:
        response = requests.get(url, timeout=timeout)
    except requests.RequestException as error:
        redgrease.log(f"Cache update #{request} - Request for resource '{url}' failed: {error}", level="warning")
        cmd.set(claim, "failed", ex=1)
        return b""
    redgrease.log(f"Cache update #{request} - Request status for resource '{url}': {response.status_code}")
    if response.status_code != 200:
        cmd.set(claim, "failed", ex=1)
        return b""

    cmd.set(url, response.content, ex=expiry)
    cmd.delete(claim)
    return bytes(response.content)


# Test caching on some images
IMAGES = (
    "http://images.cocodataset.org/train2017/000000169188.jpg",
    "http://images.cocodataset.org/train2017/000000416337.jpg",
)


@dataclass(frozen=True)
class Outcome:
    """What two rounds over the same URLs took."""

    miss_seconds: float
    hit_seconds: float
    files: list[Path]

    def show(self) -> None:
        """Print it."""
        print(f"Cache-miss time: {self.miss_seconds:.3f} seconds")
        print(f"Cache-hit time: {self.hit_seconds:.3f} seconds")
        print(f"That is {self.miss_seconds / self.hit_seconds:.1f} times faster!")


def get_all(get: Any, urls: Sequence[str], directory: Path) -> list[Path]:
    """Get the resources behind ``urls`` and save each to a file; the files that were written."""
    files = []
    for url in urls:
        content = get(url).value
        if content:
            file = directory / url.rpartition("/")[2]
            file.write_bytes(content)
            files.append(file)
    return files


def main(r: Any, urls: Sequence[str] = IMAGES, directory: Path = Path("images")) -> Outcome:
    """Register the command, and get all ``urls`` twice."""
    get = cache_get.on(r, replace=False)
    directory.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    files = get_all(get, urls, directory)
    missed = time.perf_counter()
    get_all(get, urls, directory)
    return Outcome(missed - began, time.perf_counter() - missed, files)


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    parser.add_argument("urls", nargs="*", default=IMAGES, metavar="URL")
    parser.add_argument("--directory", type=Path, default=Path("images"), help="where files go (default: %(default)s)")
    given = parser.parse_args()
    connection = common.connect(given)
    outcome = main(connection, given.urls, given.directory)
    outcome.show()

    # Clean the database
    clean = common.clean_up(connection)
    sys.exit(0 if clean and len(outcome.files) == len(given.urls) else 1)
