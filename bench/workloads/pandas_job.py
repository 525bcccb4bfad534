"""A table job in pandas: build, join, group, sort, pivot; large arrays and many small ones."""

import numpy as np
import pandas as pd
from common import SCALE, nothing, report

# exactness.py replaces it: moments at which there is something alive to compare
pause = nothing


def main():
    rng = np.random.default_rng(1)
    total = 0
    for _ in range(round(24 * SCALE)):
        n = 40_000
        orders = pd.DataFrame(
            {
                "customer": rng.integers(0, 2000, n),
                "product": rng.integers(0, 300, n),
                "price": rng.random(n),
                "day": rng.integers(0, 365, n),
            }
        )
        customers = pd.DataFrame(
            {"customer": np.arange(2000), "country": [f"country {i % 40}" for i in range(2000)]}
        )
        joined = orders.merge(customers, on="customer")
        by_country = joined.groupby(["country", "day"])["price"].agg(["sum", "count"])
        wide = joined.pivot_table(index="product", columns="country", values="price", aggfunc="sum")
        names = joined["country"].str.upper().value_counts()
        pause()
        total += int(by_country["count"].sum()) + wide.shape[0] + len(names)
    return total


if __name__ == "__main__":
    report(main)
