"""Two clinics, each with every second patient of scikit-learn's diabetes data, as it was measured."""

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import parquet
from sklearn.datasets import load_diabetes

from coordinator.local import LocalCluster

EVALUATORS = ("clinic_a", "clinic_b")


def register(cluster: LocalCluster) -> Iterator[str]:
    """Write each clinic's patients as Parquet: ten measurements, and how far the disease has come a year later."""
    data = load_diabetes(scaled=False)
    for first, clinic in enumerate(EVALUATORS):
        columns = {name: data.data[first::2, i] for i, name in enumerate(data.feature_names)}
        columns["progression"] = data.target[first::2]
        file = cluster.folder / clinic / "diabetes.parquet"
        parquet.write_table(pa.table(columns), file)
        schema = cluster.datasets(clinic).add("diabetes", file, ["analyst", *EVALUATORS], label="progression")
        yield f"{clinic} registered diabetes: {schema.rows} rows, {len(schema.columns)} columns; only this leaves it"
