"""The kinds of result tables: columns with types and units, and the provenance they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from hesspipe.tables.columns import column
from hesspipe.tables.network_schemas import NETWORK_SCHEMAS
from hesspipe.tables.random_matrix_schemas import RANDOM_MATRIX_SCHEMAS

SCHEMAS: dict[str, pa.Schema] = NETWORK_SCHEMAS | RANDOM_MATRIX_SCHEMAS

_NETWORK = ("experiment", "seed", "step", "matrix", "num_parameters")

# What readers of each kind take from the provenance; a kind not named here needs nothing.
# A spectrum may be that of a network or of a linear model, which has a name in their place.
REQUIRED_PROVENANCE: dict[str, tuple[str, ...]] = {
    "history": ("experiment", "seed"),
    "line": ("experiment", "seed", "first", "second"),
    "spectrum": ("matrix", "num_parameters", "num_negative", "num_zero"),
    "eigenpairs": _NETWORK,
    "monitor": ("experiment", "seed", "matrix", "num_parameters"),
    "norms": (*_NETWORK, "unit", "num_products"),
    "layer_spectra": ("matrix", "names", "sizes", "groups", "failures"),
    "distribution": ("confidence",),
    "number": ("quantity",),
    "barrier": ("height", "place", "rise"),
    "density": (*_NETWORK, "group", "squared_lengths", "eps", "asymmetry"),
    "outliers": ("experiment", "seed", "num_classes"),
    "decomposition": ("experiment", "seed", "num_classes"),
    "directions": (*_NETWORK, "num_classes", "ranks"),
    "law": ("name", "entry", "num_parameters", "num_samples"),
    "law_outliers": ("name", "upper_edge"),
    "law_histogram": ("name", "entry", "num_parameters", "num_samples", "num_zero"),
    "spikes": ("name",),
    "spiked_spectra": ("name", "strengths", "num_parameters", "num_samples"),
    "positions": ("name",),
    "fluctuations": ("name",),
    "parts": ("name",),
}

# Eigenpairs may have their eigenvectors, in the precision that their provenance names.
_WITH_VECTORS = ("eigenpairs", "layer_spectra")
_PRECISIONS = {"float32": pa.float32(), "float64": pa.float64()}


def schema_of(kind: str, provenance: Mapping[str, Any]) -> pa.Schema:
    """Return the columns of a table.

    Parameters
    ----------
    kind : str
    provenance : mapping

    Raises
    ------
    ValueError
        If the kind is unknown, or the precision of eigenvectors.
    """
    if kind not in SCHEMAS:
        raise ValueError(f"kind must be one of {sorted(SCHEMAS)}, got {kind!r}")
    dtype = provenance.get("eigenvector_dtype") if kind in _WITH_VECTORS else None
    if dtype is None:
        return SCHEMAS[kind]
    if dtype not in _PRECISIONS:
        raise ValueError(f"eigenvectors must be float32 or float64, got {dtype}")
    vector = pa.list_(pa.field("element", _PRECISIONS[dtype], nullable=False))
    is_nullable = kind != "eigenpairs"
    return SCHEMAS[kind].append(column("eigenvector", vector, "unit", nullable=is_nullable))
