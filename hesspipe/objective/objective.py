"""L(theta): a model, a loss and data as a function of one flat parameter vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from hesspipe.linalg.arguments import require_number
from hesspipe.objective.batches import Batch, read_batches
from hesspipe.objective.checks_on_data import ChecksOnData
from hesspipe.objective.determinism import preserved_random_state
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.distributed import (
    become_part,
    denominator_of_part,
    ranks_of,
    require_same_model,
    summed_loss,
    together,
)
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel
from hesspipe.objective.functions import FunctionOfTheta
from hesspipe.objective.pytrees import Fields, join_outputs, join_whole
from hesspipe.objective.reductions import Denominator, LossFunction, ReducedLoss, reduction
from hesspipe.objective.rounding import is_perturbing
from hesspipe.objective.streaming import mapped, sizes_of, stream_batches
from hesspipe.objective.whole_batches import BatchNumber, read_whole_batches
from hesspipe.objective.whole_losses import WITHOUT_OUTPUTS, adopt_functions, denominator_of
from hesspipe.summaries import Verbatim, summary

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup


class Objective:
    """The loss over all the data as a function of one flat parameter vector.

    ``L(theta) = loss_fn(f(theta; x), y) + (weight_decay / 2) |theta|^2`` for one batch. Over
    several batches it equals the loss of one batch with all the data: each batch is weighted by
    the denominator that the loss divides by (samples, their class weights, valid labels or
    elements).

    The data, the parameters and the structure of the model are read once and copied. Later changes
    of the loader, of tensors or of the mode of the model therefore have no effect, and the model
    is never changed. Attention is computed by the "math" kernel, the only one with second
    derivatives.

    Parameters
    ----------
    model : nn.Module
        f; in evaluation mode if it has dropout or batch normalization. It returns a tensor, or
        nested dictionaries, tuples and lists of tensors.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        l; a sum or mean over samples. Copied with all that it holds, in the dtype of the objective.
    data : (inputs, targets), an iterable of such batches, or a Dataset
        A tuple is one batch, any other iterable holds batches, and a Dataset holds samples. Read
        once; see `hesspipe.objective.batches.read_batches`. The model is called as
        `model(**inputs)` if inputs are a dictionary whose keys are arguments of its forward method,
        as `model(inputs)` for any other dictionary, and as `model(*inputs)` for a tuple or list.
    denominator : callable (outputs, targets) -> float, optional
        Denominator of a mean loss on a batch; 1 for a sum. Known for the losses of torch; needed
        for any other loss on more than one batch.
    dtype : torch.dtype
        Of all computations. float64 by default, because counts of zero and negative eigenvalues
        are meaningless in float32.
    weight_decay : float
        Coefficient of the penalty on the varied parameters. Its curvature, weight_decay on their
        diagonal, is part of H and G but not of R, because it is convex.
    parameters : sequence of str, optional
        Names of the parameters to vary, with the wildcards of `fnmatch` ("layers.0.*"); of one that
        several modules share, any of its names. By default, and at most, all that require a
        gradient. The others are constants: they are not part of theta, and P does not count them.
    stream : bool
        Read the data again at every pass, one batch in memory at a time, for data larger than
        memory: a DataLoader with shuffle=False, or another object that iterates anew each time. A
        digest of every batch is compared with that of the first pass.
    process_group : ProcessGroup, optional
        Of `torch.distributed`: every process builds the objective from its part of the data, which
        may be empty, and the loss is that over all of them. Everything else is compared between
        processes, and errors of one are raised in all. `hesspipe.eigenpairs`, `density` and
        `estimate_norms` must then be called in all processes, and return the same in all.
    progress : bool, optional
        Show a bar while the model and the loss are checked, some 3 products with the Hessian; by
        default if standard error is a terminal.

    Attributes
    ----------
    theta : Tensor, shape (P,)
        The parameters that vary, in the order of `model.named_parameters()`, each row-major. A
        parameter that several modules share appears once.
    names, shapes : list
        One entry per parameter that varies, in the same order.
    is_varied : Tensor of bool, shape (P,)
        False for entries of theta that are constant nevertheless, with rows of zeros in every
        matrix: the row `padding_idx` of an embedding whose weight has no other use.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        The loss as a function of what `outputs` returns, one vector per sample.
    batches : sequence of Batch
    num_parameters, num_data : int
        P, of the parameters that vary, and N.
    ranks : hesspipe.ranks.ranks.Ranks or None
        The processes that have parts of the data, if there are several.
    coupling : str or None
        None if the samples are independent: outputs for a sample do not depend on the other
        samples of its batch, and the loss of each batch is that of its parts. Otherwise what
        couples them.

    Raises
    ------
    ValueError
        If two evaluations differ, values are not finite or lose precision, there are no data or
        no parameters, or the denominator of the loss is needed and not known.
    TooLargeError
        If the data do not fit into memory.
    ChangedDataError
        If streamed data are not what they were at the first pass.
    RankError
        If a process has failed, or differs from the others.

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> data = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
    >>> Objective(model, nn.CrossEntropyLoss(), data).num_parameters
    8
    >>> Objective(model, nn.CrossEntropyLoss(), data, parameters=["b*"]).num_parameters
    2
    """

    # What is done otherwise where the parameters are divided among processes.
    _ranks_of, _require_same_model = staticmethod(ranks_of), require_same_model
    _become_part = become_part

    @differentiating()
    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        data: Any,
        *,
        denominator: Denominator | None = None,
        dtype: torch.dtype = torch.float64,
        weight_decay: float = 0.0,
        parameters: Sequence[str] | None = None,
        stream: bool = False,
        process_group: ProcessGroup | None = None,
        progress: bool | None = None,
    ) -> None:
        self.ranks = self._ranks_of(process_group)
        with together(self.ranks, "building the objective"):
            flat = self._begin(model, dtype, weight_decay, parameters)
            self._require_same_model(flat, loss_fn=loss_fn, denominator=denominator)
            whole, divide = flat.copied(loss_fn, denominator)
            self._is_reduction_known = reduction(whole) is not None
            loss = ReducedLoss(whole, divide, reduction(whole) == "sum", flat.norms)
            with preserved_random_state(self.device):
                read = stream_batches if stream else read_batches
                may_be_empty = self.ranks is not None
                batches = read(data, dtype, self.device, may_be_empty=may_be_empty)
                self._finish(flat, loss, batches, progress)
            self._become_part()

    @classmethod
    @differentiating()
    def from_batches(
        cls,
        model: nn.Module,
        loss: Callable[..., Tensor],
        batches: Iterable[Any],
        *,
        outputs: Callable[[nn.Module, Any], Any] | None = None,
        num_samples: BatchNumber | None = None,
        denominator: BatchNumber | None = None,
        reduction: Literal["mean", "sum"] = "mean",
        dtype: torch.dtype = torch.float64,
        weight_decay: float = 0.0,
        parameters: Sequence[str] | None = None,
        stream: bool = False,
        process_group: ProcessGroup | None = None,
        progress: bool | None = None,
    ) -> Objective:
        """Make an objective from any loss over batches of any type.

        ``L(theta) = sum_b w_b loss(model, b) + (weight_decay / 2) |theta|^2``, with weights
        proportional to the denominators, or 1 for a sum. Batches are never sliced, joined or
        reordered, so they may be dictionaries, graphs, dataclasses or any other objects, and the
        loss of a batch may couple all of it.

        Parameters
        ----------
        model : nn.Module
        loss : callable (model, batch) -> scalar Tensor
            Gets a copy of the model with all its attributes and methods, in which the parameters
            are functions of theta, and a copy of the batch. It may differentiate by entries of the
            batch or by parameters, with ``create_graph=True``. With `outputs`, it is a function of
            (outputs, batch) instead.
        batches : iterable
            A list, generator, DataLoader, ... of batches, read once. Each is copied as pickle
            copies it; all its tensors and arrays of floating point are converted to `dtype`, and
            all tensors are moved to the device of the model.
        outputs : callable (model, batch) -> Tensor, or nested containers of tensors, optional
            The outputs f of the network, which define G and R. Without them there is only H.
        num_samples : callable (batch) -> int, or str, optional
            Number of samples of a batch: a function, or the name of an attribute or key.
        denominator : callable (batch) -> float, or str, optional
            What a mean loss divides by on a batch, if not the number of samples: valid labels,
            nodes, ... One of the two is needed for a mean over several batches.
        reduction : {"mean", "sum"}
            Whether losses of batches are averaged with these weights, or added.
        dtype, weight_decay, parameters, stream, process_group, progress
            As for `Objective`.

        Returns
        -------
        Objective
            `num_data` is the number of batches if `num_samples` is not given.

        Raises
        ------
        ValueError
            As for `Objective`, or if a batch cannot be copied.
        TooLargeError
            If the data do not fit into memory.

        Examples
        --------
        >>> batches = [{"x": torch.ones(2, 3), "y": torch.tensor([0, 1])}]
        >>> def loss(model, batch):
        ...     return nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        >>> Objective.from_batches(nn.Linear(3, 2), loss, batches).num_parameters
        8
        """
        self, divide = cls.__new__(cls), denominator_of(num_samples, denominator, reduction)
        self.ranks = self._ranks_of(process_group)
        with together(self.ranks, "building the objective"):
            flat = self._begin(model, dtype, weight_decay, parameters)
            self._require_same_model(flat, loss=loss, outputs=outputs, num_samples=num_samples,
                                     denominator=denominator, reduction=reduction)  # fmt: skip
            with preserved_random_state(self.device):
                found = read_whole_batches(
                    batches,
                    flat.copier,
                    num_samples,
                    is_streamed=stream,
                    may_be_empty=self.ranks is not None,
                )
                reduced = adopt_functions(flat, loss, outputs, divide, is_sum=reduction == "sum")
                self._finish(flat, reduced, found, progress)
            if outputs is None:
                self._reason_without_outputs = WITHOUT_OUTPUTS
            self._become_part()
        return self

    def _begin(
        self,
        model: nn.Module,
        dtype: torch.dtype,
        weight_decay: float,
        parameters: Sequence[str] | None,
    ) -> FlatModel:
        """Adopt the model."""
        require_number("weight_decay", weight_decay)
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        self._adopt(flat := FlatModel(model, dtype, parameters))
        self.dtype, self.weight_decay, self._is_reduction_known = dtype, weight_decay, True
        return flat

    def _finish(
        self,
        flat: FlatModel,
        loss: ReducedLoss,
        batches: Sequence[Batch],
        progress: bool | None = None,
    ) -> None:
        """Take over the batches, the loss and what the checks on them find."""
        self.num_data = sum(sizes_of(batches))
        checks = ChecksOnData(flat, loss, batches, is_part=self.ranks is not None)
        checks.run(progress)
        self.batches, self._reduced = checks.batches, checks.loss
        self.loss_fn: LossFunction = checks.loss_of_rows()
        self.coupling, self._is_unlike_parts = checks.coupling, checks.is_unlike_parts
        self._reason_without_rows = checks.layouts.reason_without_rows
        self._reason_without_outputs = checks.layouts.reason_without_outputs
        self._output_sizes = tuple(checks.layouts.by_size)

    @classmethod
    def from_function(
        cls,
        loss: Callable[[Tensor], Tensor],
        theta: Tensor,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> Objective:
        """Make an objective from a function of theta, without a model.

        It has a Hessian only: G and R are defined by the outputs of a network.

        Parameters
        ----------
        loss : callable (theta) -> scalar Tensor
        theta : Tensor, shape (P,)
        dtype : torch.dtype

        Returns
        -------
        Objective
            With num_data 1.

        Examples
        --------
        >>> objective = Objective.from_function(lambda theta: theta.square().sum(), torch.ones(3))
        >>> objective.loss(objective.theta)
        tensor(3., dtype=torch.float64)
        """
        nothing = torch.zeros(1, 0, dtype=torch.float64, device="cpu")
        objective = cls(
            FunctionOfTheta(loss, theta),
            FunctionOfTheta.sum_of_outputs,
            (nothing, nothing),
            dtype=dtype,
        )
        objective._reason_without_rows = objective._reason_without_outputs = (
            "G and R are defined by the outputs of a network, which Objective.from_function does "
            "not know; use the hessian, or Objective with a model"
        )
        return objective

    def __repr__(self) -> str:
        if not hasattr(self, "_output_sizes"):
            return "Objective(not built)"
        return summary(
            "Objective",
            model=type(self.model).__name__,
            num_parameters=self.num_parameters,
            num_data=self.num_data,
            num_batches=len(self.batches),
            num_outputs=self._output_sizes[0] if len(self._output_sizes) == 1 else None,
            dtype=Verbatim(self.dtype),
            device=Verbatim(self.device),
            weight_decay=self.weight_decay or None,
            coupling=self.coupling,
        )

    @property
    def has_output_rows(self) -> bool:
        """Whether the model returns one row per sample."""
        return self._reason_without_rows is None

    @property
    def is_separable(self) -> bool:
        """Whether L is a sum over samples of a function of one row of outputs."""
        return self.coupling is None and self.has_output_rows

    @property
    def num_parameters(self) -> int:
        """P, the length of theta."""
        return len(self.theta)

    def outputs(self, theta: Tensor, inputs: Tensor | Fields) -> Tensor:
        """Evaluate f(theta; x), one vector per sample.

        Parameters
        ----------
        theta : Tensor, shape (P,)
        inputs : Tensor, shape (n, ...), or Fields

        Returns
        -------
        Tensor, shape (n, C)
            All outputs for a sample, each tensor row-major, concatenated.

        Raises
        ------
        ValueError
            If the model does not return one row per sample, or there is no model.
        """
        if self._reason_without_rows is not None:
            raise ValueError(self._reason_without_rows)
        return join_outputs(self._flat(theta, inputs), len(inputs))[0]

    def output_vector(self, theta: Tensor, batch: Batch) -> Tensor:
        """Evaluate all outputs for a batch as one vector (K,), whether or not they have rows.

        Raises
        ------
        ValueError
            If there is no model, or its outputs are not tensors of floating point.
        """
        if self._reason_without_outputs is not None:
            raise ValueError(self._reason_without_outputs)
        with self.explained(batch):
            if self.has_output_rows:
                return self.outputs(theta, batch.inputs).reshape(-1)
            return join_whole(self._flat(theta, batch.inputs))[0]

    def loss_of_vector(self, vector: Tensor, batch: Batch) -> Tensor:
        """Evaluate loss_fn on all outputs for a batch, given as `output_vector` returns them."""
        with self.explained(batch):
            if self.has_output_rows:
                return self.loss_fn(vector.view(batch.num_samples, -1), batch.targets)
            if batch.layout is None:
                raise ValueError(self._reason_without_outputs)
            return self._reduced.loss_fn(batch.layout.split(vector), batch.targets)

    def require_unchanged(self, batch: Batch, loss: Tensor) -> None:
        """Raise an error if the loss on a batch at theta is not what it was.

        Parameters
        ----------
        batch : Batch
        loss : Tensor, scalar
            Its present value, without the share of the batch.

        Raises
        ------
        ValueError
        """
        found = float(loss.detach())
        if is_perturbing():  # to measure rounding
            return
        if batch.value is None or abs(found - batch.value) <= batch.value_rounding:
            return
        raise ValueError(
            "model and loss_fn must not change after the Objective is built, got a loss of "
            f"{found:.17g} that was {batch.value:.17g}; build a new Objective"
        )

    def loss(self, theta: Tensor) -> Tensor:
        """Evaluate L(theta) over all the data, including weight decay: a scalar.

        With several processes, all of them must call it, and it has no gradient.
        """
        total = self.loss_of_part(theta) if self.ranks is None else summed_loss(self, theta)
        if self.weight_decay:
            total = total + self.weight_decay / 2 * theta[self.is_varied].square().sum()
        return total

    def loss_of_part(self, theta: Tensor) -> Tensor:
        """Evaluate what the data of this process add to L(theta), without weight decay."""
        terms = [batch.share * self.batch_loss(theta, batch) for batch in self.batches]
        return torch.stack(terms or [theta.new_zeros(())]).sum()

    def batch_loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Evaluate loss_fn on one batch, without its share and weight decay: a scalar."""
        with self.explained(batch):
            if self.has_output_rows:
                return self.loss_fn(self.outputs(theta, batch.inputs), batch.targets)
            return self._reduced.loss_fn(self._flat(theta, batch.inputs), batch.targets)

    def explained(self, batch: Batch) -> AbstractContextManager[None]:
        """Replace an error that the model or the loss raises by one that names the batch."""
        return explained(batch, batch.number, self.dtype)

    def without_weight_decay(self) -> Objective:
        """Copy the objective with a weight decay of 0."""
        plain = copy.copy(self)
        plain.weight_decay = 0.0
        return plain

    def at(self, theta: Tensor, constants: Mapping[str, Tensor] | None = None) -> Objective:
        """Copy the objective with theta elsewhere, without the checks of a new one.

        Parameters
        ----------
        theta : Tensor, shape (P,)
            In the dtype and on the device of the objective.
        constants : mapping of Tensor, optional
            New values of buffers and constant parameters of the model, by their names.
        """
        if theta.shape != self.theta.shape or theta.dtype != self.dtype:
            raise ValueError(
                f"theta must be of shape {tuple(self.theta.shape)} and {self.dtype}, got shape "
                f"{tuple(theta.shape)} of {theta.dtype}"
            )
        moved = copy.copy(self)
        moved._adopt(self._flat.at(theta.detach(), constants or {}))
        moved.batches = mapped(lambda batch: replace(batch, value=None), self.batches)
        return moved

    def restricted_to(self, names: Collection[str]) -> Objective:
        """Copy the objective with all but some parameters as constants instead of parts of theta.

        Its matrices are diagonal blocks of those of this objective.

        Parameters
        ----------
        names : collection of str
            Of parameters that vary, which keep their order.
        """
        part = copy.copy(self)
        part._adopt(self._flat.restricted_to(names))
        return part

    def require_whole(self, what: str) -> None:
        """Raise an error if something needs all of theta in one process, and none has it."""

    def total_denominator(self) -> float | None:
        """Compute the denominator of the loss over all the data; None for a sum.

        Raises
        ------
        ValueError
            If the loss is not one of torch, and `denominator` was not given, or it is not a sum
            or mean over samples.
        """
        return denominator_of_part(self)

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into the named parameters that vary."""
        return self._flat.unflatten(theta)

    def name_of(self, index: int) -> str:
        """Name the parameter that holds entry `index` of theta."""
        return self._flat.name_of(index)

    def _adopt(self, flat: FlatModel) -> None:
        """Take over theta and what describes it."""
        self._flat, self.model = flat, flat.structure
        self.theta, self.device = flat.theta, flat.device
        self.names, self.shapes, self.is_varied = flat.names, flat.shapes, flat.is_varied
