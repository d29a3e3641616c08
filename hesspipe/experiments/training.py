"""One training of a configured experiment, or a saved state in its place, as checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hesspipe.data.dataset import Dataset, read_dataset
from hesspipe.experiments.loading import load_data
from hesspipe.files import digest
from hesspipe.forecasts import network_size, training_bytes
from hesspipe.hardware import require
from hesspipe.networks.build import (
    build_loss,
    build_network,
    build_uninitialized,
    refuse_random_evaluations,
    refuse_random_training,
)
from hesspipe.networks.checkpoints import Checkpoint, read_checkpoint
from hesspipe.networks.saved_states import load_state
from hesspipe.networks.training import Schedule, state_folder, train
from hesspipe.networks.training_state import TrainingState
from hesspipe.objective.reductions import LossFunction
from hesspipe.seeding import derive_seed
from hesspipe.tables.store import Result
from hesspipe.unfinished import lock, remove_leftovers_of, remove_state


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training and its unfinished state, which a killed job leaves and the next one resumes.

    Attributes
    ----------
    path_to_dataset : str or Path
    experiment : str
        Its name in config.yaml.
    seed : int
        Draws the initial point and orders the batches.
    model, training : mapping
        Their entries in config.yaml.
    user_code : sequence of path
        Files of the user's functions, and of any other code that decides the numbers; a training
        is only resumed if they are the same.
    path_to_start : str or Path, optional
        Checkpoint of another experiment on the same network, at which this one starts.
    """

    path_to_dataset: str | Path
    experiment: str
    seed: int
    model: Mapping[str, Any]
    training: Mapping[str, Any]
    user_code: Sequence[str | Path] = ()
    path_to_start: str | Path | None = None

    @cached_property
    def data(self) -> Dataset:
        """The data, in the training's dtype, on its device."""
        return load_data(self.path_to_dataset, self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """The training's dtype."""
        dtype: torch.dtype = getattr(torch, self.training["dtype"])
        return dtype

    @property
    def provenance(self) -> dict[str, Any]:
        """Everything that affects the numbers."""
        provenance = _provenance(
            self.experiment, self.seed, self.data, self.model, self.training, self.training["dtype"]
        )
        if self.path_to_start is None:
            return provenance
        start = Checkpoint.read(self.path_to_start)
        origin = {key: start.origin[key] for key in ("experiment", "step") if key in start.origin}
        return provenance | {"starts_from": origin}

    @property
    def path_to_state(self) -> Path:
        """Folder of the unfinished state; one for each specification."""
        start = {} if self.path_to_start is None else {"start_digest": digest(self.path_to_start)}
        return state_folder(
            {
                **self.provenance,
                **start,
                "dataset_digest": digest(self.path_to_dataset),
                "user_code": {str(path): digest(path) for path in self.user_code},
                "num_threads": torch.get_num_threads(),
                "torch": torch.__version__,
                **_kind_of_device(self.data.train_inputs.device),
            }
        )

    def train(self, *, progress: bool = True) -> Result:
        """Train from the starting point, or from where an earlier job was stopped.

        The order of the batches of a continuation has its own random stream.

        Returns
        -------
        Result
            Of kind "history"; see `hesspipe.networks.training.train`.
        """
        names = {field.name for field in fields(Schedule)}
        settings = {key: self.training[key] for key in self.training if key in names}
        is_continuation = self.path_to_start is not None
        with self.lock():
            remove_leftovers_of(self._folder)
            history = train(
                self._start(),
                self.data,
                Schedule(**{"batch_size": None, **settings}),
                seed=derive_seed(self.seed, "continuation") if is_continuation else self.seed,
                path_to_state=self._folder,
                loss_fn=self._loss(),
                provenance=self.provenance,
                progress=progress,
            )
        return Result("history", history, self.provenance)

    def collect_checkpoints(self, paths_to_checkpoints: Sequence[str | Path]) -> None:
        """Copy the finished training's checkpoints to their places and remove its state.

        Parameters
        ----------
        paths_to_checkpoints : sequence of path
            Each is named step<step>.safetensors.

        Raises
        ------
        DamagedFileError
            If one of them is not as it was written; the next run trains from the one before it.
        """
        with self.lock():
            TrainingState(self._folder).copy_checkpoints(paths_to_checkpoints)
            remove_state(self._folder)

    def lock(self) -> AbstractContextManager[None]:
        """Hold the unfinished state for this process alone, from its training to its removal."""
        return lock(self._folder)

    @cached_property
    def _folder(self) -> Path:
        """The state of this run, also where a file is edited while it trains."""
        return self.path_to_state

    def _require_memory(self) -> None:
        """Refuse a network of the paper's kinds that cannot be trained here, before it is built."""
        inputs, num_classes = self.data.train_inputs, self.data.num_classes
        size = network_size(self.model, inputs.shape[1:], num_classes or 1)
        if size is not None:
            batch_size = self.training.get("batch_size") or len(inputs)
            require(
                training_bytes(size, batch_size, inputs.element_size()),
                f"training P = {size.num_parameters:,} parameters in batches of {batch_size:,}",
                "use a smaller network or smaller batches",
                device=inputs.device,
            )

    def _start(self) -> nn.Module:
        """The network at its starting point."""
        build = build_network if self.path_to_start is None else build_uninitialized
        inputs, num_classes = self.data.train_inputs, self.data.num_classes
        self._require_memory()
        network = build(inputs, num_classes, self.seed, self.model, self.dtype)
        refuse_random_training(network)
        if self.path_to_start is not None:
            read_checkpoint(self.path_to_start, network).into(network)
        if self.model["kind"] == "user":
            first = slice(self.training.get("batch_size"))
            batch = inputs[first], self.data.train_targets[first]
            refuse_random_evaluations(network, self._loss(), *batch, self.dtype)
        return network

    def _loss(self) -> LossFunction:
        return build_loss(self.model, self.dtype, self.data.train_inputs.device)


def import_state(
    *,
    path_to_dataset: str | Path,
    path_to_state: str | Path,
    experiment: str,
    seed: int,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
) -> Checkpoint:
    """Check that a saved state dict is that of the experiment's network: its step 0.

    In float64, so that everything computed from it is exact, whatever the dtype of the file.

    Parameters
    ----------
    path_to_dataset, path_to_state : path
        The state is a file of the network's `state_dict()`; see
        `hesspipe.networks.saved_states.read_state`.
    experiment : str
    seed : int
        Names the run; nothing is drawn.
    model, training : mapping
        Their entries in config.yaml.

    Raises
    ------
    ValueError
        If the state is not that of this network.
    """
    data = read_dataset(path_to_dataset).to(torch.float64, torch.device("cpu"))
    network = build_uninitialized(data.train_inputs, data.num_classes, seed, model, torch.float64)
    load_state(network, path_to_state)
    provenance = _provenance(experiment, seed, data, model, training, "float64")
    return Checkpoint.of(network, 0, provenance)


def _kind_of_device(device: torch.device) -> dict[str, str]:
    """Name the kind of a GPU: another one rounds in another way."""
    if device.type == "cpu":
        return {}
    return {"device_name": torch.get_device_module(device).get_device_name(device)}


def _provenance(
    experiment: str,
    seed: int,
    data: Dataset,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
    dtype: str,
) -> dict[str, Any]:
    """Everything that affects the numbers of a run, as its checkpoints and tables store it."""
    return {
        "experiment": experiment,
        "seed": seed,
        "dataset": data.settings,
        "num_classes": data.num_classes,
        "num_samples": len(data.train_inputs),
        "model": dict(model),
        "training": dict(training),
        "dtype": dtype,
        "device": data.train_inputs.device.type,
    }
