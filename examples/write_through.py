"""Write-through in batches: a client that writes an account gets its reply when the SQL database has the change.

The function runs after each HSET of an account, and the client waits for it (``commands=["hset"]``). It is a
coroutine: while one batch is being written, the changes of other clients come together in the next one, so that many
clients share one transaction.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import common
import redgrease
from sql_store import add_option, database, engine, execute, query, requirements

ACCOUNTS = tuple((f"account:{number}", {"owner": f"Owner {number}", "cents": 100 * number}) for number in range(24))


def write_to(url: str) -> redgrease.ClosedGearFunction[Any]:
    """A gear function that writes changes to the database at ``url`` while their clients wait."""
    # The functions below are sent to the server with one copy of these lists. (A number would be copied for each.)
    waiting: list[Any] = []
    writers: list[Any] = []
    transactions: list[int] = []

    def write(records: list[dict[str, Any]]) -> None:
        latest = {record["key"]: record["value"] for record in records}
        rows = [{"id": key, "owner": v["owner"], "cents": int(v["cents"])} for key, v in latest.items()]
        with engine(url).begin() as connection:
            execute(connection, "DELETE FROM accounts WHERE id = :id", [{"id": key} for key in latest])
            execute(connection, "INSERT INTO accounts (id, owner, cents) VALUES (:id, :owner, :cents)", rows)

    async def write_batches() -> None:
        import asyncio

        while waiting:
            batch, waiting[:] = list(waiting), []
            transactions.append(len(batch))
            error = None
            try:
                await asyncio.to_thread(write, [record for record, _ in batch])
            except Exception as failure:
                error = failure
            for _, done in batch:
                if not done.done():
                    done.set_result(error)
        writers.clear()

    async def store(record: dict[str, Any]) -> None:
        import asyncio

        from redisgears import overrideReply

        done = asyncio.get_running_loop().create_future()
        waiting.append((record, done))
        if not writers:
            writers.append(asyncio.ensure_future(write_batches()))
        error = await done
        if error is None:
            redgrease.cmd.set("transactions", len(transactions))
        else:
            overrideReply(f"-ERR the account was not saved: {error}")

    return (
        redgrease.KeysReader(desc="accounts, into the database")
        .foreach(store, requirements=requirements(url))
        .register("account:*", eventTypes=["hset"], commands=["hset"], mode="async_local")
    )


@dataclass(frozen=True)
class Outcome:
    """What is in the database."""

    rows: list[tuple[Any, ...]]
    replies: list[Any]
    transactions: int

    def show(self) -> None:
        """Print it."""
        print(f"{len(self.replies)} clients wrote an account each, in {self.transactions} transactions:")
        for row in self.rows:
            print("  ", *row)


def main(r: Any, url: str, accounts: Sequence[tuple[str, dict[str, Any]]] = ACCOUNTS) -> Outcome:
    """Write ``accounts``, each with a client of its own, all at the same time; then look into the database."""
    query(r, url, "CREATE TABLE accounts (id VARCHAR(50) PRIMARY KEY, owner VARCHAR(100), cents BIGINT)")
    write_to(url).on(r)
    replies: list[Any] = []

    def client(key: str, account: dict[str, Any]) -> None:
        replies.append(r.hset(key, mapping=account))

    threads = [threading.Thread(target=client, args=each) for each in accounts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    rows = query(r, url, "SELECT id, owner, cents FROM accounts ORDER BY id")
    outcome = Outcome(rows, replies, int(r.get("transactions")))
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
