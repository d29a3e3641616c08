"""A state dict of one's own as the only checkpoint of an experiment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from hesspipe.data.dataset import read_dataset
from hesspipe.files import write_tensors
from hesspipe.networks.build import build_network, load_state


def import_state(
    path_to_dataset: str | Path,
    path_to_state: str | Path,
    path_to_checkpoint: str | Path,
    *,
    experiment: str,
    seed: int,
    model: dict[str, Any],
    training: dict[str, Any],
) -> None:
    """Check that a state dict is that of the experiment's network, and store it as its step 0.

    In float64, in which all that comes after is exact whatever the state was saved in.

    Parameters
    ----------
    path_to_dataset, path_to_state, path_to_checkpoint : path
        The state is a safetensors file of the network's `state_dict()`.
    experiment : str
    seed : int
        Names the run; nothing is drawn.
    model, training : dict
        Their entries in config.yaml.

    Raises
    ------
    ValueError
        If the state is not that of this network.
    """
    data = read_dataset(path_to_dataset).to(torch.float64, torch.device("cpu"))
    network = build_network(data.train_inputs, data.num_classes, seed, model, torch.float64)
    load_state(network, path_to_state)
    provenance = {
        "experiment": experiment,
        "seed": seed,
        "dataset": data.settings,
        "num_classes": data.num_classes,
        "num_samples": len(data.train_inputs),
        "model": model,
        "training": training,
    }
    about = {"step": "0", "provenance": json.dumps(provenance, sort_keys=True)}
    write_tensors(network.state_dict(), path_to_checkpoint, about)
