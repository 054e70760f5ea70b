"""A bank that knows who repaid its loans, and a credit bureau that knows how its customers do elsewhere.

The table is made up, from a fixed seed.  The bank numbers its customers' rows as it likes and so does the bureau: only
`customer_id` says which row of one belongs to which of the other, and nobody but its owner ever sees it.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from pyarrow import csv

from coordinator.local import LocalCluster

EVALUATORS = ("bank", "bureau")
CUSTOMERS = 2000


def customers(rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the bank and what the bureau know of the same customers, in the same order."""
    income = rng.lognormal(3.6, 0.4, CUSTOMERS)  # thousands a year
    loan = income * rng.uniform(0.1, 1.2, CUSTOMERS)
    bank = {
        "income": income.round(1),
        "loan": loan.round(1),
        "months": rng.choice([12, 24, 36, 48, 60], CUSTOMERS),
        "employed_years": rng.exponential(6, CUSTOMERS).round(1),
    }
    bureau = {
        "utilisation": rng.beta(2, 3, CUSTOMERS).round(3),
        "open_accounts": rng.poisson(4, CUSTOMERS),
        "late_payments": rng.poisson(0.7, CUSTOMERS),
        "inquiries": rng.poisson(1.2, CUSTOMERS),
        "history_years": rng.gamma(3, 4, CUSTOMERS).round(1),
    }
    risk = 1.5 * loan / income - 0.08 * bank["employed_years"] + 3.0 * bureau["utilisation"]
    risk += 0.9 * bureau["late_payments"] + 0.35 * bureau["inquiries"] - 0.05 * bureau["history_years"]
    bank["defaulted"] = (risk + rng.logistic(0, 0.6, CUSTOMERS) > np.quantile(risk, 0.7)).astype(np.int64)
    return bank, bureau


def register(cluster: LocalCluster) -> Iterator[str]:
    """Write each owner's file with its rows in an order of its own, and register it with its key."""
    rng = np.random.default_rng(11)
    ids = np.array([f"C-{number}" for number in rng.choice(10**6, CUSTOMERS, replace=False)])
    for owner, name, columns in zip(EVALUATORS, ("loans", "scores"), customers(rng), strict=True):
        order = rng.permutation(CUSTOMERS)
        file = cluster.folder / owner / f"{name}.csv"
        csv.write_csv(pa.table({"customer_id": ids[order], **{k: v[order] for k, v in columns.items()}}), file)
        label = "defaulted" if owner == "bank" else None
        schema = cluster.datasets(owner).add(name, file, ["analyst", *EVALUATORS], key="customer_id", label=label)
        yield f"{owner} registered {name}: {schema.rows} rows, {len(schema.columns)} columns, by customer_id"
