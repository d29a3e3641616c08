"""A column of a result table: its name, its type and its unit."""

from __future__ import annotations

import pyarrow as pa

# Of an eigenvalue, where the loss is the cross-entropy.
CURVATURE = "nats per squared unit of the parameters"


def column(name: str, dtype: pa.DataType, unit: str, *, nullable: bool = False) -> pa.Field:
    """Describe a column; the unit is in its metadata."""
    return pa.field(name, dtype, nullable=nullable, metadata={"unit": unit})
