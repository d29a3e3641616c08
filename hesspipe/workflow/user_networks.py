"""What jobs hold of a user's network, from the number of its parameters.

To count them is to build the network, without memory for its numbers, and to import torch. So it is
done only where jobs have to ask for memory, or where exact spectra are missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from hesspipe import forecasts
from hesspipe.config.experiments import Experiment, SavedState, UserModel
from hesspipe.config.results import ResultKind
from hesspipe.config.user_files import num_parameters, num_rows_to_form
from hesspipe.curvature.matrix import Matrix
from hesspipe.workflow.needs import Need

if TYPE_CHECKING:
    from hesspipe.config.experiments import MatrixFree

# Larger networks have exact spectra only where a smaller matrix has the same eigenvalues.
_MOST_ROWS = 50_000
_ELEMENT_BYTES = {"float32": 4, "float64": 8}


def held_bytes(kind: ResultKind, experiment: Experiment) -> int:
    """Forecast what a job holds of a user's network, but for its activations.

    Parameters
    ----------
    kind : ResultKind
        Of the job's result.
    experiment : Experiment

    Returns
    -------
    int
        0 for other networks, for those that cannot be built here, which their jobs report, and for
        kinds that hold little besides the network.
    """
    model, training = experiment.model, experiment.training
    if not isinstance(model, UserModel):
        return 0
    number = num_parameters(model.function, model.arguments) or 0
    if kind is ResultKind.SPECTRA:
        return forecasts.matrix_bytes(number) if number <= _MOST_ROWS else 0
    if kind is ResultKind.CHECKPOINTS and not isinstance(training, SavedState):
        size = forecasts.NetworkSize(number, num_activations=0, num_products=0)
        return forecasts.training_bytes(size, 0, _ELEMENT_BYTES[training.dtype])
    if experiment.matrix_free is not None:
        return _bytes_of_vectors(kind, experiment.matrix_free, number)
    return 0


def needs_of_user_network(name: str, experiment: Experiment) -> Iterator[Need]:
    """Forecast the exact spectra of H and R of a user's network, which is built to be counted.

    Parameters
    ----------
    name : str
    experiment : Experiment

    Yields
    ------
    Need
        Where the matrix is formed. The spectrum of G may take less, by the number of samples.
    """
    model, plan = experiment.model, experiment.spectra
    if plan is None or not isinstance(model, UserModel) or {*plan.matrices} == {Matrix.GGN}:
        return
    rows = num_rows_to_form(model.function, model.arguments)
    if rows:
        yield Need(
            ResultKind.SPECTRA,
            name,
            f"experiments.{name}.spectra",
            f"the exact spectrum for P = {rows:,} parameters",
            "use matrix_free, which forms no matrix, or a smaller network",
            memory_bytes=forecasts.matrix_bytes(rows),
            operations=4 / 3 * rows**3,
        )


def _bytes_of_vectors(kind: ResultKind, plan: MatrixFree, number: int) -> int:
    """Of a whole basis."""
    element_bytes = _ELEMENT_BYTES[plan.dtype]
    if kind is ResultKind.DENSITIES:
        num_steps = min(plan.density.num_steps, number)
        return max(forecasts.density_bytes(num_steps, number, element_bytes))
    if kind is ResultKind.EIGENPAIRS:
        wanted = plan.eigenpairs.num_smallest + plan.eigenpairs.num_largest
        return max(forecasts.search_bytes(wanted, number, element_bytes))
    return 0
