"""The exact spectrum of one matrix at one checkpoint, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hesspipe.curvature.dense import MatrixName
from hesspipe.curvature.spectra import spectrum
from hesspipe.data.dataset import read_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.hardware import pick_device
from hesspipe.networks.build import build_loss, build_network
from hesspipe.networks.training import load_checkpoint
from hesspipe.objective.objective import Objective


def load_objective(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: dict[str, Any],
    *,
    dtype: torch.dtype = torch.float64,
    batch_size: int | None = None,
    **settings: Any,
) -> tuple[Objective, dict[str, Any]]:
    """Load the loss on the training set at a checkpoint.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : dict
        The model's entry in config.yaml.
    dtype : torch.dtype
        Everything is computed in it, whatever the network was trained in.
    batch_size : int or None
        Samples in a batch; None is all of them in one. It decides memory and no number.
    **settings
        Further arguments of `hesspipe.objective.objective.Objective`.

    Returns
    -------
    objective : Objective
    provenance : dict
        The training's, the step, dtype, device and number of parameters.

    Raises
    ------
    DamagedFileError
        If a file is damaged, or the checkpoint is not of this model.
    """
    data = read_dataset(path_to_dataset).to(dtype, pick_device())
    inputs, targets = data.train_inputs, data.train_targets
    # The numbers drawn here are overwritten by the checkpoint.
    network = build_network(inputs, data.num_classes, 0, model, dtype).eval()
    about = load_checkpoint(network, path_to_checkpoint)
    try:
        provenance, step = json.loads(about["provenance"]), int(about["step"])
    except (KeyError, ValueError) as error:
        raise DamagedFileError(path_to_checkpoint, f"no provenance: {error}") from None
    size = batch_size or len(inputs)
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    objective = Objective(network, build_loss(model), batches, dtype=dtype, **settings)
    return objective, provenance | {
        "step": step,
        "dtype": str(dtype).removeprefix("torch."),
        "device": inputs.device.type,
        "num_parameters": objective.num_parameters,
    }


def spectrum_table(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    matrix: MatrixName,
    model: dict[str, Any],
    *,
    zero_tolerance: float,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compute the spectrum of H, G or R of the loss on the training set.

    Everything is computed in float64, whatever the network was trained in.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    matrix : str
        "hessian", "ggn" or "residual".
    model : dict
        The model's entry in config.yaml.
    zero_tolerance : float
        See `hesspipe.curvature.spectra.spectrum`.

    Returns
    -------
    table : DataFrame
        rank (0 = smallest), eigenvalue (nats per squared unit of the parameters).
    provenance : dict
        The training's, the step, the matrix, how it was computed, and its inertia.
    """
    objective, provenance = load_objective(path_to_dataset, path_to_checkpoint, model)
    result = spectrum(objective, matrix, zero_tolerance=zero_tolerance, progress=True)
    table = pd.DataFrame(
        {"rank": range(len(result.eigenvalues)), "eigenvalue": result.eigenvalues.numpy()}
    )
    return table, provenance | {
        "matrix": matrix,
        "method": result.method,
        "num_negative": result.num_negative,
        "num_zero": result.num_zero,
        "num_positive": result.num_positive,
        "zero_tolerance": zero_tolerance,
        "tolerance": result.tolerance,
    }
