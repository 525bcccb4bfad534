"""ETL: CSV text -> dict records -> typed objects -> group-by -> sort -> CSV text.

Pure Python small-object workload: nearly every allocation is a pymalloc
allocation of < 512 bytes made from shallow Python stacks.
"""

import csv
import io
import random
from collections import defaultdict

from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing

REGIONS = ["north", "south", "east", "west", "centre", "overseas"]


class Order:
    __slots__ = ("customer", "oid", "price", "qty", "region", "sku", "tags")

    def __init__(self, oid, customer, region, sku, qty, price, tags):
        self.oid = oid
        self.customer = customer
        self.region = region
        self.sku = sku
        self.qty = qty
        self.price = price
        self.tags = tags


def make_csv(n, seed):
    rnd = random.Random(seed)
    buf = io.StringIO()
    w = csv.writer(buf)
    w.writerow(["oid", "customer", "region", "sku", "qty", "price", "tags"])
    for i in range(n):
        w.writerow(
            [
                i,
                f"cust-{rnd.randrange(5000):05d}",
                rnd.choice(REGIONS),
                f"SKU{rnd.randrange(900):04d}",
                rnd.randrange(1, 40),
                f"{rnd.random() * 500:.2f}",
                "|".join(str(rnd.randrange(1000, 9999)) for _ in range(3)),
            ]
        )
    return buf.getvalue()


def parse(text):
    for row in csv.DictReader(io.StringIO(text)):
        yield Order(
            int(row["oid"]),
            row["customer"].upper(),
            row["region"],
            row["sku"].lower(),
            int(row["qty"]) * 1000,
            float(row["price"]),
            [int(t) for t in row["tags"].split("|")],
        )


def aggregate(orders):
    groups = defaultdict(list)
    for o in orders:
        groups[o.region, o.sku].append(o)
    out = []
    for (region, sku), members in groups.items():
        total = sum(o.qty * o.price for o in members)
        customers = {o.customer for o in members}
        tags = sorted(t for o in members for t in o.tags)
        out.append(
            {
                "region": region,
                "sku": sku,
                "total": round(total, 2),
                "customers": len(customers),
                "median_tag": tags[len(tags) // 2],
            }
        )
    out.sort(key=lambda r: (-r["total"], r["region"], r["sku"]))
    return out


def dump(rows):
    buf = io.StringIO()
    w = csv.DictWriter(buf, ["region", "sku", "total", "customers", "median_tag"])
    w.writeheader()
    w.writerows(rows)
    return buf.getvalue()


def main():
    check = 0
    for batch in range(max(1, round(3 * SCALE))):
        text = make_csv(round(70_000 * min(1, 3 * SCALE)), batch)
        pause()
        orders = list(parse(text))
        pause()
        orders.sort(key=lambda o: (o.region, -o.price, o.oid))
        pause()
        rows = aggregate(orders)
        pause()
        out = dump(rows)
        pause()
        check = (check * 31 + len(out) + int(rows[0]["total"])) % 1_000_000_007
    return check


if __name__ == "__main__":
    report(main)
