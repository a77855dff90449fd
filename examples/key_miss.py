"""Key-miss fill: clients ask Redis only, and Redis asks the SQL database for what it does not have.

A function runs when a client gets a key ``product:ID`` that does not exist. It reads the product from the database,
keeps it for a minute, and gives it to the client as the reply of its GET. The client does not notice.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import common
import redgrease
from sql_store import add_option, database, engine, execute, query, requirements

PRODUCTS = {"1": "tea", "2": "cake", "3": "water"}


def fill_from(url: str, seconds: int) -> redgrease.ClosedGearFunction[Any]:
    """A gear function that reads missing products from the database at ``url`` and keeps them for ``seconds``."""

    def load(record: dict[str, Any]) -> None:
        from redisgears import overrideReply

        key = record["key"]
        with engine(url).connect() as connection:
            product = {"id": key.partition(":")[2]}
            row = execute(connection, "SELECT name FROM products WHERE id = :id", product).one_or_none()
        redgrease.cmd.incr("queries")
        if row is not None:
            redgrease.cmd.set(key, row.name, ex=seconds)
            overrideReply(row.name)

    return (
        redgrease.KeysReader(desc="products from the database")
        .foreach(load, requirements=requirements(url))
        .register("product:*", eventTypes=["keymiss"], commands=["get"], mode="async_local", readValue=False)
    )


@dataclass(frozen=True)
class Outcome:
    """What the client got."""

    first: dict[str, bytes | None]
    again: dict[str, bytes | None]
    missing: bytes | None
    queries: int
    expiry: int

    def show(self) -> None:
        """Print it."""
        print(f"The first time: {self.first}\nThe second time: {self.again}\nAn unknown product: {self.missing}")
        print(f"The database was asked {self.queries} times; a product is kept for {self.expiry} more seconds.")


def main(r: Any, url: str, products: Mapping[str, str] = PRODUCTS, seconds: int = 60) -> Outcome:
    """Put ``products`` into the SQL database only, and get each of them twice from Redis."""
    query(r, url, "CREATE TABLE products (id VARCHAR(20) PRIMARY KEY, name VARCHAR(100))")
    query(
        r,
        url,
        "INSERT INTO products (id, name) VALUES (:id, :name)",
        [{"id": number, "name": name} for number, name in products.items()],
    )
    fill_from(url, seconds).on(r)
    first, again = ({number: r.get(f"product:{number}") for number in products} for _ in range(2))
    missing = r.get("product:none")
    expiry = max(r.ttl(f"product:{number}") for number in products)
    outcome = Outcome(first, again, missing, int(r.get("queries")), expiry)
    query(r, url, "DROP TABLE products")
    common.clean_up(r)
    return outcome


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    add_option(parser)
    given = parser.parse_args()
    with database(given.database) as place:
        main(common.connect(given), place).show()
    sys.exit(0)
