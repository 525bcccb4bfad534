"""examples/etl_demo.py: the job that `make demo` records is deterministic and adds up."""

import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.any_version

CHECKOUT = Path(__file__).resolve().parents[2]
SCRIPT = CHECKOUT / "examples" / "etl_demo.py"
RECORDS = 3000


def run(*args: object) -> str:
    command = [sys.executable, str(SCRIPT), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        total.update(file.name.encode() + b"\0" + file.read_bytes())
    return total.hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("etl demo")
    run("generate", "--records", RECORDS, folder / "in")
    return folder


def test_the_input_is_always_the_same(folder: Path) -> None:
    run("generate", "--records", RECORDS, folder / "again")
    assert digest(folder / "in") == digest(folder / "again")
    run("generate", "--records", RECORDS + 1, folder / "again")
    assert digest(folder / "in") != digest(folder / "again")


def test_groups_add_up_to_the_orders(folder: Path) -> None:
    printed = run("process", folder / "in", folder / "out")
    counts = {key: int(value) for key, value in (p.split() for p in printed.strip().split(", "))}
    assert counts["orders"] == RECORDS
    assert counts["joined"] + counts["unknown_customers"] == RECORDS
    assert 0 < counts["unknown_customers"] < RECORDS // 10

    with (folder / "in" / "customers.csv").open(newline="") as file:
        known = {row["customer_id"] for row in csv.DictReader(file)}
    with (folder / "in" / "orders.csv").open(newline="") as file:
        orders = [row for row in csv.DictReader(file) if row["customer_id"] in known]
    total = sum(int(row["quantity"]) * int(row["price_cents"]) for row in orders)
    assert counts["total_cents"] == total

    for name in ("region", "month", "region_month", "label"):
        with (folder / "out" / f"by_{name}.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert sum(int(row["orders"]) for row in rows) == len(orders)
        assert sum(int(row["total_cents"]) for row in rows) == total
    lines = (folder / "out" / "joined.jsonl").read_text().splitlines()
    assert [json.loads(line)["order"] for line in lines] == [int(o["order_id"]) for o in orders]
