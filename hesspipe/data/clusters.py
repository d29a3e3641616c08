"""Gaussian clusters, one per class."""

from __future__ import annotations

import torch

from hesspipe.data.dataset import Dataset
from hesspipe.forecasts import clusters_bytes
from hesspipe.hardware import require
from hesspipe.seeding import derive_seed


def gaussian_clusters(
    *,
    num_clusters: int,
    cluster_std: float,
    num_features: int,
    center_low: float,
    center_high: float,
    num_train: int,
    num_test: int,
    seed: int,
) -> Dataset:
    """Draw isotropic Gaussian clusters, one per class, and standardize the inputs globally.

    Each feature is standardized over training and held-out points together, as the paper's
    authors do ("normalized the data globally"): both halves then see one transformation.

    Parameters
    ----------
    num_clusters : int
        k, the number of classes.
    cluster_std : float
        Standard deviation of each coordinate around its cluster's center. The paper calls it
        the multiplier of the covariance, and its code passes it on as `cluster_std`.
    num_features : int
        Dimension d of the inputs.
    center_low, center_high : float
        Cluster centers are uniform in [center_low, center_high]^d.
    num_train, num_test : int
        N and N_test; the first N of N + N_test shuffled points are trained on.
    seed : int

    Returns
    -------
    Dataset
        Over all points, each feature has mean 0 and standard deviation 1.

    Raises
    ------
    TooLargeError
        Before drawing, if the points do not fit into memory.

    References
    ----------
    Sagun, Evci, Guney, Dauphin, Bottou (2017), Section 3.1 and Appendix A.
    """
    num_points = num_train + num_test
    require(
        clusters_bytes(num_points, num_features),
        f"drawing {num_points:,} points of {num_features:,} features",
        "use fewer points or features",
    )
    from sklearn.datasets import make_blobs
    from sklearn.preprocessing import scale

    inputs, targets = make_blobs(
        n_samples=num_points,
        n_features=num_features,
        centers=num_clusters,
        cluster_std=cluster_std,
        center_box=(center_low, center_high),
        random_state=derive_seed(seed, "gaussian clusters", num_bits=32),
    )
    inputs = torch.from_numpy(scale(inputs))
    targets = torch.from_numpy(targets).to(torch.int64)
    return Dataset(
        inputs[:num_train],
        targets[:num_train],
        inputs[num_train:],
        targets[num_train:],
        num_clusters,
    )
