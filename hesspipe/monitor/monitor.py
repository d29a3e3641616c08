"""Curvature through training: a record every so many steps, and their table.

At a record, the parameters, the buffers and the frozen parameters of the model in training are
copied into the objective, which is built once. The objective has the mode that the model had then:
usually evaluation mode, without dropout, with the running statistics that batch normalization has
at the record. Nothing of the training is touched: not the model, its mode or gradients, not the
optimizer, no random state. A training is the same to the last bit with and without a monitor.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from hesspipe.curvature.matrix import Matrix
from hesspipe.linalg.arguments import require_integer
from hesspipe.monitor.budget import Budget
from hesspipe.monitor.guards import RecordWarning, require_kinds
from hesspipe.monitor.measurement import Kind, Measurement
from hesspipe.monitor.model_state import ModelState
from hesspipe.monitor.record_files import read_rows, write_rows
from hesspipe.monitor.records import Record, rows_of
from hesspipe.monitor.state import restore, state_of
from hesspipe.objective.distributed import telling
from hesspipe.objective.objective import Objective
from hesspipe.objective.samples import first_samples
from hesspipe.plots.plotted import Plotted

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from hesspipe.tables.store import Result

# Defaults. 1e-3 is a third of a pixel in a figure of 10 cm. On the transformer of examples/, 8 to
# 17 products find and verify the largest eigenvalue so, 28 once (benchmarks/monitor.md).
EVERY = 50
TOLERANCE = 1e-3
MAX_PRODUCTS = 40
VERIFY_EVERY = 1
_NUMBER_NEEDED = (
    "number must be given, because the monitor continues {}; pass the number of updates that the "
    "model has had"
)


_MaybeKind = TypeVar("_MaybeKind", Kind, Kind | None)


class Monitor(Plotted):
    """Curvature of the loss through a training.

    `plot` draws the eigenvalues against the steps, and the stability limit of the optimizer.

    Call `step` after each step of the optimizer. Every `every` steps it records, at the parameters
    that the model then has,

    - the ends of the spectrum of H with residual norms from its own products. The search starts
      from the Ritz vectors of the last record, and a fresh random vector tells how far the ends may
      lie beyond what it found;
    - the step size of the optimizer, and the limit of the largest eigenvalue up to which descent is
      stable: 2 / step_size for SGD, 38 / step_size for Adam; see `hesspipe.monitor.step_sizes`;
    - if asked for, the largest eigenvalue of H in the metric of the optimizer (the preconditioned
      sharpness; for one step size without preconditioner that of H, and then always recorded);
    - if asked for, the critical sharpness, 2 / (step size at which the update that was just made
      would no longer have decreased the loss), by forward passes; see `hesspipe.monitor.critical`;
    - if asked for, the trace with its standard error.

    Parameters
    ----------
    objective : Objective
        The loss whose curvature is recorded, on the data and in the dtype of your choice. Build it
        in evaluation mode: ``model.eval()``, ``Objective(model, ...)``, ``model.train()``.
    model : nn.Module
        The model in training: that of the objective, or one with parameters of the same names.
        It may be compiled or wrapped afterwards.
    optimizer : Optimizer, optional
        Read for step sizes and preconditioners.
    every : int
        Steps between records.
    samples : int, optional
        Record the curvature of the loss on the first so many samples of the objective instead of
        all of them: an objective of its own, at a fraction of the cost. Its samples must be
        independent.
    budget : float, optional
        Most of the time of the records over that of the training, e.g. 0.05. What is not used is
        saved for later records. A record begins when there is time for what its kind took before:
        both ends, verified; the largest, verified; or the largest by estimate, the most complete
        one that can be paid. Other records are left out, with a warning at the first one. A search
        that takes more ends early, with the status "open". Calls of `record` are not limited:
        begin with one. Which steps are recorded then depends on the speed of the machine.
    num_smallest, num_largest : int
        Numbers of eigenvalues from each end, smallest meaning most negative.
    tolerance : float
        Relative error of each eigenvalue. `is_converged` says that its bound is below it.
    max_products : int
        Products with H of a record, for each of the two matrices. A record that needs more has
        `is_converged` False, and its residual norms tell how far it came.
    verify_every : int
        The first of every so many records verifies its eigenvalues: a Lanczos run from a random
        vector bounds how far the ends of the spectrum may lie beyond them, but for a probability of
        0.001 (`error_bound`, `missed_probability`). The others take half the products. Their
        eigenvalues are next to those of the record before; a new one that has risen above them may
        be missed, so that `is_verified` and `is_converged` are False: their status is "estimated"
        instead of "certified".
    trace_products : int
        Products for the trace; 0, or at least 6.
    preconditioned, critical : bool
        Whether to record the preconditioned and the critical sharpness.
    path : path, optional
        A Parquet file that is written at each record, atomically. If it exists, the monitor
        continues it: pass the number of updates to `step`. Rows from that step on are replaced.
    experiment : str
        Name in the table.
    seed : int
        Of the random vectors, and in the table.
    on_error : {"warn", "raise"}
        Whether a record that fails, e.g. because the training diverged or a disk is full, warns and
        leaves a row without numbers, or raises.

    Attributes
    ----------
    optimizer : Optimizer or None

    Raises
    ------
    ValueError
        If an argument is out of range, the model lacks parameters of the objective, or the file is
        of another monitor.

    Examples
    --------
    >>> import torch
    >>> model = nn.Linear(2, 1)
    >>> inputs, targets = torch.eye(2), torch.zeros(2, 1)
    >>> objective = Objective(model, nn.MSELoss(), (inputs, targets))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    >>> monitor = Monitor(objective, model, optimizer, every=2)
    >>> for _ in range(4):
    ...     optimizer.zero_grad()
    ...     nn.functional.mse_loss(model(inputs), targets).backward()
    ...     optimizer.step()
    ...     monitor.step()
    >>> largest = monitor.table.query("end == 'largest'")
    >>> largest[["step", "eigenvalue", "stability_limit"]].round(6).values.tolist()
    [[2.0, 3.0, 4.0], [4.0, 3.0, 4.0]]
    """

    def __init__(
        self,
        objective: Objective,
        model: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        every: int = EVERY,
        samples: int | None = None,
        budget: float | None = None,
        num_smallest: int = 1,
        num_largest: int = 1,
        tolerance: float = TOLERANCE,
        max_products: int = MAX_PRODUCTS,
        verify_every: int = VERIFY_EVERY,
        trace_products: int = 0,
        preconditioned: bool = False,
        critical: bool = False,
        path: str | Path | None = None,
        experiment: str = "training",
        seed: int = 0,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        require_kinds(objective, optimizer, on_error)
        with telling(objective.ranks, "making a monitor"):
            self.every = require_integer("every", every, 1)
            self.optimizer, self.path, self.on_error = optimizer, path, on_error
            self.experiment, self.seed = experiment, seed
            self._measurement = Measurement(
                num_smallest, num_largest, tolerance, max_products, verify_every, trace_products,
                preconditioned, critical, seed,
            )  # fmt: skip
            self._measurement.require_size(objective.num_parameters)
            self._budget = Budget(budget)
            objective = first_samples(objective, samples)
            self._objective, self._state = objective, ModelState(objective, model)
        self._rows, self._reasons = read_rows(path, self._provenance(), objective.ranks), set[str]()
        self._last = None if self._rows else 0
        self._before: Tensor | None = None
        if self.every == 1 and critical:
            self._before = self._state.objective().theta

    def step(self, number: int | None = None) -> None:
        """Count a step of the optimizer, and record if one is due.

        Parameters
        ----------
        number : int, optional
            Updates that the model has had; needed after a restart. By default one more than at the
            last call.

        Raises
        ------
        ValueError
            If the number is needed.
        """
        number = self._checked(number, None if self._last is None else self._last + 1)
        self._budget.enter()
        kind: Kind | None = None
        try:
            kind = self._count(number)
        finally:
            self._budget.leave(None if kind is None else kind.name)
        if self._budget.is_noticed:
            self._say(
                f"the records of the monitor took {self._budget.records:.0f} s, and the training "
                f"{self._budget.training:.0f} s; budget=0.05 limits them to 5 %. Fewer samples or "
                "eigenvalues, or a larger every, make them cheaper"
            )

    def _count(self, number: int) -> Kind | None:
        """Record if a record is due, and keep what the next one needs; return what was recorded."""
        last = number - 1 if self._last is None else self._last
        before, self._before = self._before, None
        kind = self._affordable(number) if number // self.every > last // self.every else None
        if kind is not None:
            self._record(number, before, self._budget, kind)
        self._last, stride = number, max(1, number - last)
        is_next = (number + stride) // self.every > number // self.every
        if is_next and self._measurement.critical:
            with self._guarded(number):
                self._before = self._state.objective().theta
        return kind

    def record(self, number: int | None = None) -> None:
        """Record now, whether or not one is due: before the training, for example.

        There is no critical sharpness in it, for lack of an update.

        Parameters
        ----------
        number : int, optional
            Updates that the model has had; by default those of the last call of `step`.
        """
        self._last = self._checked(number, self._last)
        self._budget.enter()
        try:
            budget = Budget(None)
            budget.enter()
            self._record(self._last, None, budget, self._same_kind(self._measurement.kinds()[0]))
            self._budget.learn(budget.seconds_per_product)
        finally:
            self._budget.leave(is_counted=False)

    def begin(self, number: int) -> None:
        """Count from here, where a training starts or goes on; record if it is due and not done.

        Parameters
        ----------
        number : int
            Updates that the model has had.
        """
        number = self._checked(number, None)
        is_done = any(row["step"] == number and row["eigenvalue"] is not None for row in self._rows)
        if number % self.every == 0 and not is_done:
            self.record(number)
        self._last, self._before = number, None
        if self._measurement.critical and (number + 1) % self.every == 0:
            self._before = self._state.objective().theta

    def _affordable(self, number: int) -> Kind | None:
        """Choose the kind of a record by the time that was saved, and warn once if there is none.

        Rank 0 decides.
        """
        kinds = self._measurement.kinds()
        expected = self._measurement.expected(kinds)
        name = self._budget.affordable([kind.name for kind in kinds], expected)
        found = self._same_kind(next((each for each in kinds if each.name == name), None))
        if found is not None:
            return found
        least = self._budget.seconds_of(min(expected.values()))
        self._say(
            f"the record at step {number} takes at least {least:.2g} s, and budget="
            f"{self._budget.share:g} leaves {max(self._budget.saved, 0.0):.2g} s for it now; "
            "records are left out until enough time is saved. Use fewer samples or "
            "eigenvalues, or a larger every"
        )
        return None

    def _record(self, number: int, before: Tensor | None, budget: Budget, kind: Kind) -> None:
        """Record at a step, given theta before the update that led to it."""
        found: Record | None = None
        with self._guarded(number):
            budget.begin()
            found = self._measurement.measure(
                self._state, self.optimizer, number, before, budget, kind
            )
            budget.finish(found.num_products)
            found.time_share = self._decided(budget.time_share)
            if found.sizes.reason is not None:
                self._say(f"the monitor leaves columns empty: {found.sizes.reason}")
            for note in self._state.notes():
                self._say(note)
        self._rows = [row for row in self._rows if row["step"] < number]
        self._rows += rows_of(number, found, kind.ends, self._objective.num_parameters)
        if self.path is not None:
            with self._guarded(number, "was made, but not written"):
                write_rows(self.result, self.path, self._objective.ranks)

    def _same_kind(self, kind: _MaybeKind) -> _MaybeKind:
        """Return the kind that rank 0 has chosen, where there are several processes."""
        if self._objective.ranks is None:
            return kind
        found = self._decided(None if kind is None else astuple(kind))
        return found if found is None else Kind(*found)  # type: ignore[return-value]

    def _decided(self, value: Any) -> Any:
        """Return what rank 0 has, where there are several processes."""
        ranks = self._objective.ranks
        return value if ranks is None else ranks.decide(value)

    @property
    def table(self) -> pd.DataFrame:
        """All records: a row for each eigenvalue, the smallest first; see `result`."""
        import pandas as pd
        import pyarrow as pa

        from hesspipe.tables.schemas import SCHEMAS

        schema = SCHEMAS["monitor"]
        empty: pd.DataFrame = pa.Table.from_pylist([], schema=schema).to_pandas()
        if not self._rows:
            return empty
        table = pd.DataFrame(self._rows, columns=schema.names)
        return table.astype({name: empty[name].dtype for name in schema.names})

    @property
    def result(self) -> Result:
        """The table with its provenance: what figures and `write_result` take."""
        from hesspipe.tables.store import Result

        return Result("monitor", self.table, self._provenance())

    def _draw(self, ax: Axes | None) -> Axes:
        return self.result.plot(ax)

    def figure(self) -> Figure:
        """Draw the eigenvalues against the steps: `hesspipe.figures.over_training`."""
        from hesspipe.figures.over_training import make_figure

        numbers = {
            "num_largest": self._measurement.num_largest,
            "num_smallest": self._measurement.num_smallest,
        }
        return make_figure([self.result], numbers)

    def for_lightning(self) -> Any:
        """Make a callback for the Trainer of Lightning, which calls `step` and finds the optimizer.

        Raises
        ------
        ImportError
            If Lightning is not installed.
        """
        from hesspipe.monitor.callbacks import lightning_callback

        return lightning_callback(self)

    def for_transformers(self) -> Any:
        """Make a TrainerCallback for the Trainer of transformers, which does the same.

        Raises
        ------
        ImportError
            If transformers is not installed.
        """
        from hesspipe.monitor.callbacks import transformers_callback

        return transformers_callback(self)

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs, so that the next record starts from the last vectors.

        Returns
        -------
        dict
            Of tensors, numbers and texts: `torch.load` reads it with ``weights_only=True``.
        """
        counted = {"last": self._last, "rows": [dict(row) for row in self._rows]}
        return counted | state_of(self._measurement, self._budget)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict`, of a monitor of the same ends and the same objective.

        Raises
        ------
        ValueError
            If it is not one of such a monitor.
        """
        restore(state, self._objective, self._measurement, self._budget)
        self._rows, self._last = [dict(row) for row in state["rows"]], state["last"]
        self._before = None
        if self._measurement.critical and self.every == 1:
            self._before = self._state.objective().theta

    def adopt_optimizer(self, optimizers: Iterable[Optimizer]) -> None:
        """Use the one of several optimizers that has parameters of the objective.

        None if several have: step sizes and limits are then left empty, with a warning.
        """
        own = {id(parameter) for parameter in self._state.parameters()}
        found = [
            optimizer
            for optimizer in optimizers
            if any(id(each) in own for group in optimizer.param_groups for each in group["params"])
        ]
        if found:
            self.optimizer = found[0] if len(found) == 1 else None
        if len(found) > 1:
            names = ", ".join(type(optimizer).__name__ for optimizer in found)
            self._say(
                "the monitor leaves columns empty: the parameters of the objective belong to "
                f"{len(found)} optimizers ({names}), for which there is no common limit"
            )

    def __repr__(self) -> str:
        num_steps = len({row["step"] for row in self._rows})
        return f"Monitor(every={self.every}, {num_steps} records of {self.experiment!r})"

    def _provenance(self) -> dict[str, Any]:
        objective = self._objective
        return {
            "experiment": self.experiment,
            "seed": self.seed,
            "matrix": str(Matrix.HESSIAN),
            "num_parameters": objective.num_parameters,
            "num_samples": objective.num_data,
            "dtype": str(objective.dtype).removeprefix("torch."),
            "method": "Rayleigh-Ritz on the vectors of the last record, and a random one",
            "num_smallest": self._measurement.num_smallest,
            "num_largest": self._measurement.num_largest,
        }

    def _checked(self, number: int | None, default: int | None) -> int:
        """Check the number of a step, or take the default."""
        with telling(self._objective.ranks, "the number of a step"):
            if number is None and default is None:
                raise ValueError(_NUMBER_NEEDED.format(self.path))
            return require_integer("number", default if number is None else number, 0)

    def _guarded(self, number: int, what: str = "failed") -> Any:
        return nullcontext() if self.on_error == "raise" else RecordWarning(number, what)

    def _say(self, reason: str) -> None:
        """Warn of something, once for each reason whatever its numbers are."""
        kind = re.sub(r"[\d.]+", "", reason)
        if kind not in self._reasons:
            self._reasons.add(kind)
            warnings.warn(reason, RuntimeWarning, stacklevel=4)
