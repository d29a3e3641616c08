"""Columns of the result tables of networks: trainings, loss landscapes and spectra."""

from __future__ import annotations

import pyarrow as pa

from hesspipe.tables.columns import CURVATURE, column

_OF_LOSS = "of the loss, per squared unit of the parameters"

NETWORK_SCHEMAS: dict[str, pa.Schema] = {
    "history": pa.schema(
        [
            column("step", pa.int64(), "updates"),
            column("train_loss", pa.float64(), "nats, mean over samples"),
            column("train_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            column("test_loss", pa.float64(), "nats, mean over samples", nullable=True),
            column("test_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            column("gradient_norm", pa.float64(), "nats per unit of the parameters"),
        ]
    ),
    "line": pa.schema(
        [
            column("coefficient", pa.float64(), "0 = first point, 1 = second point"),
            column("train_loss", pa.float64(), "nats, mean over samples"),
            column("train_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
            column("test_loss", pa.float64(), "nats, mean over samples", nullable=True),
            column("test_accuracy", pa.float64(), "share of samples, 0 to 1", nullable=True),
        ]
    ),
    "plane": pa.schema(
        [
            column("first", pa.float64(), "units of the parameters"),
            column("second", pa.float64(), "units of the parameters"),
            column("train_loss", pa.float64(), "nats, mean over samples"),
        ]
    ),
    "plane_points": pa.schema(
        [
            column("point", pa.string(), "large batch, small batch, other seed or path"),
            column("step", pa.int64(), "updates since the start of Part I"),
            column("first", pa.float64(), "units of the parameters"),
            column("second", pa.float64(), "units of the parameters"),
            column("distance", pa.float64(), "from the plane, units of the parameters"),
        ]
    ),
    "spectrum": pa.schema(
        [
            column("rank", pa.int64(), "0 = smallest"),
            column("eigenvalue", pa.float64(), CURVATURE),
        ]
    ),
    "eigenpairs": pa.schema(
        [
            column("end", pa.string(), "smallest or largest"),
            column("rank", pa.int64(), "0 = smallest"),
            column("eigenvalue", pa.float64(), _OF_LOSS),
            column("residual_norm", pa.float64(), "|A v - eigenvalue v| of the unit vector v"),
        ]
    ),
    "monitor": pa.schema(
        [
            column("step", pa.int64(), "updates"),
            column("end", pa.string(), "smallest or largest"),
            column("rank", pa.int64(), "0 = smallest"),
            column("eigenvalue", pa.float64(), _OF_LOSS, nullable=True),
            column("residual_norm", pa.float64(), "|A v - eigenvalue v|", nullable=True),
            column("error_estimate", pa.float64(), "of the eigenvalue", nullable=True),
            column("error_bound", pa.float64(), "how far it may lie beyond", nullable=True),
            column("is_verified", pa.bool_(), "whether there is a bound"),
            column("is_converged", pa.bool_(), "whether the bound is below the tolerance"),
            column("status", pa.string(), "certified, estimated or open", nullable=True),
            column("loss", pa.float64(), "on the data of the monitor", nullable=True),
            column("missed_probability", pa.float64(), "of a wrong bound", nullable=True),
            column("step_size", pa.float64(), "the largest of the optimizer", nullable=True),
            column("preconditioned_sharpness", pa.float64(), "largest of D H D", nullable=True),
            column("preconditioned_residual", pa.float64(), "norm, as before", nullable=True),
            column("preconditioned_bound", pa.float64(), "of the error", nullable=True),
            column("stability_limit", pa.float64(), "of preconditioned_sharpness", nullable=True),
            column("critical_sharpness", pa.float64(), _OF_LOSS, nullable=True),
            column("trace", pa.float64(), _OF_LOSS, nullable=True),
            column("trace_error", pa.float64(), "standard error of the trace", nullable=True),
            column("num_products", pa.int64(), "of the record"),
            column("time_share", pa.float64(), "records over training, so far", nullable=True),
        ]
    ),
    "norms": pa.schema(
        [
            column("quantity", pa.string(), "trace, or squares: those of the eigenvalues, added"),
            column("value", pa.float64(), _OF_LOSS + "; squares in units of unit^2"),
            column("standard_error", pa.float64(), "as the value"),
        ]
    ),
    "layer_spectra": pa.schema(
        [
            column("group", pa.string(), "name of the layer"),
            column("result", pa.string(), "spectrum, density or eigenpairs"),
            column("rank", pa.int64(), "as in that kind of table", nullable=True),
            column("end", pa.string(), "as in eigenpairs", nullable=True),
            column("eigenvalue", pa.float64(), _OF_LOSS, nullable=True),
            column("residual_norm", pa.float64(), "as in eigenpairs", nullable=True),
            column("probe", pa.int64(), "as in a density", nullable=True),
            column("node", pa.float64(), "as in a density", nullable=True),
            column("weight", pa.float64(), "as in a density", nullable=True),
            column("coupling", pa.float64(), "as in a density", nullable=True),
        ]
    ),
    "density": pa.schema(
        [
            column("probe", pa.int64(), "0 = first"),
            column("node", pa.float64(), "of the loss, per squared unit of the parameters"),
            column("weight", pa.float64(), "share of the spectrum; of a probe they add up to 1"),
            column("coupling", pa.float64(), "as the node; its size is a residual norm"),
        ]
    ),
    "outliers": pa.schema(
        [
            column("step", pa.int64(), "updates"),
            column("matrix", pa.string(), "hessian, ggn or residual"),
            column("rule", pa.string(), "gap, ratio or elbow"),
            column("num_outliers", pa.int64(), "eigenvalues above the cutoff"),
            column("cutoff", pa.float64(), CURVATURE),
        ]
    ),
    "distribution": pa.schema(
        [
            column("point", pa.float64(), "of the loss, per squared unit of the parameters"),
            column("low", pa.float64(), "share of the eigenvalues, 0 to 1"),
            column("high", pa.float64(), "share of the eigenvalues, 0 to 1"),
            column("estimate", pa.float64(), "share of the eigenvalues, 0 to 1"),
        ]
    ),
    "number": pa.schema(
        [
            column("value", pa.float64(), "of the quantity that the provenance names"),
            column("low", pa.float64(), "lower end of its interval", nullable=True),
            column("high", pa.float64(), "upper end", nullable=True),
            column("standard_error", pa.float64(), "as the value", nullable=True),
        ]
    ),
    "barrier": pa.schema(
        [
            column("coefficient", pa.float64(), "0 = first point, 1 = second point"),
            column("loss", pa.float64(), "unit of the loss"),
        ]
    ),
    "decomposition": pa.schema(
        [
            column("step", pa.int64(), "updates"),
            column("rule", pa.string(), "gap, ratio or elbow"),
            column("operator_ratio", pa.float64(), "operator norm of R over that of H"),
            column("frobenius_ratio", pa.float64(), "Frobenius norm of R over that of H"),
            column("largest_difference", pa.float64(), "of H and G, over the largest of H"),
            column("smallest_hessian", pa.float64(), CURVATURE),
            column("smallest_residual", pa.float64(), CURVATURE),
            column("num_negative_hessian", pa.int64(), "eigenvalues"),
            column("num_negative_residual", pa.int64(), "eigenvalues"),
            column("negative_share", pa.float64(), "sum of H over sum of R", nullable=True),
            column("largest", pa.float64(), CURVATURE),
            column("num_outliers", pa.int64(), "eigenvalues of H above the cutoff"),
            column("num_outliers_ggn", pa.int64(), "eigenvalues of G above the cutoff"),
        ]
    ),
    "curves": pa.schema(
        [
            column("experiment", pa.string(), "name in config.yaml"),
            column("seed", pa.int64(), "seed of the training"),
            column("step", pa.int64(), "updates"),
            column("matrix", pa.string(), "hessian, ggn or residual"),
            column("group", pa.string(), "group of parameters"),
            column("num_parameters", pa.int64(), "size of the group"),
            column("value", pa.float64(), "of the loss, per squared unit of the parameters"),
            column("density", pa.float64(), "inverse unit of the value"),
            column("standard_error", pa.float64(), "inverse unit of the value", nullable=True),
            column("low", pa.float64(), "inverse unit of the value"),
            column("high", pa.float64(), "inverse unit of the value"),
            column("one_eigenvalue", pa.float64(), "inverse unit of the value"),
        ]
    ),
    "directions": pa.schema(
        [
            column("order", pa.int64(), "1 = largest"),
            column("eigenvalue", pa.float64(), CURVATURE),
            column("own", pa.float64(), "squared cosine, 0 to 1"),
            column("every", pa.float64(), "squared cosine, 0 to 1"),
            column("shared", pa.float64(), "squared cosine, 0 to 1"),
            column("flat", pa.float64(), "squared cosine, 0 to 1"),
        ]
    ),
}
