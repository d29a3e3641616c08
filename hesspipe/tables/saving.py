"""Results of the library as tables of the pipeline: one Parquet file for each, and back.

A saved spectrum is read by whatever reads the pipeline's: its figures, its tables, and pandas. All
numbers come back to the last bit, equal results are equal bytes, and a file holds numbers and
names only, no code: other than a pickle, it can be read from anyone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hesspipe.errors import DamagedFileError
from hesspipe.imports import require_packages
from hesspipe.linalg.density import Density
from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.linalg.trace import Estimate, NormEstimates

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from hesspipe.tables.store import Result

# What the pipeline's readers take from the provenance, of a result that no experiment made.
_LABELS = {"experiment": "unnamed", "seed": 0, "step": 0, "group": "network", "num_classes": None}
_SUFFIX = ".parquet"
_AGAIN = "take it from a backup, or compute it and save it again"


def save(
    result: Any,
    path: str | Path,
    *,
    experiment: str | None = None,
    seed: int | None = None,
    step: int | None = None,
    group: str | None = None,
    num_classes: int | None = None,
) -> None:
    """Save a result to one Parquet file, which the pipeline's figures and tables read.

    The file has the numbers as a table, and in its metadata the provenance (what decided them,
    with the versions of the packages) and its own SHA-256. It has no date: equal results are equal
    bytes. Use this instead of `torch.save`, whose pickles `torch.load` refuses to read without
    running code.

    Parameters
    ----------
    result : Spectrum, Density, Eigenpairs, NormEstimates or Result
        Or an object whose attribute `result` is one, as that of `hesspipe.Monitor`. Eigenvectors
        are saved, too.
    path : str or Path
        Ends in .parquet. An existing file is replaced at once, or kept if something fails.
    experiment : str, optional
        Labels for figures of several results. By default those that the result was loaded with,
        or "unnamed".
    seed, step : int, optional
        Of the training, by default 0.
    group : str, optional
        Of parameters, by default "network".
    num_classes : int, optional
        Needed by figures that mark it.

    Raises
    ------
    TypeError
        If it is not a result.
    ValueError
        If the path has another suffix, or a number is not finite.
    UnwritableFileError
        If the file cannot be written: the path is a folder, or the disk is full.
    ModuleNotFoundError
        If pandas or pyarrow is not installed.

    Examples
    --------
    >>> import tempfile
    >>> from hesspipe import load, spectrum
    >>> found = spectrum(torch.diag(torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)))
    >>> path = Path(tempfile.mkdtemp(), "spectrum.parquet")
    >>> save(found, path, experiment="mine")
    >>> load(path).eigenvalues
    tensor([-1.,  0.,  2.], dtype=torch.float64)
    """
    require_packages("pandas", "pyarrow", purpose="save")
    _require_suffix(path)
    labels = {
        "experiment": experiment, "seed": seed, "step": step, "group": group,
        "num_classes": num_classes,
    }  # fmt: skip
    given = {key: value for key, value in labels.items() if value is not None}
    table = as_result(result)
    from hesspipe.tables.store import write_result

    write_result(replace(table, provenance={**table.provenance, **given}), path)


def load(path: str | Path) -> Any:
    """Load what `save` saved, or a result of the pipeline.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    Spectrum, Density, Eigenpairs, NormEstimates or Result
        On the CPU, equal to the last bit. Its `provenance` has the labels and the versions, too.
        Of the pipeline's results, eigenpairs have no eigenvectors, shape (P, 0), and densities no
        scalar products between probes, so that no count is exact. Tables of other kinds are a
        `hesspipe.tables.store.Result`.

    Raises
    ------
    DamagedFileError
        If the content does not match its SHA-256, or it is not a result of this version.
    FileNotFoundError
        If it does not exist.
    UnreadableFileError
        If it is a folder, or cannot be read.
    ModuleNotFoundError
        If pandas or pyarrow is not installed.
    """
    require_packages("pandas", "pyarrow", purpose="load")
    from hesspipe.tables.store import read_result

    _require_suffix(path)
    try:
        result = read_result(path)
        form = _FORMS.get(result.kind)
        return result if form is None else form.from_result(result)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist; save a result to it first") from None
    except DamagedFileError as error:
        raise DamagedFileError(path, error.reason, _AGAIN) from None
    except (KeyError, TypeError, RuntimeError) as error:  # a provenance that another program wrote
        raise DamagedFileError(path, f"its provenance lacks {error}", _AGAIN) from None


def as_result(result: Any) -> Result:
    """Convert a result of the library to a table with provenance; a table is returned unchanged.

    Raises
    ------
    TypeError
        If it is neither.
    """
    from hesspipe.tables.store import Result

    found = result if isinstance(result, Result) else getattr(result, "result", result)
    if isinstance(found, Result):
        return found
    for kind, form in _FORMS.items():
        if isinstance(found, form.type):
            table, provenance = form.to_table(found)
            return Result(kind, table, {**_LABELS, **provenance})
    names = ", ".join(form.type.__name__ for form in _FORMS.values())
    raise TypeError(f"result must be one of {names}, or a Result, got {type(result).__name__}")


def _require_suffix(path: str | Path) -> None:
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path must be a str or Path, got {type(path).__name__}")
    if Path(path).suffix != _SUFFIX:
        raise ValueError(f"path must end in {_SUFFIX}, got {str(path)!r}")


@dataclass(frozen=True)
class _Form:
    """How results of one class are stored.

    Attributes
    ----------
    type : type
    to_table : callable (result) -> DataFrame, provenance
    from_result : callable (Result) -> result
    """

    type: type
    to_table: Callable[[Any], tuple[pd.DataFrame, dict[str, Any]]]
    from_result: Callable[[Result], Any]


def _spectrum_table(found: Spectrum) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    table = pd.DataFrame(
        {"rank": range(len(found.eigenvalues)), "eigenvalue": found.eigenvalues.numpy()}
    )
    own = _plain_fields(found)
    return table, {**found.provenance, **own, "num_parameters": len(table)}


def _spectrum(result: Result) -> Spectrum:
    about = result.provenance
    names = _names_of_plain_fields(Spectrum)
    eigenvalues = _tensor(result.table.sort_values("rank", kind="stable")["eigenvalue"])
    own = {name: about[name] for name in names}
    return Spectrum(eigenvalues, **own, provenance=_rest(about, names))


def _density_table(found: Density) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    num_probes, num_nodes = found.nodes.shape
    table = pd.DataFrame(
        {
            "probe": np.repeat(np.arange(num_probes), num_nodes),
            "node": found.nodes.flatten().numpy(),
            "weight": found.weights.flatten().numpy(),
            "coupling": found.couplings.flatten().numpy(),
        }
    )
    own = {
        "num_parameters": found.dim,
        "matrix": str(found.matrix),
        "squared_lengths": found.squared_lengths.tolist(),
        "overlaps": found.overlaps.tolist(),
        "num_products": found.num_products,
        "eps": found.eps,
        "asymmetry": found.asymmetry,
    }
    return table, {**found.provenance, **own}


def density_of(result: Result) -> Density:
    """Build a density from its stored table.

    Without the scalar products between the probes, which the pipeline does not store, no count of
    it is exact, and num_products counts the nodes.
    """
    table, about = result.table, result.provenance
    num_probes = table["probe"].nunique()
    ordered = table.sort_values(["probe", "node"], kind="stable")
    nodes, weights, couplings = (
        _tensor(ordered[name]).reshape(num_probes, -1) for name in ("node", "weight", "coupling")
    )
    overlaps = torch.zeros_like(nodes[1:])
    if "overlaps" in about:
        overlaps = torch.tensor(about["overlaps"], dtype=torch.float64).view(overlaps.shape)
    names = ("num_parameters", "matrix", "squared_lengths", "overlaps", "num_products", "eps",
             "asymmetry")  # fmt: skip
    return Density(
        nodes=nodes,
        weights=weights,
        couplings=couplings,
        squared_lengths=torch.tensor(about["squared_lengths"], dtype=torch.float64),
        overlaps=overlaps,
        dim=about["num_parameters"],
        matrix=about["matrix"],
        num_products=about.get("num_products", len(table)),
        eps=about["eps"],
        asymmetry=about["asymmetry"],
        provenance=_rest(about, names),
    )


def _eigenpairs_table(found: Eigenpairs) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    size, num_vectors = found.eigenvectors.shape
    table = pd.DataFrame(
        {
            "end": pd.Series(
                ["smallest"] * found.num_smallest + ["largest"] * found.num_largest, dtype=object
            ),
            "rank": np.array(
                [*range(found.num_smallest), *range(size - found.num_largest, size)], dtype=np.int64
            ),
            "eigenvalue": found.eigenvalues.numpy(),
            "residual_norm": found.residual_norms.numpy(),
        }
    )
    own = {
        "num_parameters": size,
        "matrix": str(found.matrix),
        "num_products": found.num_products,
    }
    if num_vectors == len(table):
        rows = found.eigenvectors.detach().cpu().T.contiguous().numpy()  # (k, P)
        table["eigenvector"] = pd.Series(list(rows), dtype=object)
        own["eigenvector_dtype"] = str(rows.dtype)
    return table, {**found.provenance, **own}


def _eigenpairs(result: Result) -> Eigenpairs:
    table, about = result.table, result.provenance
    vectors = torch.zeros(about["num_parameters"], 0, dtype=torch.float64)
    if "eigenvector" in table:
        rows = np.zeros((len(table), about["num_parameters"]), about["eigenvector_dtype"])
        for row, vector in zip(rows, table["eigenvector"], strict=True):
            row[:] = vector
        vectors = torch.from_numpy(rows).T
    num_smallest = int((table["end"] == "smallest").sum())
    names = ("num_parameters", "matrix", "num_products", "eigenvector_dtype")
    return Eigenpairs(
        eigenvalues=_tensor(table["eigenvalue"]),
        eigenvectors=vectors,
        residual_norms=_tensor(table["residual_norm"]),
        num_products=about["num_products"],
        matrix=about["matrix"],
        num_smallest=num_smallest,
        num_largest=len(table) - num_smallest,
        provenance=_rest(about, names),
    )


def _norms_table(found: NormEstimates) -> tuple[pd.DataFrame, dict[str, Any]]:
    import pandas as pd

    estimates = {"trace": found.trace, "squares": found.squares}
    table = pd.DataFrame(
        {
            "quantity": list(estimates),
            "value": [each.value for each in estimates.values()],
            "standard_error": [each.standard_error for each in estimates.values()],
        }
    )
    own = {
        "unit": found.unit,
        "num_products": found.num_products,
        "matrix": str(found.matrix),
        "num_parameters": found.dim,
    }
    return table, {**found.provenance, **own}


def _norms(result: Result) -> NormEstimates:
    about, table = result.provenance, result.table
    estimates = {
        quantity: Estimate(value, error)
        for quantity, value, error in zip(
            table["quantity"],
            table["value"].tolist(),
            table["standard_error"].tolist(),
            strict=True,
        )
    }
    return NormEstimates(
        trace=estimates["trace"],
        squares=estimates["squares"],
        unit=about["unit"],
        num_products=about["num_products"],
        matrix=about["matrix"],
        dim=about["num_parameters"],
        provenance=_rest(about, ("unit", "num_products", "matrix", "num_parameters")),
    )


def _rest(provenance: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key not in names}


def _tensor(column: pd.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(dtype="float64", copy=True))


def _names_of_plain_fields(kind: type) -> tuple[str, ...]:
    """Names of the fields that are numbers and texts."""
    return tuple(each.name for each in fields(kind) if each.type in ("int", "float", "str"))


def _plain_fields(found: Any) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in _names_of_plain_fields(type(found))}
    # A name may be a member of an enumeration.
    return {key: str(each) if isinstance(each, str) else each for key, each in values.items()}


_FORMS = {
    "spectrum": _Form(Spectrum, _spectrum_table, _spectrum),
    "density": _Form(Density, _density_table, density_of),
    "eigenpairs": _Form(Eigenpairs, _eigenpairs_table, _eigenpairs),
    "norms": _Form(NormEstimates, _norms_table, _norms),
}
