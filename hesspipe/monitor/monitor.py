"""Curvature through training: a record every so many steps, and their table.

At a record, the parameters, the buffers and the frozen parameters of the model in training are
copied into the objective, which is built once. The objective has the mode that the model had then:
usually evaluation mode, without dropout, with the running statistics that batch normalization has
at the record. Nothing of the training is touched: not the model, its mode or gradients, not the
optimizer, no random state. A training is the same to the last bit with and without a monitor.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import HessianOperator
from hesspipe.linalg.arguments import require_integer, require_number
from hesspipe.linalg.operator import SymmetricProduct
from hesspipe.linalg.trace import estimate_norms
from hesspipe.linalg.tracking import Tracking, track_eigenpairs
from hesspipe.monitor.critical import critical_step
from hesspipe.monitor.step_sizes import StepSizes, step_sizes
from hesspipe.objective.determinism import preserved_random_state
from hesspipe.objective.differentiability import differentiating
from hesspipe.objective.flattening import flatten
from hesspipe.objective.model_kinds import unwrapped
from hesspipe.objective.objective import Objective
from hesspipe.objective.pytrees import cast
from hesspipe.seeding import derive_seed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from hesspipe.tables.store import Result

# Defaults. 1e-3 is a third of a pixel in a figure of 10 cm. On the transformer of examples/, 3 to 9
# products give the largest eigenvalue so, and 10 to 30 the most negative (benchmarks/monitor.md).
EVERY = 50
TOLERANCE = 1e-3
MAX_PRODUCTS = 40
VERIFY_EVERY = 10
# At records that verify: probability that an eigenvalue beyond the ends is missed.
_MAX_MISSED = 0.01
# Parts of names that wrappers of submodules add.
_WRAPPERS = ("_orig_mod.",)


class Monitor:
    """Curvature of the loss through a training.

    Call `step` after each step of the optimizer. Every `every` steps it records, at the parameters
    that the model then has,

    - the ends of the spectrum of H with residual norms from its own products. The search starts
      from the vectors of the last record and a random part;
    - the step size of the optimizer, the largest eigenvalue of H in its metric (the preconditioned
      sharpness; for one step size without preconditioner that of H), and the limit up to which
      descent is stable: 2 / step_size for SGD, 38 / step_size for Adam; see
      `hesspipe.monitor.step_sizes`;
    - the critical sharpness, 2 / (step size at which the update that was just made would no longer
      have decreased the loss), by forward passes; see `hesspipe.monitor.critical`;
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
    num_smallest, num_largest : int
        Numbers of eigenvalues from each end, smallest meaning most negative.
    tolerance : float
        Relative error of each eigenvalue, by an estimate from its residual norm and its distance
        from the next one.
    max_products : int
        Products with H of a record, for each of the two matrices. A record that needs more has
        `is_converged` False, and its residual norms tell how far it came.
    verify_every : int
        The first of every so many records goes on until an eigenvalue more than 10 % beyond the
        ends is missed with a probability of at most 0.01. The bound for each record is in its
        column `missed_probability`; it is often 1 in short searches.
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
        num_smallest: int = 1,
        num_largest: int = 1,
        tolerance: float = TOLERANCE,
        max_products: int = MAX_PRODUCTS,
        verify_every: int = VERIFY_EVERY,
        trace_products: int = 0,
        preconditioned: bool = True,
        critical: bool = True,
        path: str | Path | None = None,
        experiment: str = "training",
        seed: int = 0,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        if not isinstance(objective, Objective):
            raise TypeError(
                f"objective must be an Objective, got {type(objective).__name__}; build one with "
                "hesspipe.Objective(model, loss_fn, data), and pass the model as well"
            )
        if on_error not in ("warn", "raise"):
            raise ValueError(f"on_error must be 'warn' or 'raise', got {on_error!r}")
        self.every = require_integer("every", every, 1)
        self.num_smallest = require_integer("num_smallest", num_smallest, 0)
        self.num_largest = require_integer("num_largest", num_largest, 0)
        self.max_products = require_integer("max_products", max_products, 1)
        self.verify_every = require_integer("verify_every", verify_every, 1)
        self.trace_products = require_integer("trace_products", trace_products, 0)
        self.seed = require_integer("seed", seed, 0)
        self.tolerance = require_number("tolerance", tolerance)
        self.optimizer, self.path, self.on_error = optimizer, path, on_error
        self.preconditioned, self.critical = preconditioned, critical
        self.experiment = experiment
        self._objective, self._model = objective, model
        self._constants = [
            name
            for named in (objective.model.named_parameters(), objective.model.named_buffers())
            for name, _ in named
            if name not in set(objective.names)
        ]
        self._require_arguments()
        self._rows: list[dict[str, Any]] = self._read_rows()
        self._last = None if self._rows else 0
        self._before: tuple[int, Tensor] | None = None
        self._starts: dict[str, Tensor] = {}
        self._num_records = 0
        self._reasons: set[str] = set()
        if self.every == 1:
            self._before = (0, self._state().theta)

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
        if number is None:
            if self._last is None:
                raise ValueError(
                    f"number must be given, because the monitor continues {self.path}; call "
                    "monitor.step(number of updates that the model has had)"
                )
            number = self._last + 1
        number = require_integer("number", number, 0)
        last = number - 1 if self._last is None else self._last
        stride = max(1, number - last)
        self._last = number
        if number // self.every > last // self.every:
            self.record(number)
        is_next = (number + stride) // self.every > number // self.every
        if is_next and self.critical:
            with self._guarded(number):
                self._before = (number, self._state().theta)

    def record(self, number: int | None = None) -> None:
        """Record now, whether or not one is due: before the training, for example.

        Parameters
        ----------
        number : int, optional
            Updates that the model has had; by default those of the last call of `step`.
        """
        number = require_integer("number", self._last or 0 if number is None else number, 0)
        self._last = number
        found: _Record | None = None
        with self._guarded(number):
            found = self._measure(number)
        self._rows = [row for row in self._rows if row["step"] < number]
        self._rows += self._rows_of(number, found)
        self._num_records += 1
        if self.path is not None:
            with self._guarded(number, "was recorded, but could not be written"):
                self._write(self.path)

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

    def figure(self) -> Figure:
        """Draw the eigenvalues against the steps: `hesspipe.figures.over_training`."""
        from hesspipe.figures.over_training import make_figure

        numbers = {"num_largest": self.num_largest, "num_smallest": self.num_smallest}
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

    def adopt_optimizer(self, optimizers: Iterable[Optimizer]) -> None:
        """Use the one of several optimizers that has parameters of the objective."""
        own = {id(parameter) for parameter in self._parameters()}
        for optimizer in optimizers:
            groups = optimizer.param_groups
            if any(id(each) in own for group in groups for each in group["params"]):
                self.optimizer = optimizer

    def __repr__(self) -> str:
        num_steps = len({row["step"] for row in self._rows})
        return f"Monitor(every={self.every}, {num_steps} records of {self.experiment!r})"

    def _measure(self, number: int) -> _Record:
        """Measure everything at the present parameters."""
        device = self._objective.device
        with preserved_random_state(device), differentiating():
            objective = self._state()
            with torch.no_grad():
                loss = float(objective.loss(objective.theta))
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss}")
            operator = HessianOperator(objective)
            ends = self._track(operator, "hessian", None, self.num_smallest, self.num_largest)
            found = _Record(loss, ends, StepSizes(None))
            found.num_products = ends.pairs.num_products
            if self.optimizer is not None:
                found.sizes = step_sizes(self.optimizer, self._parameters(), objective.theta)
                self._say(found.sizes.reason)
            if self.preconditioned and self.optimizer is not None:
                self._measure_preconditioned(found, operator)
            if self.critical:
                self._measure_critical(found, objective, number)
            if self.trace_products:
                product = _product(operator, None)
                seed = derive_seed(self.seed, f"trace at step {number}")
                norms = estimate_norms(product, num_products=self.trace_products, seed=seed)
                found.trace, found.trace_error = norms.trace.value, norms.trace.standard_error
                found.num_products += self.trace_products
            return found

    def _track(
        self,
        operator: HessianOperator,
        name: str,
        diagonal: Tensor | None,
        num_smallest: int,
        num_largest: int,
    ) -> Tracking:
        """Find the ends of H or D H D, from where they were at the last record."""
        is_verified = self._num_records % self.verify_every == 0
        found = track_eigenpairs(
            _product(operator, diagonal),
            num_smallest,
            num_largest,
            start=self._starts.get(name),
            tolerance=self.tolerance,
            max_products=self.max_products,
            max_missed_probability=_MAX_MISSED if is_verified else 1.0,
            seed=derive_seed(self.seed, f"record {self._num_records}"),
        )
        self._starts[name] = found.start
        return found

    def _measure_preconditioned(self, found: _Record, operator: HessianOperator) -> None:
        sizes, pairs = found.sizes, found.ends.pairs
        if sizes.diagonal is None:
            is_known = sizes.stability_limit is not None and self.num_largest > 0
            if not is_known or len(pairs.eigenvalues) < self.num_smallest + 1:
                return
        else:
            pairs = self._track(operator, "preconditioned", sizes.diagonal, 0, 1).pairs
            found.num_products += pairs.num_products
        found.preconditioned = float(pairs.eigenvalues[-1])
        found.preconditioned_residual = float(pairs.residual_norms[-1])

    def _measure_critical(self, found: _Record, objective: Objective, number: int) -> None:
        """Measure along the update that led to the present parameters."""
        step_size = found.sizes.step_size
        if self._before is None or self._before[0] >= number or not step_size:
            return
        theta = self._before[1]
        update = objective.theta - theta

        @torch.no_grad()
        def loss(step: float) -> float:
            return float(objective.loss(theta + step * update))

        if bool(update.any()):
            step = critical_step(loss)
            found.critical = None if step is None else 2 / (step * step_size)

    def _state(self) -> Objective:
        """The objective at the present parameters, buffers and frozen parameters."""
        named, objective = self._named(), self._objective
        parameters = {name: named[name].detach() for name in objective.names}
        theta = flatten(
            {
                name: cast(part, objective.dtype, objective.device)
                for name, part in parameters.items()
            }
        )
        constants = {
            name: cast(named[name].detach(), objective.dtype, objective.device).clone()
            for name in self._constants
            if name in named
        }
        return objective.at(theta.clone(), constants)

    def _named(self) -> dict[str, Tensor]:
        """Present parameters and buffers of the model, by their names in the objective."""
        model, named = unwrapped(self._model), {}
        for tensors in (
            model.named_buffers(remove_duplicate=False),
            model.named_parameters(remove_duplicate=False),
        ):
            for name, tensor in tensors:
                for wrapper in _WRAPPERS:
                    name = name.replace(wrapper, "")
                named[name] = tensor
        return named

    def _parameters(self) -> list[Tensor]:
        named = self._named()
        return [named[name] for name in self._objective.names]

    def _rows_of(self, number: int, found: _Record | None) -> list[dict[str, Any]]:
        """Make the rows of a record: numbers that are not known, or not finite, are missing."""
        size = self._objective.num_parameters
        ends = [("smallest", rank) for rank in range(self.num_smallest)]
        ends += [("largest", rank) for rank in range(size - self.num_largest, size)]
        common = {"step": number, **(_Record.nothing() if found is None else found.columns())}
        rows = []
        for place, (end, rank) in enumerate(ends):
            row: dict[str, Any] = {"end": end, "rank": rank, "is_converged": False}
            if found is not None and len(found.ends.pairs.eigenvalues) == len(ends):
                pairs = found.ends.pairs
                row["eigenvalue"] = float(pairs.eigenvalues[place])
                row["residual_norm"] = float(pairs.residual_norms[place])
                row["is_converged"] = bool(found.ends.is_converged[place])
            rows.append({"eigenvalue": None, "residual_norm": None, **common, **row})
        return rows

    def _provenance(self) -> dict[str, Any]:
        objective = self._objective
        return {
            "experiment": self.experiment,
            "seed": self.seed,
            "matrix": str(Matrix.HESSIAN),
            "num_parameters": objective.num_parameters,
            "num_samples": objective.num_data,
            "dtype": str(objective.dtype).removeprefix("torch."),
            "method": "Lanczos from the vectors of the last record",
            "num_smallest": self.num_smallest,
            "num_largest": self.num_largest,
        }

    def _read_rows(self) -> list[dict[str, Any]]:
        """Read the rows of a file that this monitor continues."""
        if self.path is None or not Path(self.path).exists():
            return []
        from hesspipe.tables.store import read_result

        found = read_result(self.path, "monitor")
        for key, value in self._provenance().items():
            if found.provenance.get(key) != value:
                raise ValueError(
                    f"path must be a file of the same monitor, got {self.path} with {key} "
                    f"{found.provenance.get(key)!r} instead of {value!r}; pass another path"
                )
        table = found.table.astype(object).where(found.table.notna(), None)
        return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]

    def _write(self, path: str | Path) -> None:
        from hesspipe.tables.store import write_result

        write_result(self.result, path)

    def _require_arguments(self) -> None:
        objective, total = self._objective, self.num_smallest + self.num_largest
        if not 1 <= total <= objective.num_parameters:
            raise ValueError(
                f"num_smallest + num_largest must be 1 to P = {objective.num_parameters}, got "
                f"{total}"
            )
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance must be between 0 and 1, got {self.tolerance}")
        if 0 < self.trace_products < 6:
            raise ValueError(f"trace_products must be 0 or at least 6, got {self.trace_products}")
        named = self._named()
        for name, shape in zip(objective.names, objective.shapes, strict=True):
            if name not in named or named[name].shape != shape:
                what = f"shape {tuple(named[name].shape)}" if name in named else "none"
                raise ValueError(
                    f"model must have the parameters of the objective, such as {name} of shape "
                    f"{tuple(shape)}, got {what}; pass the model, or the part of it, that the "
                    "Objective was built from"
                )

    def _guarded(self, number: int, what: str = "failed") -> Any:
        return nullcontext() if self.on_error == "raise" else _Warning(number, what)

    def _say(self, reason: str | None) -> None:
        """Warn of something that is not known, once."""
        if reason is not None and reason not in self._reasons:
            self._reasons.add(reason)
            warnings.warn(
                f"the monitor leaves columns empty: {reason}", RuntimeWarning, stacklevel=2
            )


@dataclass
class _Record:
    """What was measured at one step."""

    loss: float
    ends: Tracking
    sizes: StepSizes
    num_products: int = 0
    preconditioned: float | None = None
    preconditioned_residual: float | None = None
    critical: float | None = None
    trace: float | None = None
    trace_error: float | None = None

    @staticmethod
    def nothing() -> dict[str, Any]:
        """Columns of a record that failed."""
        names = (
            "loss", "missed_probability", "step_size", "preconditioned_sharpness",
            "preconditioned_residual", "stability_limit", "critical_sharpness", "trace",
            "trace_error",
        )  # fmt: skip
        return {**dict.fromkeys(names), "num_products": 0}

    def columns(self) -> dict[str, Any]:
        """Columns that all rows of the record share."""
        return {
            "loss": self.loss,
            "missed_probability": self.ends.missed_probability,
            "step_size": self.sizes.step_size,
            "preconditioned_sharpness": self.preconditioned,
            "preconditioned_residual": self.preconditioned_residual,
            "stability_limit": self.sizes.stability_limit,
            "critical_sharpness": self.critical,
            "trace": self.trace,
            "trace_error": self.trace_error,
            "num_products": self.num_products,
        }


class _Warning:
    """Turns an error into a warning that names the record."""

    def __init__(self, number: int, what: str) -> None:
        self.number, self.what = number, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: Any, traceback: Any) -> bool:
        if not isinstance(error, Exception):
            return False
        text = " ".join(str(error).split()) or type(error).__name__
        message = f"the record of the monitor at step {self.number} {self.what}: {text}"
        warnings.warn(message, RuntimeWarning, stacklevel=4)
        return True


def _product(operator: HessianOperator, diagonal: Tensor | None) -> SymmetricProduct:
    """H, or D H D, as a product: symmetric by construction."""

    def multiply(vector: Tensor) -> Tensor:
        if diagonal is None:
            return operator @ vector
        return diagonal * (operator @ (diagonal * vector))

    size = operator.shape[0]
    return SymmetricProduct(multiply, size, operator.dtype, operator.device, "hessian")
