"""A small data set and a short schedule of training that several test modules share."""

from __future__ import annotations

from typing import Any

from problems import labels, normal

from hesspipe.data.dataset import Dataset
from hesspipe.networks.training import Schedule


def small_data(num_samples: int = 20) -> Dataset:
    """Random inputs and labels of three classes, with 10 held out."""
    inputs, targets = normal(num_samples + 10, 4), labels(num_samples + 10, 3)
    return Dataset(
        inputs[:num_samples], targets[:num_samples], inputs[num_samples:], targets[num_samples:], 3
    )


def schedule(**changes: Any) -> Schedule:
    """Twelve steps of gradient descent, with other settings where they are given."""
    settings: dict[str, Any] = {
        "step_size": 0.1,
        "num_steps": 12,
        "batch_size": None,
        "record_every": 3,
        "checkpoint_every": 6,
    }
    return Schedule(**settings | changes)
