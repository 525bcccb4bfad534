"""A data-processing job as people write them: orders are parsed, joined with customers, grouped,
and written.

    python etl_demo.py generate --records 250000 INPUT      makes the input, always the same
    python etl_demo.py process INPUT OUTPUT                 does the job

It works, and it needs more memory than it has to: it keeps every parsed row to the end, keeps a
copy of what it joined, sorts another copy for each report, and remembers every address that it has
normalised. `make demo` records it, and the report shows these places.
"""

import argparse
import csv
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

SEED = 20240229
FIRST_DAY = date(2024, 1, 1)
REGIONS = ("north", "south", "east", "west", "centre", "islands")
PRODUCTS = tuple(f"{kind}-{size}" for kind in ("bolt", "nut", "washer", "rivet") for size in "SML")
STREETS = ("Mill Lane", "Station Road", "Harbour Street", "Church Hill", "Market Square")

address_cache: dict[str, str] = {}


# --- the input -----------------------------------------------------------------------------------


def customer_rows(rng: random.Random, count: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        street = f"{rng.randrange(1, 200)}  {rng.choice(STREETS)} "
        yield number, f"Customer {number:06d}", rng.choice(REGIONS), street


def order_rows(rng: random.Random, count: int, customers: int) -> Iterator[tuple[Any, ...]]:
    for number in range(count):
        day = FIRST_DAY + timedelta(days=rng.randrange(366))
        # One order in fifty has no customer, as in life.
        customer = rng.randrange(customers) if rng.randrange(50) else customers + number
        quantity = rng.randrange(1, 40)
        price_cents = rng.randrange(5, 5000)
        yield number, day.isoformat(), customer, rng.choice(PRODUCTS), quantity, price_cents


def write_csv(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def generate(folder: Path, records: int) -> None:
    """Writes orders.csv and customers.csv; does nothing if they are there in this size."""
    done = folder / "generated"
    if done.exists() and done.read_text(encoding="utf-8") == f"{SEED} {records}":
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(SEED)
    customers = max(1, records // 15)
    write_csv(
        folder / "customers.csv",
        ("customer_id", "name", "region", "address"),
        customer_rows(rng, customers),
    )
    write_csv(
        folder / "orders.csv",
        ("order_id", "day", "customer_id", "product", "quantity", "price_cents"),
        order_rows(rng, records, customers),
    )
    done.write_text(f"{SEED} {records}", encoding="utf-8")


# --- the job -------------------------------------------------------------------------------------


@dataclass
class Customer:
    customer_id: int
    name: str
    region: str
    address: str


@dataclass
class Order:
    order_id: int
    day: date
    customer_id: int
    product: str
    quantity: int
    price_cents: int
    raw: dict[str, str] = field(repr=False)  # kept "for debugging": the most expensive field

    @property
    def total_cents(self) -> int:
        return self.quantity * self.price_cents


@dataclass
class Group:
    orders: int = 0
    quantity: int = 0
    total_cents: int = 0
    order_ids: list[int] = field(default_factory=list)

    def add(self, order: Order) -> None:
        self.orders += 1
        self.quantity += order.quantity
        self.total_cents += order.total_cents
        self.order_ids.append(order.order_id)


def normalise_address(text: str) -> str:
    """Remembers every answer, for ever."""
    if text not in address_cache:
        address_cache[text] = " ".join(text.split()).upper()
    return address_cache[text]


def load_customers(path: Path) -> dict[int, Customer]:
    with path.open(newline="", encoding="utf-8") as file:
        return {
            int(row["customer_id"]): Customer(
                int(row["customer_id"]), row["name"], row["region"], row["address"]
            )
            for row in csv.DictReader(file)
        }


def parse_order(row: dict[str, str]) -> Order:
    return Order(
        order_id=int(row["order_id"]),
        day=date.fromisoformat(row["day"]),
        customer_id=int(row["customer_id"]),
        product=row["product"],
        quantity=int(row["quantity"]),
        price_cents=int(row["price_cents"]),
        raw=row,
    )


def load_orders(path: Path) -> list[Order]:
    with path.open(newline="", encoding="utf-8") as file:
        return [parse_order(row) for row in csv.DictReader(file)]


def join(orders: list[Order], customers: dict[int, Customer]) -> tuple[list[dict[str, Any]], int]:
    """One dictionary per order whose customer is known, and the number of the others."""
    joined = []
    unknown = 0
    for order in orders:
        customer = customers.get(order.customer_id)
        if customer is None:
            unknown += 1
            continue
        joined.append(
            {
                "order": order,
                "region": customer.region,
                "label": f"{customer.name}, {normalise_address(customer.address)}",
                "month": order.day.strftime("%Y-%m"),
            }
        )
    return joined, unknown


def group_by(joined: list[dict[str, Any]], *keys: str) -> dict[tuple[str, ...], Group]:
    groups: dict[tuple[str, ...], Group] = defaultdict(Group)
    for row in joined:
        groups[tuple(row[key] for key in keys)].add(row["order"])
    return groups


def best_orders(joined: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Sorts a copy of everything to take a few."""
    return sorted(joined, key=lambda row: (-row["order"].total_cents, row["order"].order_id))[
        :count
    ]


def write_groups(path: Path, keys: tuple[str, ...], groups: dict[tuple[str, ...], Group]) -> None:
    write_csv(
        path,
        (*keys, "orders", "quantity", "total_cents"),
        ((*k, g.orders, g.quantity, g.total_cents) for k, g in sorted(groups.items())),
    )


def write_joined(path: Path, joined: list[dict[str, Any]]) -> None:
    """Builds the whole text before it writes the first byte."""
    lines = [
        json.dumps(
            {
                "order": row["order"].order_id,
                "region": row["region"],
                "month": row["month"],
                "label": row["label"],
                "total_cents": row["order"].total_cents,
            }
        )
        for row in joined
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def process(source: Path, target: Path) -> dict[str, int]:
    """Does the whole job and returns the counts that it prints."""
    target.mkdir(parents=True, exist_ok=True)
    customers = load_customers(source / "customers.csv")
    orders = load_orders(source / "orders.csv")
    joined, unknown = join(orders, customers)
    for keys in (("region",), ("month",), ("region", "month"), ("label",)):
        write_groups(target / f"by_{'_'.join(keys)}.csv", keys, group_by(joined, *keys))
    best = best_orders(joined, 100)
    write_joined(target / "best.jsonl", best)
    write_joined(target / "joined.jsonl", joined)
    return {
        "orders": len(orders),
        "customers": len(customers),
        "joined": len(joined),
        "unknown_customers": unknown,
        "total_cents": sum(row["order"].total_cents for row in joined),
    }


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description="A data-processing job to be recorded.")
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("generate", help="make the input")
    command.add_argument("--records", type=int, default=250_000)
    command.add_argument("folder", type=Path)
    command = commands.add_parser("process", help="do the job")
    command.add_argument("source", type=Path)
    command.add_argument("target", type=Path)
    args = parser.parse_args(argv)
    if args.command == "generate":
        generate(args.folder, args.records)
    else:
        print(", ".join(f"{k} {v}" for k, v in process(args.source, args.target).items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
