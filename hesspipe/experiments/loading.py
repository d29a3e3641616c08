"""From files to the network, loss and data of an experiment, and to its objective.

Every experiment loads here, so that a checkpoint means the same network in each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hesspipe.allocator import keep_freed_arrays
from hesspipe.data.dataset import Dataset, read_dataset
from hesspipe.errors import DamagedFileError
from hesspipe.hardware import pick_device, require
from hesspipe.networks.build import build_loss, build_uninitialized
from hesspipe.networks.checkpoints import Checkpoint, read_checkpoint
from hesspipe.objective.objective import Objective
from hesspipe.objective.reductions import LossFunction

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# Kinds of networks that are known to take little memory for all samples at once.
_SMALL_CONVOLUTIONS = ("convnet", "alexnet")


@dataclass(frozen=True)
class Solution:
    """A network at a checkpoint, with its loss and its data.

    Attributes
    ----------
    network : nn.Module
        In evaluation mode.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        The experiment's own, whatever is computed with it.
    data : Dataset
        In the network's dtype, on its device.
    checkpoint : Checkpoint
    """

    network: nn.Module
    loss_fn: LossFunction
    data: Dataset
    checkpoint: Checkpoint

    @property
    def recorded_data(self) -> Dataset:
        """The data of the history: the first training samples, and all held-out samples."""
        recorded = slice(self.checkpoint.provenance["training"].get("num_recorded"))
        return replace(
            self.data,
            train_inputs=self.data.train_inputs[recorded],
            train_targets=self.data.train_targets[recorded],
        )

    def read_others(self, paths: Sequence[str | Path]) -> list[Checkpoint]:
        """Read other checkpoints of the same network, with the same buffers.

        Raises
        ------
        ValueError
            If a buffer differs, such as a running mean: a point between two networks would then
            have the buffers of one of them.
        """
        others = [read_checkpoint(path, self.network) for path in paths]
        for path, other in zip(paths, others, strict=True):
            for name, buffer in other.buffers.items():
                if not torch.equal(buffer, self.checkpoint.buffers[name]):
                    raise ValueError(
                        f"checkpoints on one line or plane must have equal buffers, got another "
                        f"{name} in {path}; parameters alone are interpolated"
                    )
        return others


def load_data(path_to_dataset: str | Path, dtype: torch.dtype) -> Dataset:
    """Read a dataset onto the device that `hesspipe.hardware.pick_device` picks.

    Raises
    ------
    DamagedFileError
        If the file is not a dataset.
    TooLargeError
        If it is larger than the memory that is free.
    """
    if Path(path_to_dataset).is_file():
        require(
            Path(path_to_dataset).stat().st_size,
            f"reading {path_to_dataset}",
            "use fewer samples, or a machine with more memory",
        )
    return read_dataset(path_to_dataset).to(dtype, pick_device())


def load_solution(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    *,
    dtype: torch.dtype | None = None,
) -> Solution:
    """Load a network of a configured experiment, with its loss and data.

    If it is one of hesspipe's networks with convolutions, this process keeps the memory of freed
    arrays from now on; see `hesspipe.allocator.keep_freed_arrays`.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    dtype : torch.dtype, optional
        Of network and data; by default that of the training.

    Raises
    ------
    DamagedFileError
        If a file is truncated, or the checkpoint is not of this model or lacks its provenance.
    """
    checkpoint = Checkpoint.read(path_to_checkpoint)
    if "seed" not in checkpoint.provenance:
        raise DamagedFileError(path_to_checkpoint, "its provenance lacks the seed")
    dtype = dtype or checkpoint.theta.dtype
    data = load_data(path_to_dataset, dtype)
    network = build_uninitialized(
        data.train_inputs, data.num_classes, checkpoint.provenance["seed"], model, dtype
    )
    try:
        checkpoint.into(network)
    except ValueError as error:
        raise DamagedFileError(path_to_checkpoint, error) from None
    loss_fn = build_loss(model, dtype, data.train_inputs.device)
    if model["kind"] in _SMALL_CONVOLUTIONS:
        keep_freed_arrays()
    return Solution(network.eval(), loss_fn, data, checkpoint)


def load_objective(
    path_to_dataset: str | Path,
    path_to_checkpoint: str | Path,
    model: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.float64,
    batch_size: int | None = None,
    parameters: Sequence[str] | None = None,
    process_group: ProcessGroup | None = None,
) -> tuple[Objective, dict[str, Any]]:
    """Load the loss on the training set at a checkpoint, with the network in evaluation mode.

    Parameters
    ----------
    path_to_dataset, path_to_checkpoint : path
    model : mapping
        The experiment's `model` in config.yaml.
    dtype : torch.dtype
        Of all computations, whatever the dtype of training.
    batch_size : int or None
        Samples in a batch; None is all of them in one. It limits memory and affects no number.
    parameters : sequence of str, optional
        Patterns of the names of parameters to vary; see `hesspipe.objective.objective.Objective`.
    process_group : ProcessGroup, optional
        Each of its processes takes a part of the training set.

    Returns
    -------
    objective : Objective
    provenance : dict
        The training's, the step, dtype, device and number of parameters.

    Raises
    ------
    DamagedFileError
        If a file is truncated, or the checkpoint is not of this model or lacks its provenance.
    ValueError
        If a pattern matches no parameter.
    """
    solution = load_solution(path_to_dataset, path_to_checkpoint, model, dtype=dtype)
    inputs, targets = solution.data.train_inputs, solution.data.train_targets
    if process_group is not None:
        rank, size = process_group.rank(), process_group.size()
        inputs, targets = (part.tensor_split(size)[rank] for part in (inputs, targets))
    size = batch_size or max(1, len(inputs))
    batches = list(zip(inputs.split(size), targets.split(size), strict=True))
    objective = Objective(
        solution.network,
        solution.loss_fn,
        batches,
        dtype=dtype,
        parameters=parameters,
        process_group=process_group,
    )
    return objective, {
        **solution.checkpoint.provenance,
        "step": solution.checkpoint.step,
        "dtype": str(dtype).removeprefix("torch."),
        "device": inputs.device.type,
        "num_parameters": objective.num_parameters,
    }
