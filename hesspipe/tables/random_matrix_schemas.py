"""Columns of the result tables of random matrices: linear models and spiked models."""

from __future__ import annotations

import pyarrow as pa

from hesspipe.tables.columns import CURVATURE, column

RANDOM_MATRIX_SCHEMAS: dict[str, pa.Schema] = {
    "samples": pa.schema(
        [
            column("curvature", pa.float64(), "nats per squared unit of the outputs"),
            column("along_data", pa.float64(), "units of the inputs"),
            column("along_weights", pa.float64(), "units of the inputs"),
        ]
    ),
    "law": pa.schema(
        [
            column("position", pa.float64(), CURVATURE),
            column("density", pa.float64(), "inverse unit of the position"),
            column("cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
            column("plain_density", pa.float64(), "inverse unit of the position"),
            column("plain_cdf", pa.float64(), "share of the eigenvalues, 0 to 1"),
        ]
    ),
    "law_histogram": pa.schema(
        [
            column("lower", pa.float64(), "root of the eigenvalue, start of the bin"),
            column("upper", pa.float64(), "root of the eigenvalue, end of the bin"),
            column("measured", pa.float64(), "inverse unit of the root, mean over the bin"),
            column("density", pa.float64(), "inverse unit of the root, mean over the bin"),
            column("plain_density", pa.float64(), "inverse unit of the root, mean over the bin"),
        ]
    ),
    "law_outliers": pa.schema(
        [
            column("side", pa.string(), "left or right of the bulk"),
            column("predicted", pa.float64(), CURVATURE),
            column("measured", pa.float64(), CURVATURE),
        ]
    ),
    "spikes": pa.schema(
        [
            column("num_parameters", pa.int64(), "P"),
            column("num_samples", pa.int64(), "N"),
            column("strength", pa.float64(), "population eigenvalue, the others are 1"),
            column("repeat", pa.int64(), "0 = first"),
            column("eigenvalue", pa.float64(), "the largest of the sample covariance"),
            column("overlap", pa.float64(), "squared cosine with the population's direction"),
        ]
    ),
    "spiked_spectra": pa.schema(
        [
            column("repeat", pa.int64(), "0 = first"),
            column("rank", pa.int64(), "0 = smallest"),
            column("eigenvalue", pa.float64(), "of the sample covariance"),
        ]
    ),
    "positions": pa.schema(
        [
            column("num_parameters", pa.int64(), "P"),
            column("num_samples", pa.int64(), "N"),
            column("strength", pa.float64(), "population eigenvalue, the others are 1"),
            column("separates", pa.bool_(), "whether the strength is above the transition"),
            column("predicted", pa.float64(), "of the sample covariance"),
            column("mean", pa.float64(), "of the sample covariance"),
            column("standard_error", pa.float64(), "of the mean"),
            column("finite_size_error", pa.float64(), "of the sample covariance"),
            column("deviation", pa.float64(), "of the sample covariance"),
            column("deviation_predicted", pa.float64(), "of the sample covariance"),
            column("overlap", pa.float64(), "squared cosine with the population's direction"),
            column("overlap_predicted", pa.float64(), "squared cosine"),
            column("law", pa.string(), "gaussian or tracy_widom"),
            column("distance", pa.float64(), "Kolmogorov-Smirnov distance from the law"),
            column("p_value", pa.float64(), "of the Kolmogorov-Smirnov test"),
            column("other_distance", pa.float64(), "distance from the other law"),
        ]
    ),
    "fluctuations": pa.schema(
        [
            column("strength", pa.float64(), "population eigenvalue, the others are 1"),
            column("law", pa.string(), "gaussian or tracy_widom"),
            column("standardized", pa.float64(), "standard deviations of the law's scaling"),
            column("cdf", pa.float64(), "of the law, 0 to 1"),
        ]
    ),
    "parts": pa.schema(
        [
            column("name", pa.string(), "name in config.yaml"),
            column("num_parameters", pa.int64(), "P"),
            column("num_samples", pa.int64(), "N"),
            column("part", pa.string(), "zeros, an edge of the bulk, or an outlier"),
            column("predicted", pa.float64(), "of the sample covariance; of zeros, their number"),
            column("mean", pa.float64(), "as predicted"),
            column("standard_error", pa.float64(), "of the mean"),
            column("spread", pa.float64(), "standard deviation over the repeats"),
        ]
    ),
}
