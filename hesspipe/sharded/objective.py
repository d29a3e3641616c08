"""L(theta) of a model of which each process holds a part."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, get_args

import torch
from torch import Tensor, nn

from hesspipe.allocator import return_freed_arrays
from hesspipe.objective.batches import Batch
from hesspipe.objective.distributed import require_same_settings, require_same_structure
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.loss_of_outputs import reason_without_ggn
from hesspipe.objective.objective import Objective
from hesspipe.objective.reductions import Denominator, LossFunction, ReducedLoss
from hesspipe.objective.streaming import StreamedBatches
from hesspipe.ranks.ranks import Ranks
from hesspipe.sharded.model import ShardedModel
from hesspipe.sharded.shares import DataOnRanks, require_meaning, weigh_together

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_WAY_OUT = (
    "use hesspipe.eigenpairs, hesspipe.density or hesspipe.estimate_norms, or an Objective of a "
    "model that is whole in one process"
)


class ShardedObjective(Objective):
    """The loss as a function of parameters that are divided among processes.

    For models of `torch.distributed.fsdp.fully_shard`, or any whose parameters are DTensors. The
    model is not copied and no process ever holds all of theta: each keeps its part of theta and of
    every vector, and gathers a parameter where the model reads it. Products are exact.

    Every process of the group builds it, and then calls the same functions in the same order::

        objective = hesspipe.ShardedObjective(model, loss_fn, data)
        found = hesspipe.eigenpairs(objective)
        objective.gather(found.eigenvectors)

    Vectors in results (`Eigenpairs.eigenvectors`) are the rows of this process, which `gather`
    completes. Numbers (eigenvalues, densities, traces) are complete in every process, and those of
    one process up to rounding.

    Parameters
    ----------
    model : nn.Module
        The caller's; neither its parameters nor its hooks are changed.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        As for `Objective`.
    data : (inputs, targets), an iterable of such batches, or a Dataset
        Of this process, which may have none if others do. Read once.
    data_on_ranks : {"parts", "same"}
        Whether each process has another part of the data, or all have the same. It is compared
        with the data.
    denominator : callable (outputs, targets) -> float, optional
        As for `Objective`; needed for parts, unless the loss is one of torch.
    dtype : torch.dtype
        float64 by default.
    weight_decay : float
    parameters : sequence of str, optional
        Names of the parameters to vary, as for `Objective`.
    process_group : ProcessGroup, optional
        By default all processes.

    Attributes
    ----------
    theta : Tensor, shape (length,)
        This process's part: of each parameter, row-major, a range of ceil(n / size) entries.
    num_parameters, num_data : int
        P and N, of all processes.
    space : ShardedSpace
        Of the vectors.

    Raises
    ------
    RankError
        In every process, if one fails or has other settings; also of the class of the failure.
    ValueError
        As for `Objective`, as far as it is checked here (docs/sharded.md).
    """

    ranks: Ranks
    # Of `from_batches`, which has no argument for it.
    _on_ranks: DataOnRanks = "parts"

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: Any,
        *,
        data_on_ranks: DataOnRanks = "parts",
        denominator: Denominator | None = None,
        dtype: torch.dtype = torch.float64,
        weight_decay: float = 0.0,
        parameters: Sequence[str] | None = None,
        process_group: ProcessGroup | None = None,
    ) -> None:
        self._on_ranks = data_on_ranks
        super().__init__(
            model,
            loss_fn,
            data,
            denominator=denominator,
            dtype=dtype,
            weight_decay=weight_decay,
            parameters=parameters,
            process_group=process_group,
        )

    @staticmethod
    def _ranks_of(process_group: ProcessGroup | None) -> Ranks:
        if process_group is not None:
            return Ranks(process_group)
        if torch.distributed.group.WORLD is None:
            raise ValueError(
                "processes must be connected before a ShardedObjective is built; call "
                "torch.distributed.init_process_group first, and start them by torchrun"
            )
        return Ranks(torch.distributed.group.WORLD)

    def _begin(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        weight_decay: float,
        parameters: Sequence[str] | None,
    ) -> FlatModel:
        if self._on_ranks not in get_args(DataOnRanks):
            raise ValueError(f"data_on_ranks must be 'parts' or 'same', got {self._on_ranks!r}")
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        self.ranks.agree(
            data_on_ranks=self._on_ranks,
            dtype=dtype,
            weight_decay=weight_decay,
            parameters=None if parameters is None else list(parameters),
        )
        return_freed_arrays()
        flat = ShardedModel(model, dtype, parameters, self.ranks)
        if weight_decay and not flat.is_varied.all():
            raise ValueError(
                "weight_decay must be 0 for a sharded model with padding_idx, got "
                f"{weight_decay}; set padding_idx to None: the outputs are the same"
            )
        self._adopt(flat)
        self.dtype, self.weight_decay, self.space = dtype, weight_decay, flat.space
        self.gathering = flat.gathering
        return flat

    def _require_same_model(self, flat: FlatModel, **functions: Any) -> None:
        require_same_settings(flat.names, flat.shapes, functions, self.ranks)
        require_same_structure(flat, self.ranks)

    def _become_part(self) -> None:
        """Do nothing: the processes are joined from the beginning."""

    def _finish(
        self,
        flat: FlatModel,
        loss: ReducedLoss,
        batches: Sequence[Batch],
        progress: bool | None = None,
    ) -> None:
        assert isinstance(flat, ShardedModel)
        if isinstance(batches, StreamedBatches):
            raise ValueError("stream must be False for a ShardedObjective, got True")
        self.ranks.agree(reduction="sum" if loss.is_sum else "mean")
        require_meaning(batches, self._on_ranks, self.ranks)
        shares = weigh_together(flat, loss, batches, self._on_ranks)
        self.batches, self.num_data, self.coupling = (
            shares.batches,
            shares.num_data,
            shares.coupling,
        )
        self._reduced = loss
        self.loss_fn = shares.layouts.loss_of_rows(loss.loss_fn)
        self._is_unlike_parts = False
        layouts, first = shares.layouts, self.batches[0]
        has_rows = layouts.reason_without_rows is None
        with explained(first, first.number, self.dtype):
            reason = reason_without_ggn(flat, loss.loss_fn, first, has_rows=has_rows)
        self._reason_without_rows = reason or layouts.reason_without_rows
        self._reason_without_outputs = reason or layouts.reason_without_outputs
        self._output_sizes = tuple(layouts.by_size)

    @property
    def num_parameters(self) -> int:
        """P, of all processes."""
        return self.space.dim

    def gather(self, vectors: Tensor) -> Tensor:
        """Give every process all entries of vectors: (P, ...) from the (length, ...) of each.

        Entries are in the order of `model.named_parameters()`, each parameter row-major, as for
        `Objective.theta`.
        """
        with self.ranks.raise_together("gathering vectors"):
            return self.space.gather(vectors)

    def loss(self, theta: Tensor) -> Tensor:
        """Evaluate L(theta) over the data of all processes: a scalar without a graph."""
        with self.ranks.raise_together("the loss"), torch.no_grad():
            own = torch.stack([b.share * self.batch_loss(theta, b) for b in self.batches]).sum()
            squares = theta[self.is_varied].square().sum()
            total, penalty = self.space.sum(torch.stack([own, squares]))
            found: Tensor = total + self.weight_decay / 2 * penalty
            return found

    def at(self, theta: Tensor, constants: Mapping[str, Tensor] | None = None) -> NoReturn:
        """Raise an error: a whole theta is in no process."""
        raise self._refusal("other parameters")

    def restricted_to(self, names: Collection[str]) -> NoReturn:
        """Raise an error; pass `parameters` when the objective is built."""
        raise ValueError(
            "a ShardedObjective is restricted when it is built: pass parameters=[...], names of "
            "the parameters to vary"
        )

    def require_whole(self, what: str) -> NoReturn:
        """Raise an error: a whole theta is in no process."""
        raise self._refusal(what)

    def _refusal(self, what: str) -> ValueError:
        return ValueError(
            f"{what} must be computed with all {self.num_parameters:,} parameters in one process, "
            f"got a ShardedObjective over {self.ranks.size}; {_WAY_OUT}"
        )
