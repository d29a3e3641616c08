"""What random matrix theory says of spectra: one place to import it from.

In all of it alpha = P / N, the paper's convention: P parameters (rows), N samples (columns).
"""

from hesspipe.random_matrices.generalized import GeneralizedLaw
from hesspipe.random_matrices.law_outliers import outlier_positions
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.random_matrices.spiked import (
    SpectrumPicture,
    edge_scaling,
    eigenvector_overlap,
    position_deviation,
    sample_position,
    separates,
    spectrum_picture,
)
from hesspipe.random_matrices.tracy_widom import tracy_widom_cdf

__all__ = [
    "GeneralizedLaw",
    "MarchenkoPastur",
    "SpectrumPicture",
    "edge_scaling",
    "eigenvector_overlap",
    "outlier_positions",
    "position_deviation",
    "sample_position",
    "separates",
    "spectrum_picture",
    "tracy_widom_cdf",
]
