"""Spectra of the diagonal blocks of layers, all in one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from hesspipe.curvature.columns import outputs_per_sample
from hesspipe.curvature.matrix import Matrix
from hesspipe.curvature.operators import CurvatureOperator, objective_of
from hesspipe.curvature.spectra import density, eigenpairs, spectrum
from hesspipe.errors import HesspipeError, nearest_names
from hesspipe.linalg.density import NUM_PROBES, NUM_STEPS
from hesspipe.linalg.eigenpairs import MAX_PRODUCTS, TOLERANCE
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.objective.objective import Objective
from hesspipe.plots.plotted import Plotted
from hesspipe.progress import bar_options

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LayerSpectrum: TypeAlias = Spectrum | Density | Eigenpairs
Kind = Literal["auto", "spectrum", "density", "eigenpairs"]

# Largest matrix whose eigenvalues are all computed unless asked for: about a second on one core.
_LARGEST_EXACT = 3000
# Pairs from each end, as many as are drawn one by one in a figure of layers.
NUM_PAIRS = 5
# The name of the group of parameters that the model holds itself.
_ROOT = "(model)"


@dataclass(frozen=True, eq=False, repr=False)
class LayerSpectra(Plotted, Mapping[str, LayerSpectrum]):
    """Results by the names of layers, in the order of the network.

    `plot` draws the eigenvalues of each layer in a column, in one color for each sign, on an axis
    that is logarithmic on both sides of a linear piece, in which some sign is not known. Of a
    density its nodes are drawn, hollow.

    A mapping: `spectra["fc"]` is the `Spectrum`, `Density` or `Eigenpairs` of that layer's block.

    Attributes
    ----------
    matrix : str
        "hessian", "ggn" or "residual".
    names : dict of list of str
        The parameters of each group.
    num_parameters : dict of int
        Rows of each block.
    results : dict
        What was computed, by the name of the group.
    failures : dict of Exception
        Errors of groups that have no result, for example because a search did not converge or
        memory did not suffice. They are raised when the group is looked up.
    """

    matrix: str
    names: dict[str, list[str]]
    num_parameters: dict[str, int]
    results: dict[str, LayerSpectrum]
    failures: dict[str, Exception]

    def __getitem__(self, group: str) -> LayerSpectrum:
        if group in self.failures:
            raise self.failures[group]
        return self.results[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        rows: list[tuple[str, ...]] = [
            ("group", "P", "result", "smallest", "largest", "-", "0", "+")
        ]
        for group, size in self.num_parameters.items():
            rows.append((group, f"{size:,}", *self._summary(group)))
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
            for row in rows
        ]
        return "\n".join([f"LayerSpectra of the {self.matrix}", *lines])

    def _draw(self, ax: Axes | None) -> Axes:
        from hesspipe.plots.spectra import plot_groups

        groups = {group: _drawn(found) for group, found in self.results.items()}
        return plot_groups(ax, groups, str(self.matrix))

    def _summary(self, group: str) -> tuple[str, ...]:
        if group in self.failures:
            return type(self.failures[group]).__name__, "", "", "", "", ""
        found = self.results[group]
        values = found.nodes if isinstance(found, Density) else found.eigenvalues
        ends = f"{float(values.min()):.3g}", f"{float(values.max()):.3g}"
        if not isinstance(found, Spectrum):
            return type(found).__name__, *ends, "", "", ""
        counts = found.num_negative, found.num_zero, found.num_positive
        return "Spectrum", *ends, *(f"{count:,}" for count in counts)


def _drawn(found: LayerSpectrum) -> tuple[NDArray[np.float64], float, str]:
    """Values of a result, the size below which the sign of one is not known, and what they are."""
    if isinstance(found, Density):
        return found.nodes[found.weights > 0].numpy(), found.resolution, "nodes of a density"
    if isinstance(found, Eigenpairs):
        return found.eigenvalues.numpy(), float(found.residual_norms.max()), "eigenvalues"
    return found.eigenvalues.numpy(), found.tolerance, "eigenvalues"


def layer_spectra(
    objective: Objective | CurvatureOperator,
    groups: Mapping[str, Sequence[str]] | None = None,
    matrix: Matrix | str | None = None,
    *,
    kind: Kind = "auto",
    num_pairs: int = NUM_PAIRS,
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    num_probes: int = NUM_PROBES,
    num_steps: int = NUM_STEPS,
    seed: int = 0,
    progress: bool | None = None,
) -> LayerSpectra:
    """Compute the spectrum of the diagonal block of each layer, in one call.

    The block of a layer has the rows and columns of H, G or R of the whole objective, at theta,
    that belong to the parameters of the layer. It is the matrix of the objective in which all
    other parameters are constant, so that the cost and memory of a layer are those of its own
    parameters.

    Parameters
    ----------
    objective : Objective
        Or an operator of one.
    groups : mapping of sequence of str, optional
        Names of groups, and of the parameters in each, with the wildcards of `fnmatch`:
        ``{"first": ["0.*"], "biases": ["2.bias", "4.bias"]}``. By default one group for each
        module that holds parameters directly. A parameter that several modules share, which
        theta has once, then belongs to the groups of all of them, and any of its names will do.
    matrix : {"hessian", "ggn", "residual"}, optional
        By default the hessian of an objective, or the matrix of an operator.
    kind : {"auto", "spectrum", "density", "eigenpairs"}
        What to compute: `hesspipe.spectrum`, `hesspipe.density`, or both ends by
        `hesspipe.eigenpairs`. "auto" computes the spectrum in float64 where at most 3,000 of the
        eigenvalues can differ from zero or the weight decay, and the density elsewhere.
    num_pairs : int
        Eigenpairs from each end. Of G only those at the upper end are computed, because zeros
        cluster at the lower one.
    tolerance, max_products
        See `hesspipe.eigenpairs`.
    num_probes, num_steps : int
        See `hesspipe.density`; at most as many steps as the layer has parameters are made.
    seed : int
        Of densities and eigenpairs.
    progress : bool, optional
        Show a progress bar.

    Returns
    -------
    LayerSpectra
        A mapping from the names of the groups to their results.

    Raises
    ------
    TypeError
        If the first argument is something else.
    ValueError
        If a pattern matches no parameter that varies, two groups given by the caller overlap, or
        an argument does not fit.
    HesspipeError
        That of the first group, if none has a result; see `LayerSpectra.failures`.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Tanh(), torch.nn.Linear(2, 2))
    >>> data = torch.randn(8, 3), torch.randint(2, (8,))
    >>> objective = Objective(model, torch.nn.CrossEntropyLoss(), data)
    >>> found = layer_spectra(objective)
    >>> {name: len(spectrum.eigenvalues) for name, spectrum in found.items()}
    {'0': 8, '2': 6}
    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind!r}")
    objective, matrix = objective_of(objective, matrix)
    names = _modules(objective) if groups is None else _given(objective, groups)
    search = {"num_pairs": num_pairs, "tolerance": tolerance, "max_products": max_products}
    options: dict[str, dict[str, Any]] = {
        "spectrum": {},
        "density": {"num_probes": num_probes, "num_steps": num_steps, "seed": seed},
        "eigenpairs": {**search, "seed": seed},
    }
    found = LayerSpectra(str(matrix), names, {}, {}, {})
    known: dict[tuple[str, ...], LayerSpectrum] = {}  # tied layers may have the same block
    for group, members in tqdm(names.items(), f"layers, {matrix}", **bar_options(progress)):
        part, key = objective.restricted_to(members), tuple(members)
        found.num_parameters[group] = part.num_parameters
        chosen = _chosen_kind(part, matrix) if kind == "auto" else kind
        try:
            if key not in known:
                known[key] = _COMPUTE[chosen](part, matrix, **options[chosen])
            found.results[group] = known[key]
        except (HesspipeError, ValueError) as error:
            found.failures[group] = error
    if not found:
        raise next(iter(found.failures.values()))
    return found


def _modules(objective: Objective) -> dict[str, list[str]]:
    """The parameters that vary by the modules that hold them."""
    names = {
        id(value): name
        for name, value in objective.model.named_parameters()
        if name in objective.names
    }
    groups = {}
    for module, holder in objective.model.named_modules():
        held = {names[id(value)] for value in holder._parameters.values() if id(value) in names}
        if held:
            groups[module or _ROOT] = [name for name in objective.names if name in held]
    return groups


def _given(objective: Objective, groups: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The parameters that vary by the patterns of each group."""
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(
            "groups must map names to patterns of parameters, such as {'first': ['0.*']}, got "
            f"{groups!r}"
        )
    by_alias = _aliases(objective)
    owners: dict[str, str] = {}
    found = {}
    for group, patterns in groups.items():
        if isinstance(patterns, str) or not all(isinstance(each, str) for each in patterns):
            raise ValueError(
                f"groups must map names to lists of patterns, got {patterns!r} for {group!r}"
            )
        matches = {name for pattern in patterns for name in _matches(group, pattern, by_alias)}
        for name in sorted(matches):
            if owners.setdefault(name, group) != group:
                raise ValueError(
                    f"groups must not overlap, got {name} in {owners[name]!r} and {group!r}; call "
                    "layer_spectra for each of them"
                )
        if not matches:
            raise ValueError(f"groups must have at least one parameter, got none in {group!r}")
        found[group] = [name for name in objective.names if name in matches]
    return found


def _aliases(objective: Objective) -> dict[str, str]:
    """The name in theta of each parameter that varies, by every name that it has in the model."""
    own = {id(value): name for name, value in objective.model.named_parameters()}
    every = objective.model.named_parameters(remove_duplicate=False)
    return {name: own[id(value)] for name, value in every if own[id(value)] in objective.names}


def _matches(group: str, pattern: str, by_alias: dict[str, str]) -> set[str]:
    matches = {own for alias, own in by_alias.items() if fnmatchcase(alias, pattern)}
    if not matches:
        raise ValueError(
            f"groups must match parameters that vary, got {pattern!r} in {group!r}; the nearest "
            f"are {nearest_names(pattern, list(by_alias))}"
        )
    return matches


def _chosen_kind(part: Objective, matrix: Matrix) -> Literal["spectrum", "density"]:
    """The spectrum where it takes an eigensolver of moderate size."""
    size = part.num_parameters
    if matrix is Matrix.GGN and size > _LARGEST_EXACT:
        num_outputs = outputs_per_sample(part)
        size = size if num_outputs is None else min(size, part.num_data * num_outputs)
    is_exact = part.dtype == torch.float64 and size <= _LARGEST_EXACT
    return "spectrum" if is_exact else "density"


def _density(part: Objective, matrix: Matrix, num_steps: int, **options: Any) -> Density:
    return density(part, matrix, num_steps=min(num_steps, part.num_parameters), **options)


def _ends(part: Objective, matrix: Matrix, num_pairs: int, **options: Any) -> Eigenpairs:
    """Pairs from both ends, or all of a small matrix; the upper end alone of G."""
    size = part.num_parameters
    num_largest = min(num_pairs, size)
    num_smallest = 0 if matrix is Matrix.GGN else min(num_pairs, size - num_largest)
    return eigenpairs(part, matrix, num_smallest, num_largest, **options)


_COMPUTE: dict[str, Any] = {"spectrum": spectrum, "density": _density, "eigenpairs": _ends}
