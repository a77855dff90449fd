"""When should I visit Seattle? Ask 1,461 days of weather.

The days are a real data set that comes with the package ``vega_datasets`` (``pip install --no-deps vega_datasets``).
They are loaded as hashes, one per day, and the question is answered beside the data by filter, aggregate and sort:
in which months are most days both dry and warm?
"""

from __future__ import annotations

import calendar
import csv
import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import common
import redgrease


@dataclass(frozen=True)
class Month:
    """One line of the answer."""

    name: str
    days: int
    pleasant: int

    @property
    def share(self) -> float:
        """Share of days that are pleasant."""
        return self.pleasant / self.days


def seattle_weather() -> list[dict[str, str]]:
    """The rows of the data set, as they are in its file."""
    package = importlib.util.find_spec("vega_datasets")
    if package is None or package.origin is None:
        sys.exit("this example needs the data of vega_datasets: pip install --no-deps vega_datasets")
    with (Path(package.origin).parent / "_data" / "seattle-weather.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def load(r: Any, rows: Iterable[dict[str, str]]) -> int:
    """Store each row as the hash ``weather:DATE``; how many there are."""
    pipeline = r.pipeline(transaction=False)
    for row in rows:
        pipeline.hset("weather:" + row["date"].replace("/", "-"), mapping=row)
    return len(pipeline.execute())


def pleasant_months(warm: float) -> redgrease.ClosedGearFunction[tuple[float, str, int, int]]:
    """A gear function: the months, sorted from the worst to the best share of days that are dry and ``warm``."""

    def is_pleasant(day: dict[str, str]) -> bool:
        return float(day["precipitation"]) == 0 and float(day["temp_max"]) >= warm

    return (
        redgrease.KeysReader("weather:*")
        .values(type="hash")
        .aggregateby(
            lambda day: day["date"][5:7],
            (0, 0),
            lambda month, sums, day: (sums[0] + 1, sums[1] + is_pleasant(day)),
            lambda month, sums, part: (sums[0] + part[0], sums[1] + part[1]),
        )
        .map(lambda month: (month["value"][1] / month["value"][0], month["key"], *month["value"]))
        .sort()
        .run()
    )


def hottest_dry_day() -> redgrease.ClosedGearFunction[Any]:
    """A gear function: the hottest of all days without rain."""
    return (
        redgrease.KeysReader("weather:*")
        .values(type="hash")
        .filter(lambda day: float(day["precipitation"]) == 0)
        .map(lambda day: (float(day["temp_max"]), day["date"]))
        .aggregate((-273.15, ""), max, max)
        .run()
    )


@dataclass(frozen=True)
class Answer:
    """What the data says."""

    rows: int
    months: list[Month]
    hottest: float
    hottest_date: str

    def show(self) -> None:
        """Print it as a table."""
        print(f"{self.rows} days were asked.\n")
        print(f"{'month':<10} {'days':>5} {'dry and warm':>13} {'share':>6}")
        for month in self.months:
            print(f"{month.name:<10} {month.days:>5} {month.pleasant:>13} {month.share:>6.0%}")
        print(f"\nGo in {self.months[0].name}. The hottest dry day was {self.hottest_date}, with {self.hottest} °C.")


def main(r: Any, rows: list[dict[str, str]] | None = None, warm: float = 20.0) -> Answer:
    """Load ``rows`` (default: the weather of Seattle) and ask them; best months first."""
    count = load(r, seattle_weather() if rows is None else rows)
    months = [
        Month(calendar.month_name[int(number)], days, pleasant)
        for _, number, days, pleasant in reversed(r.gears.pyexecute(pleasant_months(warm)).records)
    ]
    [(hottest, date)] = r.gears.pyexecute(hottest_dry_day()).records
    common.clean_up(r)
    return Answer(count, months, hottest, date)


if __name__ == "__main__":
    parser = common.arguments(__doc__)
    parser.add_argument("--warm", type=float, default=20.0, help="degrees Celsius from which a day is warm")
    given = parser.parse_args()
    main(common.connect(given), warm=given.warm).show()
