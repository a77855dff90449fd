"""Write-behind: clients write to Redis at full speed; changes reach the SQL database in batches, a little later.

Two functions share the work. The first runs with each write of an account, before the client has its reply, and
appends the change to a stream. The second takes the changes from the stream, a batch at a time, and writes each batch
in one transaction. When the database cannot be reached, it tries the same batch again; nothing is lost.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import common
import redgrease
from sql_store import add_option, database, engine, execute, query, requirements

CHANGES = tuple((f"account:{number % 10}", {"owner": f"Owner {number % 10}", "cents": number}) for number in range(500))


def remember(record: dict[str, Any]) -> None:
    """Append a change to the stream; a key without a value was deleted."""
    value = record["value"] or {}
    redgrease.cmd.xadd(
        f"changes:{redgrease.hashtag3()}",
        {"key": record["key"], "owner": value.get("owner", ""), "cents": value.get("cents", "")},
    )


REMEMBER = (
    redgrease.KeysReader(desc="changes of accounts, into a stream")
    .foreach(remember)
    .register("account:*", eventTypes=["hset", "del"], mode="sync")
)


def write_to(url: str, batch: int, milliseconds: int) -> redgrease.ClosedGearFunction[Any]:
    """A gear function that writes changes to the database at ``url``.

    ``batch``: number of changes that start a transaction; fewer do so after ``milliseconds``.
    """

    def write(changes: list[dict[str, str]]) -> None:
        latest = {change["key"]: change for change in changes}  # of several changes of a key only the last one counts
        rows = [
            {"id": key, "owner": change["owner"], "cents": int(change["cents"])}
            for key, change in latest.items()
            if change["owner"]
        ]
        # Both steps may be repeated: after a crash a batch is written again.
        with engine(url).begin() as connection:
            execute(connection, "DELETE FROM accounts WHERE id = :id", [{"id": key} for key in latest])
            if rows:
                execute(connection, "INSERT INTO accounts (id, owner, cents) VALUES (:id, :owner, :cents)", rows)
        redgrease.cmd.incr("transactions")

    return (
        redgrease.StreamReader(desc="changes of accounts, into the database")
        .values()
        .accumulate()
        .foreach(write, requirements=requirements(url))
        .register(
            "changes:*",
            mode="async_local",
            batch=batch,
            duration=milliseconds,
            onFailedPolicy=redgrease.FailurePolicy.Retry,
            onFailedRetryInterval=1,
        )
    )


@dataclass(frozen=True)
class Outcome:
    """What is in the database, and how it came there."""

    rows: list[tuple[Any, ...]]
    changes: int
    transactions: int

    def show(self) -> None:
        """Print it."""
        print(f"{self.changes} changes were written in {self.transactions} transactions:")
        for row in self.rows:
            print("  ", *row)


def main(r: Any, url: str, changes: Sequence[tuple[str, dict[str, Any] | None]] = CHANGES, batch: int = 100) -> Outcome:
    """Make ``changes`` in Redis, `None` deletes a key; then look into the database."""
    query(r, url, "CREATE TABLE accounts (id VARCHAR(50) PRIMARY KEY, owner VARCHAR(100), cents BIGINT)")
    REMEMBER.on(r)
    write_to(url, batch, milliseconds=50).on(r)
    pipeline = r.pipeline(transaction=False)
    for key, account in changes:
        pipeline.delete(key) if account is None else pipeline.hset(key, mapping=account)
    pipeline.execute()
    common.wait_until(lambda: not any(r.xlen(name) for name in r.keys("changes:*")), "all changes are written")
    rows = query(r, url, "SELECT id, owner, cents FROM accounts ORDER BY id")
    outcome = Outcome(rows, len(changes), int(r.get("transactions")))
    query(r, url, "DROP TABLE accounts")
    common.clean_up(r)
    return outcome


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    add_option(parser)
    given = parser.parse_args()
    with database(given.database) as place:
        main(common.connect(given), place).show()
    sys.exit(0)
