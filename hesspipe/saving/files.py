"""Results of the library as tables of the pipeline: one Parquet file for each, and back.

A saved spectrum is read by whatever reads the pipeline's: its figures, its tables, and pandas. All
numbers come back to the last bit, equal results are equal bytes, and a file holds numbers and
names only, no code: other than a pickle, it can be read from anyone.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hesspipe.errors import DamagedFileError
from hesspipe.imports import require_packages
from hesspipe.saving.forms import FORMS as FORMS_OF_ONE
from hesspipe.saving.interval_forms import CURVE, DISTRIBUTION, NUMBER, OUTLIERS
from hesspipe.saving.landscape_forms import BARRIER, LINE, PLANE
from hesspipe.saving.layer_forms import LAYERS
from hesspipe.saving.records import plot_records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hesspipe.tables.store import Result

FORMS = {
    **FORMS_OF_ONE,
    "layer_spectra": LAYERS,
    "curves": CURVE,
    "distribution": DISTRIBUTION,
    "number": NUMBER,
    "outliers": OUTLIERS,
    "line": LINE,
    "plane": PLANE,
    "barrier": BARRIER,
}

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
    result : any result of the library, or Result
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
    >>> import tempfile, torch
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

    columns = {key: value for key, value in given.items() if key in table.table.columns}
    labeled = table.table.assign(**columns) if columns and table is not result else table.table
    write_result(replace(table, table=labeled, provenance={**table.provenance, **given}), path)


def load(path: str | Path) -> Any:
    """Load what `save` saved, or a result of the pipeline.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    result of the library, or Result
        On the CPU, equal to the last bit. Its `provenance` has the labels and the versions, too.
        Of the pipeline's results, eigenpairs have no eigenvectors, shape (P, 0), and densities no
        scalar products between probes, so that no count is exact. Tables of other kinds, and those
        that hold several curves or counts, are a `hesspipe.tables.store.Result`, as is that of a
        monitor.

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
        form = FORMS.get(result.kind)
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
    for kind, form in FORMS.items():
        if isinstance(found, form.type):
            table, provenance = form.to_table(found)
            return Result(kind, table, {**_LABELS, **provenance})
    names = ", ".join(name for form in FORMS.values() for name in form.names)
    raise TypeError(f"result must be one of {names}, or a Result, got {type(result).__name__}")


def plot_result(result: Result, ax: Axes | None) -> Axes:
    """Draw a table as the result that it holds; see `Result`.

    Raises
    ------
    TypeError
        If only a figure of the pipeline shows it.
    """
    if result.kind == "monitor":
        return plot_records(result, ax)
    form = FORMS.get(result.kind)
    found = None if form is None else form.from_result(result)
    if found is None or found is result:
        raise TypeError(
            f"a table of kind {result.kind!r} has no plot of its own; use the modules of "
            "hesspipe.figures, which take several tables"
        )
    axes: Axes = found.plot(ax)
    return axes


def _require_suffix(path: str | Path) -> None:
    if not isinstance(path, (str, Path)):
        raise TypeError(f"path must be a str or Path, got {type(path).__name__}")
    if Path(path).suffix != _SUFFIX:
        raise ValueError(f"path must end in {_SUFFIX}, got {str(path)!r}")
