"""The SQL database of the examples: anything that SQLAlchemy has a URL for.

SQLAlchemy is needed in the server only, where the functions run: they name it as a requirement, and the server
installs it. So this program can create tables and read rows without having it: it sends a function for that, too.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redgrease

_engines: dict[str, Any] = {}


def requirements(url: str) -> list[str]:
    """Packages that functions need for the database at ``url``."""
    return ["SQLAlchemy>=2,<3", *(["pg8000>=1.30,<2"] if url.startswith("postgresql+pg8000:") else [])]


def engine(url: str) -> Any:
    """Connections to the database, shared by all calls of a registered function. For use in the server."""
    if url not in _engines:
        import sqlalchemy

        _engines[url] = sqlalchemy.create_engine(url)
    return _engines[url]


def execute(connection: Any, statement: str, rows: Any = None) -> Any:
    """Execute a statement, for one or many rows of parameters. For use in the server."""
    import sqlalchemy

    return connection.execute(sqlalchemy.text(statement), rows)


def query(r: Any, url: str, statement: str, rows: Any = None) -> list[tuple[Any, ...]]:
    """Send a statement to the database, from the server of ``r``; the rows that it returns."""

    def run(_shard: str) -> list[tuple[Any, ...]]:
        try:
            with engine(url).begin() as connection:
                result = execute(connection, statement, rows)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            engine(url).dispose()

    result = redgrease.ShardsIDReader().map(run, requirements=requirements(url)).run(on=r)
    if result.errors:
        raise RuntimeError(str(result.errors[0]))
    found: list[tuple[Any, ...]] = result.records[0]
    return found


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add the option for the database to a command line."""
    parser.add_argument(
        "--database",
        metavar="URL",
        help="such as postgresql+pg8000://user:password@host/name (default: SQLite in a temporary file)",
    )


@contextmanager
def database(url: str | None) -> Iterator[str]:
    """The URL of the database to use: ``url``, or that of an SQLite file that is deleted at the end."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="redgrease-example-") as directory:
        yield f"sqlite:///{Path(directory) / 'example.db'}"
