"""An analytical query: who are the best customers, and what do they order?

Orders are hashes that are spread over all shards. ``repartition`` moves the orders of each customer to one shard,
where a local step sums them; so no shard ever has to hold all customers. Only the best ones are sent to this program.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from typing import Any

import common
import redgrease

Row = tuple[int, str, int, list[str]]


def some_orders(number: int = 1000, seed: int = 1) -> list[dict[str, Any]]:
    """Orders that were made up."""
    dice = random.Random(seed)
    names = [f"customer {n:02}" for n in range(40)]
    products = ["tea", "cake", "water", "bread"]
    return [
        {"customer": dice.choice(names), "product": dice.choice(products), "cents": dice.randrange(100, 5000)}
        for _ in range(number)
    ]


def best_customers(minimum: int, length: int) -> redgrease.ClosedGearFunction[Row]:
    """A gear function: the ``length`` customers with the highest totals of at least ``minimum`` cents, best first."""

    def customer_of(order: dict[str, str]) -> str:
        return order["customer"]

    def add_order(customer: str, sums: Any, order: dict[str, str]) -> Any:
        cents, number, products = sums or (0, 0, set())
        return cents + int(order["cents"]), number + 1, products | {order["product"]}

    def row(group: dict[str, Any]) -> Row:
        cents, number, products = group["value"]
        return cents, group["key"], number, sorted(products)

    return (
        redgrease.KeysReader("order:*")
        .values(type="hash")
        .repartition(customer_of)
        .localgroupby(customer_of, add_order)
        .map(row)
        .filter(lambda found: found[0] >= minimum)
        .sort(reverse=False)
        .limit(length)
        .run()
    )


def main(r: Any, orders: Iterable[dict[str, Any]] | None = None, minimum: int = 0, length: int = 5) -> list[Row]:
    """Store ``orders`` and ask for the best customers."""
    pipeline = r.pipeline(transaction=False)
    for number, order in enumerate(some_orders() if orders is None else orders):
        pipeline.hset(f"order:{number}", mapping=order)
    pipeline.execute()
    found: list[Row] = best_customers(minimum, length).on(r).records
    common.clean_up(r)
    return found


if __name__ == "__main__":
    for cents, customer, number, products in main(common.connect(common.arguments(__doc__).parse_args())):
        print(f"{customer}: {cents / 100:.2f} in {number} orders of {', '.join(products)}")
    sys.exit(0)
