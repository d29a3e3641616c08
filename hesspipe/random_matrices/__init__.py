"""Limits of the spectra of large random matrices.

alpha = P / N throughout, the paper's convention, for P parameters (rows) and N samples (columns).

- `hesspipe.random_matrices.marchenko_pastur`: the bulk of a sample covariance with independent
  entries, `MarchenkoPastur`
- `hesspipe.random_matrices.generalized`: the bulk and the outliers for unequal population
  eigenvalues and sample weights (Figure 10), `GeneralizedLaw`, `outlier_positions`
- `hesspipe.random_matrices.spiked`: outliers of spiked models (Theorem 1: `separates`,
  `sample_position`, `eigenvector_overlap`, `position_deviation`, `edge_scaling`; Theorem 2:
  `spectrum_picture`)
- `hesspipe.random_matrices.tracy_widom`: the fluctuations of an edge, `tracy_widom_cdf`
- `hesspipe.random_matrices.sampling`: draws from spiked models, `sample_largest`,
  `sample_spectra`
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
