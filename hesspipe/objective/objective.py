"""L(theta): a model, a loss and data as a function of one flat parameter vector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hesspipe.errors import NotASumOverSamplesError
from hesspipe.objective.batches import Batch, read_batches
from hesspipe.objective.determinism import (
    attempt,
    in_full_precision,
    preserved_random_state,
    refuse_changed_buffers,
    refuse_differences,
    require_finite_evaluation,
)
from hesspipe.objective.differentiability import (
    differentiating,
    refuse_wrong_derivatives,
    uses_theta_beside_outputs,
)
from hesspipe.objective.explanations import explained
from hesspipe.objective.flat_model import FlatModel, FunctionOfTheta
from hesspipe.objective.pieces import Piece
from hesspipe.objective.pytrees import (
    Fields,
    Layout,
    WholeLayout,
    join_outputs,
    join_whole,
    named_tensors,
)
from hesspipe.objective.reductions import (
    Denominator,
    LossFunction,
    known_denominator,
    reduction,
)
from hesspipe.objective.rounding import is_perturbing
from hesspipe.objective.separability import Divide, find_dependence, one, part_of, take
from hesspipe.seeding import generator
from hesspipe.tolerances import rounding

__all__ = ["Batch", "Objective"]

# Samples that the checks of derivatives evaluate at once, where samples are independent.
_SAMPLES_AT_ONCE = 1024
# Samples for which second derivatives of the outputs are compared apart.
_NUM_SAMPLES = 32


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
        Names of the parameters to vary, with the wildcards of `fnmatch` ("layers.0.*"); the others
        are constant. By default all that require a gradient.

    Attributes
    ----------
    theta : Tensor, shape (P,)
        The parameters of the model, in the order of `model.named_parameters()`, each row-major. A
        parameter that several modules share appears once.
    names, shapes, is_frozen : list
        One entry per parameter, in the same order. Frozen ones (`requires_grad` false, or not
        among `parameters`) remain part of theta, with rows of zeros in every matrix.
    is_varied : Tensor of bool, shape (P,)
        Mask of the entries of theta that are not frozen.
    loss_fn : callable (outputs, targets) -> scalar Tensor
        The loss as a function of what `outputs` returns, one vector per sample.
    batches : list of Batch
    num_parameters, num_data : int
        P and N.
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

    Examples
    --------
    >>> model = nn.Linear(3, 2)
    >>> data = torch.ones(4, 3), torch.tensor([0, 1, 0, 1])
    >>> Objective(model, nn.CrossEntropyLoss(), data).num_parameters
    8
    >>> Objective(model, nn.CrossEntropyLoss(), data, parameters=["b*"]).is_varied.sum()
    tensor(2)
    """

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
    ) -> None:
        if not weight_decay >= 0:
            raise ValueError(f"weight_decay must be at least 0, got {weight_decay}")
        self._adopt(flat := FlatModel(model, dtype, parameters))
        self.dtype, self.weight_decay = dtype, weight_decay
        self._whole_loss: LossFunction
        self._denominator: Denominator | None
        self._whole_loss, self._denominator = flat.copied(loss_fn, denominator)
        self._layouts: dict[int, Layout] = {}
        self._reason_without_rows: str | None = None
        self.coupling: str | None = None
        self._reason_without_outputs: str | None = None
        self._is_sum = reduction(self._whole_loss) == "sum"
        with preserved_random_state(self.device):
            batches = read_batches(data, dtype, self.device)
            before = torch.get_rng_state()
            self.num_data = sum(batch.num_samples for batch in batches)
            fresh = flat.fresh_copy()
            self.batches = self._weigh(batches, self._denominator)
            theta = self._point_of_checks()
            self._find_dependence(fresh, theta)
            self._check_derivatives(theta)
            flat.draws_numbers = not torch.equal(before, torch.get_rng_state())
        self.loss_fn: Callable[[Tensor, Any], Tensor] = self._whole_loss
        if not all(layout.is_plain for layout in self._layouts.values()):
            self.loss_fn = partial(_loss_of_rows, self._whole_loss, self._layouts)

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
        if theta.ndim != 1 or not theta.is_floating_point():
            raise ValueError(
                "theta must be a vector of floating point, got "
                f"shape {tuple(theta.shape)} of {theta.dtype}"
            )
        nothing = torch.zeros(1, 0)
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
        if self.has_output_rows:
            return self.outputs(theta, batch.inputs).reshape(-1)
        return join_whole(self._flat(theta, batch.inputs))[0]

    def loss_of_vector(self, vector: Tensor, batch: Batch) -> Tensor:
        """Evaluate loss_fn on all outputs for a batch, given as `output_vector` returns them."""
        if self.has_output_rows:
            return self.loss_fn(vector.view(batch.num_samples, -1), batch.targets)
        if batch.layout is None:
            raise ValueError(self._reason_without_outputs)
        return self._whole_loss(batch.layout.split(vector), batch.targets)

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
        """Evaluate L(theta) over all the data, including weight decay: a scalar."""
        total = torch.stack(
            [batch.share * self.batch_loss(theta, batch) for batch in self.batches]
        ).sum()
        if self.weight_decay:
            total = total + self.weight_decay / 2 * theta[self.is_varied].square().sum()
        return total

    def batch_loss(self, theta: Tensor, batch: Batch) -> Tensor:
        """Evaluate loss_fn on one batch, without its share and weight decay: a scalar."""
        if self.has_output_rows:
            return self.loss_fn(self.outputs(theta, batch.inputs), batch.targets)
        return self._whole_loss(self._flat(theta, batch.inputs), batch.targets)

    def without_weight_decay(self) -> Objective:
        """Copy the objective with a weight decay of 0."""
        plain = copy.copy(self)
        plain.weight_decay = 0.0
        return plain

    def varied_part(self) -> Objective:
        """Copy the objective with its frozen parameters as constants instead of parts of theta.

        Its matrices are those of this objective without the rows and columns of the frozen
        parameters, which are zero.
        """
        if not any(self.is_frozen):
            return self
        part = copy.copy(self)
        part._adopt(self._flat.varied_part())
        return part

    def as_part(self, factor: float, num_data: int) -> Objective:
        """Copy the objective as a part of one with more data.

        Parameters
        ----------
        factor : float
            Multiplies the share of every batch.
        num_data : int
            N of the whole.
        """
        part = copy.copy(self)
        part.num_data = num_data
        part.batches = [replace(batch, share=factor * batch.share) for batch in self.batches]
        return part

    def total_denominator(self) -> float | None:
        """Compute the denominator of the loss over all the data; None for a sum.

        Raises
        ------
        ValueError
            If the loss is not one of torch, and `denominator` was not given, or it is not a sum
            or mean over samples.
        """
        if self._is_sum:
            return None
        divide = self._denominator or known_denominator(self._whole_loss)
        if self._is_unlike_parts:
            raise NotASumOverSamplesError(
                "loss_fn must be a sum over samples divided by the denominator, to be added over "
                "processes, got one that is not that of its parts"
            )
        total = 0.0
        for batch in self.batches:
            outputs = self._flat(self.theta, batch.inputs)
            total += float(divide(outputs, batch.targets))
        return total

    def unflatten(self, theta: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into named parameters, with frozen ones detached."""
        return self._flat.unflatten(theta)

    def name_of(self, index: int) -> str:
        """Name the parameter that holds entry `index` of theta."""
        return self._flat.name_of(index)

    def _adopt(self, flat: FlatModel) -> None:
        """Take over theta and what describes it."""
        self._flat, self.model = flat, flat.structure
        self.theta, self.device = flat.theta, flat.device
        self.names, self.shapes = flat.names, flat.shapes
        self.is_frozen, self.is_varied = flat.is_frozen, flat.is_varied

    def _weigh(self, batches: list[Batch], denominator: Denominator | None) -> list[Batch]:
        """Weight each batch by its share of the denominator; evaluate all batches twice."""
        is_whole = self._is_sum or len(batches) == 1
        divide = None if is_whole else denominator or known_denominator(self._whole_loss)
        versions = {name: buffer._version for name, buffer in self._flat.buffers.items()}
        weights, found = [], []
        for number, batch in enumerate(batches):
            with explained(batch, number, self.dtype):
                outputs = self._flat(self.theta, batch.inputs)
                weights.append(1.0 if divide is None else float(divide(outputs, batch.targets)))
            if not weights[-1] >= 0:
                raise ValueError(
                    f"denominator must be positive, got {weights[-1]} in batch {number}"
                )
            if weights[-1] == 0:  # no valid label: the loss would be 0 / 0
                found.append(batch)
                continue
            with explained(batch, number, self.dtype):
                loss = self._whole_loss(outputs, batch.targets)
            require_finite_evaluation(outputs, loss, self._flat.buffers, number)
            evaluate = partial(self._outputs_and_loss, self.theta, batch)
            refuse_differences((outputs, loss), evaluate, number, self.dtype)
            layout = self._record_layout(outputs, batch.num_samples)
            value = float(loss.detach())
            eps = torch.finfo(self.dtype).eps
            found.append(
                replace(
                    batch,
                    value=value,
                    value_rounding=rounding(abs(value), self.dtype)
                    + 4 * eps * max(_sizes(outputs), default=0.0),
                    layout=layout,
                )
            )
        refuse_changed_buffers(self._flat.buffers, versions)
        total = 1.0 if is_whole else sum(weights)
        if total <= 0:
            raise ValueError(f"the loss's denominator must be positive, got {total} over all data")
        return [
            replace(batch, share=weight / total)
            for batch, weight in zip(found, weights, strict=True)
            if weight > 0
        ]

    def _outputs_and_loss(self, theta: Tensor, batch: Batch) -> tuple[Any, Tensor]:
        outputs = self._flat(theta, batch.inputs)
        return outputs, self._whole_loss(outputs, batch.targets)

    def _record_layout(self, outputs: Any, num_samples: int) -> WholeLayout | None:
        try:
            whole = join_whole(outputs)[1]
        except ValueError as error:
            self._reason_without_rows = self._reason_without_outputs = str(error)
            return None
        try:
            rows, layout = join_outputs(outputs, num_samples)
        except ValueError as error:
            self._reason_without_rows = str(error)
            return whole
        if self._layouts.setdefault(rows.shape[1], layout) != layout:
            self._reason_without_rows = (
                f"model outputs of one size must have one shape, got two of {rows.shape[1]} numbers"
            )
        return whole

    def _point_of_checks(self) -> Tensor:
        """Choose a point near theta, where initial weights of zero hide nothing.

        It is theta itself where the model or the loss is not defined nearby.
        """
        near = self._flat.another_point()
        for number, batch in enumerate(self.batches):
            evaluate = partial(self._outputs_and_loss, near, batch)
            found = in_full_precision(partial(attempt, evaluate), self.dtype)
            if found is None or not torch.isfinite(found[1]):
                return self.theta
            refuse_differences(found, evaluate, number, self.dtype)
        return near

    def _find_dependence(self, fresh: FlatModel, theta: Tensor) -> None:
        """Test whether samples are independent, and what the loss divides by."""
        found = find_dependence(
            self._flat, fresh, self._whole_loss, self._divide(), theta, self.batches
        )
        self.coupling = found.coupling
        self._reason_without_rows = self._reason_without_rows or found.reason_without_rows
        self._is_unlike_parts = found.divide is None
        self._is_sum |= found.is_sum
        if self._is_sum:
            self.batches = [replace(batch, share=1.0) for batch in self.batches]

    def _divide(self) -> Divide | None:
        """Return what the loss is said to divide by; None if unknown."""
        if self._is_sum:
            return one
        try:
            divide = self._denominator or known_denominator(self._whole_loss)
        except ValueError:
            return None
        return lambda outputs, targets, _: float(divide(outputs, targets))

    def _check_derivatives(self, theta: Tensor) -> None:
        """Test all derivatives near theta, and second ones at theta itself."""
        pieces = [
            self._piece(number, torch.arange(start, min(start + size, batch.num_samples)))
            for number, batch in enumerate(self.batches)
            for size in [_SAMPLES_AT_ONCE if self.is_separable else batch.num_samples]
            for start in range(0, batch.num_samples, size)
        ]
        with explained(self.batches[0], 0, self.dtype):
            refuse_wrong_derivatives(pieces, self._few_samples(), self._flat, theta)
            if uses_theta_beside_outputs(self._flat, self._whole_loss, self.batches[0]):
                self._reason_without_rows = self._reason_without_outputs = (
                    "G and R need a loss of the outputs only, got one that uses what the model "
                    "stored in its last call; return that as an output, or use the hessian"
                )

    def _few_samples(self) -> list[Piece]:
        """Draw samples from all the data, each with its batch's: at most `_NUM_SAMPLES`."""
        if not self.is_separable:
            return []
        places = [(n, i) for n, batch in enumerate(self.batches) for i in range(batch.num_samples)]
        order = torch.randperm(len(places), generator=generator(0, "few samples"))
        chosen: dict[int, list[int]] = {}
        for place in order[:_NUM_SAMPLES].tolist():
            chosen.setdefault(places[place][0], []).append(places[place][1])
        return [self._piece(number, torch.tensor(index)) for number, index in chosen.items()]

    def _piece(self, number: int, index: Tensor) -> Piece:
        """Some samples of a batch; all of them are the batch itself."""
        batch = self.batches[number]
        inputs, targets = batch.inputs, batch.targets
        if len(index) < batch.num_samples:
            inputs, targets = (
                part_of(inputs, index),
                take(targets, index, batch.num_samples),
            )
        return Piece(
            self._flat,
            lambda outputs: batch.share * self._whole_loss(outputs, targets),
            inputs,
            self.has_output_rows,
            number,
            int(index[0]),
        )


def _sizes(outputs: Any) -> list[float]:
    """Return the largest magnitude in each tensor."""
    return [float(t.detach().abs().max()) for _, t in named_tensors(outputs, "") if t.numel()]


def _loss_of_rows(
    loss_fn: LossFunction, layouts: dict[int, Layout], rows: Tensor, targets: Any
) -> Tensor:
    return loss_fn(layouts[rows.shape[1]].split(rows), targets)
