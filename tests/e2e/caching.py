"""Helpers for the tests of `redgrease cache`: the command, and a plain server to coordinate by."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from .servers import KINDS, Server, UnavailableError

#: The command beside the interpreter that runs the tests. REDGREASE_COMMAND=/path/redgrease tests another build.
COMMAND = Path(os.environ.get("REDGREASE_COMMAND", Path(sys.executable).parent / "redgrease"))
TIMEOUT_S = 60.0


def plain_server(**conf: object) -> Server:
    """A server without any module and without persistence: the first kind that is available."""
    reasons = []
    for kind in sorted(KINDS, key=lambda kind: not kind.is_redis_7_0):
        try:
            kind.binary()
        except UnavailableError as reason:
            reasons.append(f"{kind.name}: {reason}")
        else:
            return Server(kind, conf=conf, with_module=False).start()
    pytest.skip("; ".join(reasons))


def clean_environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("REDGREASE_")}


@dataclass
class Cache:
    """`redgrease cache` on one cache."""

    directory: Path
    url: str | None
    namespace: str = "test"
    codes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not COMMAND.exists():
            pytest.fail(f"{COMMAND} does not exist: run `make build` first", pytrace=False)
        listed = subprocess.run(
            [COMMAND, "cache", "codes", "--json"], capture_output=True, check=True, timeout=TIMEOUT_S
        )
        self.codes = {row["code"]: row["status"] for row in map(json.loads, listed.stdout.splitlines())}

    def line(self, subcommand: str, *args: object) -> list[bytes | str | Path]:
        """The command line; a key may be bytes."""
        where: list[bytes | str | Path] = ["--dir", self.directory, "--namespace", self.namespace]
        if self.url is not None:
            where += ["--url", self.url]
        words = [arg if isinstance(arg, (bytes, Path)) else str(arg) for arg in args]
        return [COMMAND, "cache", subcommand, *where, *words]

    def run(
        self, subcommand: str, *args: object, code: int | str | None = 0, input: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end. ``code`` is an exit code, or the name of an error code."""
        line = self.line(subcommand, *args)
        done = subprocess.run(line, input=input, capture_output=True, timeout=TIMEOUT_S, env=clean_environment())
        expected = self.codes[code] if isinstance(code, str) else code
        assert expected is None or done.returncode == expected, f"{line}: {done}"
        assert b"panicked" not in done.stderr, done
        return done

    def fails(self, subcommand: str, *args: object, code: int | str, input: bytes = b"") -> str:
        """Run a command that must fail without data on stdout, and return its stderr."""
        done = self.run(subcommand, *args, code=code, input=input)
        assert done.stdout == b"", done
        return done.stderr.decode()

    def json(self, subcommand: str, *args: object, code: int | str | None = 0, input: bytes = b"") -> list:
        """The lines of JSON that a subcommand prints."""
        return [
            json.loads(row) for row in self.run(subcommand, "--json", *args, code=code, input=input).stdout.splitlines()
        ]

    def start(self, subcommand: str, *args: object) -> subprocess.Popen[bytes]:
        """Start without waiting; all three standard streams are pipes."""
        pipe = subprocess.PIPE
        line = self.line(subcommand, *args)
        return subprocess.Popen(line, stdin=pipe, stdout=pipe, stderr=pipe, env=clean_environment())

    def put(self, key: bytes | str, content: bytes = b"content", *args: object) -> None:
        self.run("put", *args, "--", key, input=content)

    def get(self, key: bytes | str) -> bytes:
        return self.run("get", "--", key).stdout

    def listed(self) -> list[bytes]:
        """All keys, as bytes."""
        return [key_bytes(row["key"]) for row in self.json("ls")]

    def files(self) -> list[Path]:
        return [path for path in self.directory.rglob("*") if path.is_file()]


def key_bytes(key: str | dict[str, str]) -> bytes:
    """A key in JSON."""
    return key.encode() if isinstance(key, str) else bytes.fromhex(key["hex"])
