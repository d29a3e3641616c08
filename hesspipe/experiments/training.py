"""One training of a configured experiment: from a dataset's file to checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from hesspipe.data.dataset import Dataset, read_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.files import atomic_path, digest, read_tensors
from hesspipe.hardware import pick_device
from hesspipe.networks.build import build_loss, build_network, refuse_random_training
from hesspipe.networks.training import (
    Schedule,
    checkpoint_path,
    load_checkpoint,
    state_folder,
    train,
)
from hesspipe.seeding import derive_seed


@dataclass(frozen=True)
class TrainingRun:
    """A training and its unfinished state, which a killed job leaves and the next one finds.

    Attributes
    ----------
    path_to_dataset : str or Path
    experiment : str
        Its name in config.yaml.
    seed : int
        Draws the initial point and orders the batches.
    model, training : dict
        Their entries in config.yaml.
    own_code : sequence of path
        Files behind functions of one's own: an unfinished training of others is not gone on with.
    path_to_start : str or Path, optional
        Checkpoint of another experiment on the same network, whose point is this one's start.
    """

    path_to_dataset: str | Path
    experiment: str
    seed: int
    model: dict[str, Any]
    training: dict[str, Any]
    own_code: Sequence[str | Path] = ()
    path_to_start: str | Path | None = None

    @cached_property
    def device(self) -> torch.device:
        """Where the training runs; see `hesspipe.hardware.pick_device`."""
        return pick_device()

    @cached_property
    def dataset(self) -> Dataset:
        """The data, in the training's dtype."""
        dtype = getattr(torch, self.training["dtype"])
        return read_dataset(self.path_to_dataset).to(dtype, self.device)

    @property
    def provenance(self) -> dict[str, Any]:
        """What decided the numbers."""
        about = {
            "experiment": self.experiment,
            "seed": self.seed,
            "dataset": self.dataset.settings,
            "num_classes": self.dataset.num_classes,
            "num_samples": len(self.dataset.train_inputs),
            "model": self.model,
            "training": self.training,
            "dtype": self.training["dtype"],
            "device": self.device.type,
        }
        return about if self.path_to_start is None else about | {"starts_from": self._origin}

    @property
    def _origin(self) -> dict[str, Any]:
        """Which experiment and step the starting point is from."""
        if self.path_to_start is None:
            return {}
        _, about = read_tensors(self.path_to_start)
        try:
            return {
                "experiment": json.loads(about["provenance"])["experiment"],
                "step": int(about["step"]),
            }
        except (KeyError, ValueError) as error:
            raise DamagedFileError(self.path_to_start, f"no provenance: {error}") from None

    @property
    def path_to_state(self) -> Path:
        """Folder of the unfinished state; one for each set of things that decide the numbers."""
        start = {} if self.path_to_start is None else {"start_digest": digest(self.path_to_start)}
        return state_folder(
            {
                **self.provenance,
                **start,
                "dataset_digest": digest(self.path_to_dataset),
                "own_code": {str(path): digest(path) for path in self.own_code},
                "num_threads": torch.get_num_threads(),
                "torch": torch.__version__,
            }
        )

    def train(self, *, progress: bool = True) -> pd.DataFrame:
        """Train from the starting point, or from where an earlier job was stopped.

        The order of the batches of a continuation has a random stream of its own.

        Returns
        -------
        DataFrame
            The history; see `hesspipe.networks.training.train`.
        """
        data = self.dataset
        settings = {key: self.training[key] for key in self.training if key in _SCHEDULE}
        dtype = getattr(torch, self.training["dtype"])
        network = build_network(data.train_inputs, data.num_classes, self.seed, self.model, dtype)
        refuse_random_training(network)
        order_seed = self.seed
        if self.path_to_start is not None:
            load_checkpoint(network, self.path_to_start)
            order_seed = derive_seed(self.seed, "continuation")
        return train(
            network,
            data,
            Schedule(**{"batch_size": None, **settings}),
            seed=order_seed,
            path_to_state=self.path_to_state,
            loss_fn=build_loss(self.model),
            about={"provenance": json.dumps(self.provenance, sort_keys=True)},
            progress=progress,
        )

    def collect_checkpoints(self, paths_to_checkpoints: Sequence[str | Path]) -> None:
        """Copy the finished training's checkpoints to their places and remove its state.

        Parameters
        ----------
        paths_to_checkpoints : sequence of path
            Each is named step<step>.safetensors.
        """
        folder = self.path_to_state
        for path in paths_to_checkpoints:
            step = int(Path(path).stem.removeprefix("step"))
            with atomic_path(path) as temporary:
                shutil.copyfile(checkpoint_path(folder, step), temporary)
        shutil.rmtree(folder)


_SCHEDULE = {
    "step_size",
    "num_steps",
    "batch_size",
    "record_every",
    "checkpoint_every",
    "num_recorded",
}
