"""The kinds of result tables: columns with types and units, and the provenance they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_CURVATURE = "nats per squared unit of the parameters"
_OF_LOSS = "of the loss, per squared unit of the parameters"


def _field(name: str, dtype: pa.DataType, unit: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, dtype, nullable=nullable, metadata={"unit": unit})


SCHEMAS: dict[str, pa.Schema] = {
    "history": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
            _field("train_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            _field("test_loss", pa.float64(), "nats, mean over samples", nullable=True),
            _field("test_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            _field("gradient_norm", pa.float64(), "nats per unit of the parameters"),
        ]
    ),
    "line": pa.schema(
        [
            _field("coefficient", pa.float64(), "0 = first point, 1 = second point"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
            _field("train_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            _field("test_loss", pa.float64(), "nats, mean over samples", nullable=True),
            _field("test_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
        ]
    ),
    "plane": pa.schema(
        [
            _field("first", pa.float64(), "units of the parameters"),
            _field("second", pa.float64(), "units of the parameters"),
            _field("train_loss", pa.float64(), "nats, mean over samples"),
        ]
    ),
    "plane_points": pa.schema(
        [
            _field("point", pa.string(), "large batch, small batch, other seed or path"),
            _field("step", pa.int64(), "updates since the start of Part I"),
            _field("first", pa.float64(), "units of the parameters"),
            _field("second", pa.float64(), "units of the parameters"),
            _field("distance", pa.float64(), "from the plane, units of the parameters"),
        ]
    ),
    "spectrum": pa.schema(
        [
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), _CURVATURE),
        ]
    ),
    "eigenpairs": pa.schema(
        [
            _field("end", pa.string(), "smallest or largest"),
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), _OF_LOSS),
            _field("residual_norm", pa.float64(), "|A v - eigenvalue v| of the unit vector v"),
        ]
    ),
    "monitor": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("end", pa.string(), "smallest or largest"),
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), _OF_LOSS, nullable=True),
            _field("residual_norm", pa.float64(), "|A v - eigenvalue v|", nullable=True),
            _field("is_converged", pa.bool_(), "whether its error is below the tolerance"),
            _field("loss", pa.float64(), "on the data of the monitor", nullable=True),
            _field("missed_probability", pa.float64(), "0 to 1", nullable=True),
            _field("step_size", pa.float64(), "the largest of the optimizer", nullable=True),
            _field("preconditioned_sharpness", pa.float64(), "largest of D H D", nullable=True),
            _field("preconditioned_residual", pa.float64(), "norm, as before", nullable=True),
            _field("stability_limit", pa.float64(), "of preconditioned_sharpness", nullable=True),
            _field("critical_sharpness", pa.float64(), _OF_LOSS, nullable=True),
            _field("trace", pa.float64(), _OF_LOSS, nullable=True),
            _field("trace_error", pa.float64(), "standard error of the trace", nullable=True),
            _field("num_products", pa.int64(), "of the record"),
        ]
    ),
    "norms": pa.schema(
        [
            _field("quantity", pa.string(), "trace, or squares: those of the eigenvalues, added"),
            _field("value", pa.float64(), _OF_LOSS + "; squares in units of unit^2"),
            _field("standard_error", pa.float64(), "as the value"),
        ]
    ),
    "layer_spectra": pa.schema(
        [
            _field("group", pa.string(), "name of the layer"),
            _field("result", pa.string(), "spectrum, density or eigenpairs"),
            _field("rank", pa.int64(), "as in that kind of table", nullable=True),
            _field("end", pa.string(), "as in eigenpairs", nullable=True),
            _field("eigenvalue", pa.float64(), _OF_LOSS, nullable=True),
            _field("residual_norm", pa.float64(), "as in eigenpairs", nullable=True),
            _field("probe", pa.int64(), "as in a density", nullable=True),
            _field("node", pa.float64(), "as in a density", nullable=True),
            _field("weight", pa.float64(), "as in a density", nullable=True),
            _field("coupling", pa.float64(), "as in a density", nullable=True),
        ]
    ),
    "density": pa.schema(
        [
            _field("probe", pa.int64(), "0 = first"),
            _field("node", pa.float64(), "of the loss, per squared unit of the parameters"),
            _field("weight", pa.float64(), "share of the spectrum; of a probe they add up to 1"),
            _field("coupling", pa.float64(), "as the node; its size is a residual norm"),
        ]
    ),
    "outliers": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("matrix", pa.string(), "hessian, ggn or residual"),
            _field("rule", pa.string(), "gap, ratio or elbow"),
            _field("num_outliers", pa.int64(), "eigenvalues above the cutoff"),
            _field("cutoff", pa.float64(), _CURVATURE),
        ]
    ),
    "decomposition": pa.schema(
        [
            _field("step", pa.int64(), "updates"),
            _field("rule", pa.string(), "gap, ratio or elbow"),
            _field("operator_ratio", pa.float64(), "operator norm of R over that of H"),
            _field("frobenius_ratio", pa.float64(), "Frobenius norm of R over that of H"),
            _field("largest_difference", pa.float64(), "of H and G, over the largest of H"),
            _field("smallest_hessian", pa.float64(), _CURVATURE),
            _field("smallest_residual", pa.float64(), _CURVATURE),
            _field("num_negative_hessian", pa.int64(), "eigenvalues"),
            _field("num_negative_residual", pa.int64(), "eigenvalues"),
            _field("negative_share", pa.float64(), "sum of H over sum of R", nullable=True),
            _field("largest", pa.float64(), _CURVATURE),
            _field("num_outliers", pa.int64(), "eigenvalues of H above the cutoff"),
            _field("num_outliers_ggn", pa.int64(), "eigenvalues of G above the cutoff"),
        ]
    ),
    "curves": pa.schema(
        [
            _field("experiment", pa.string(), "name in config.yaml"),
            _field("seed", pa.int64(), "seed of the training"),
            _field("step", pa.int64(), "updates"),
            _field("matrix", pa.string(), "hessian, ggn or residual"),
            _field("group", pa.string(), "group of parameters"),
            _field("num_parameters", pa.int64(), "size of the group"),
            _field("value", pa.float64(), "of the loss, per squared unit of the parameters"),
            _field("density", pa.float64(), "inverse unit of the value"),
            _field("standard_error", pa.float64(), "inverse unit of the value", nullable=True),
            _field("low", pa.float64(), "inverse unit of the value"),
            _field("high", pa.float64(), "inverse unit of the value"),
            _field("one_eigenvalue", pa.float64(), "inverse unit of the value"),
        ]
    ),
    "directions": pa.schema(
        [
            _field("order", pa.int64(), "1 = largest"),
            _field("eigenvalue", pa.float64(), _CURVATURE),
            _field("own", pa.float64(), "squared cosine, 0 to 1"),
            _field("every", pa.float64(), "squared cosine, 0 to 1"),
            _field("shared", pa.float64(), "squared cosine, 0 to 1"),
            _field("flat", pa.float64(), "squared cosine, 0 to 1"),
        ]
    ),
    "samples": pa.schema(
        [
            _field("curvature", pa.float64(), "nats per squared unit of the outputs"),
            _field("along_data", pa.float64(), "units of the inputs"),
            _field("along_weights", pa.float64(), "units of the inputs"),
        ]
    ),
    "law": pa.schema(
        [
            _field("position", pa.float64(), _CURVATURE),
            _field("density", pa.float64(), "inverse unit of the position"),
            _field("cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
            _field("plain_density", pa.float64(), "inverse unit of the position"),
            _field("plain_cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
        ]
    ),
    "law_histogram": pa.schema(
        [
            _field("lower", pa.float64(), "root of the eigenvalue, start of the bin"),
            _field("upper", pa.float64(), "root of the eigenvalue, end of the bin"),
            _field("measured", pa.float64(), "inverse unit of the root, mean over the bin"),
            _field("density", pa.float64(), "inverse unit of the root, mean over the bin"),
            _field("plain_density", pa.float64(), "inverse unit of the root, mean over the bin"),
        ]
    ),
    "law_outliers": pa.schema(
        [
            _field("side", pa.string(), "left or right of the bulk"),
            _field("predicted", pa.float64(), _CURVATURE),
            _field("measured", pa.float64(), _CURVATURE),
        ]
    ),
    "spikes": pa.schema(
        [
            _field("num_parameters", pa.int64(), "P"),
            _field("num_samples", pa.int64(), "N"),
            _field("strength", pa.float64(), "population eigenvalue, the others are 1"),
            _field("repeat", pa.int64(), "0 = first"),
            _field("eigenvalue", pa.float64(), "the largest of the sample covariance"),
            _field("overlap", pa.float64(), "squared cosine with the population's direction"),
        ]
    ),
    "spiked_spectra": pa.schema(
        [
            _field("repeat", pa.int64(), "0 = first"),
            _field("rank", pa.int64(), "0 = smallest"),
            _field("eigenvalue", pa.float64(), "of the sample covariance"),
        ]
    ),
    "positions": pa.schema(
        [
            _field("num_parameters", pa.int64(), "P"),
            _field("num_samples", pa.int64(), "N"),
            _field("strength", pa.float64(), "population eigenvalue, the others are 1"),
            _field("separates", pa.bool_(), "whether the strength is above the transition"),
            _field("predicted", pa.float64(), "of the sample covariance"),
            _field("mean", pa.float64(), "of the sample covariance"),
            _field("standard_error", pa.float64(), "of the mean"),
            _field("finite_size_error", pa.float64(), "of the sample covariance"),
            _field("deviation", pa.float64(), "of the sample covariance"),
            _field("deviation_predicted", pa.float64(), "of the sample covariance"),
            _field("overlap", pa.float64(), "squared cosine with the population's direction"),
            _field("overlap_predicted", pa.float64(), "squared cosine"),
            _field("law", pa.string(), "gaussian or tracy_widom"),
            _field("distance", pa.float64(), "Kolmogorov-Smirnov distance from the law"),
            _field("p_value", pa.float64(), "of the Kolmogorov-Smirnov test"),
            _field("other_distance", pa.float64(), "distance from the other law"),
        ]
    ),
    "fluctuations": pa.schema(
        [
            _field("strength", pa.float64(), "population eigenvalue, the others are 1"),
            _field("law", pa.string(), "gaussian or tracy_widom"),
            _field("standardized", pa.float64(), "standard deviations of the law's scaling"),
            _field("cdf", pa.float64(), "of the law, 0 to 1"),
        ]
    ),
    "parts": pa.schema(
        [
            _field("name", pa.string(), "name in config.yaml"),
            _field("num_parameters", pa.int64(), "P"),
            _field("num_samples", pa.int64(), "N"),
            _field("part", pa.string(), "zeros, an edge of the bulk, or an outlier"),
            _field("predicted", pa.float64(), "of the sample covariance; of zeros, their number"),
            _field("mean", pa.float64(), "as predicted"),
            _field("standard_error", pa.float64(), "of the mean"),
            _field("spread", pa.float64(), "standard deviation over the repeats"),
        ]
    ),
}

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
    return SCHEMAS[kind].append(_field("eigenvector", vector, "unit", nullable=is_nullable))
