"""The exact spectrum of one matrix at one checkpoint, as a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from hesspipe.data import read_dataset
from hesspipe.dense import MatrixName
from hesspipe.files import DamagedFileError
from hesspipe.models import build_model
from hesspipe.objective import Objective
from hesspipe.seeding import generator
from hesspipe.spectra import spectrum
from hesspipe.training import load_checkpoint, pick_device


def spectrum_table(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    matrix: MatrixName,
    model: dict[str, Any],
    *,
    zero_tolerance: float,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Compute the spectrum of H, G or R of the mean cross-entropy on the training set.

    Everything is computed in float64, whatever the network was trained in.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    matrix : str
        "hessian", "ggn" or "residual".
    model : dict
        The model's entry in config.yaml.
    zero_tolerance : float
        See `hesspipe.spectra.spectrum`.

    Returns
    -------
    table : DataFrame
        rank (0 = smallest), eigenvalue (nats per squared unit of the parameters).
    provenance : dict
        The training's, the step, the matrix, how it was computed, and its inertia.
    """
    data = read_dataset(path_to_dataset).to(torch.float64, pick_device())
    # The numbers drawn here are overwritten by the checkpoint.
    network = build_model(
        data.train_inputs, data.num_classes, generator(0, "initial parameters"), **model
    )
    about = load_checkpoint(network, path_to_checkpoint)
    try:
        provenance, step = json.loads(about["provenance"]), int(about["step"])
    except (KeyError, ValueError) as error:
        raise DamagedFileError(path_to_checkpoint, f"no provenance: {error}") from None
    objective = Objective(network, nn.CrossEntropyLoss(), (data.train_inputs, data.train_targets))
    result = spectrum(objective, matrix, zero_tolerance=zero_tolerance, progress=True)
    table = pd.DataFrame(
        {"rank": range(len(result.eigenvalues)), "eigenvalue": result.eigenvalues.numpy()}
    )
    return table, provenance | {
        "step": step,
        "matrix": matrix,
        "method": result.method,
        "dtype": "float64",
        "device": data.train_inputs.device.type,
        "num_parameters": objective.num_parameters,
        "num_negative": result.num_negative,
        "num_zero": result.num_zero,
        "num_positive": result.num_positive,
        "zero_tolerance": zero_tolerance,
        "tolerance": result.tolerance,
    }
