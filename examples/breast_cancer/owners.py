"""Two clinics, each with every second patient of the Wisconsin breast cancer data."""

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import csv
from sklearn.datasets import load_breast_cancer

from coordinator.local import LocalCluster

EVALUATORS = ("clinic_a", "clinic_b")


def register(cluster: LocalCluster) -> Iterator[str]:
    """Write each clinic's file and register it, which states who may learn from it."""
    data = load_breast_cancer()
    names = [str(name).replace(" ", "_") for name in data.feature_names]
    for first, clinic in enumerate(EVALUATORS):
        columns = {name: data.data[first::2, i] for i, name in enumerate(names)}
        columns["malignant"] = 1 - data.target[first::2]  # scikit-learn calls benign 1
        file = cluster.folder / clinic / "wdbc.csv"
        csv.write_csv(pa.table(columns), file)
        schema = cluster.datasets(clinic).add("wdbc", file, ["analyst", *EVALUATORS], label="malignant")
        yield f"{clinic} registered wdbc: {schema.rows} rows, {len(schema.columns)} columns; only this leaves it"
