"""Results of the library as tables with provenance, and tables as results.

Each class has a kind of table. All numbers are kept to the last bit: those that are no column are
part of the provenance, as JSON, which writes floating-point numbers so that they are read as they
were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.linalg.spectral_density import Density
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.linalg.trace import Estimate, NormEstimates

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from hesspipe.tables.store import Result


@dataclass(frozen=True)
class Form:
    """How results of one class are stored.

    Attributes
    ----------
    type : type, or tuple of types
    to_table : callable (result) -> DataFrame, provenance
    from_result : callable (Result) -> result
    """

    type: type | tuple[type, ...]
    to_table: Callable[[Any], tuple[pd.DataFrame, dict[str, Any]]]
    from_result: Callable[[Result], Any]

    @property
    def names(self) -> list[str]:
        """Names of the classes."""
        types = self.type if isinstance(self.type, tuple) else (self.type,)
        return [each.__name__ for each in types]


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
    eigenvalues = tensor(result.table.sort_values("rank", kind="stable")["eigenvalue"])
    own = {name: about[name] for name in names}
    return Spectrum(eigenvalues, **own, provenance=rest(about, names))


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
        tensor(ordered[name]).reshape(num_probes, -1) for name in ("node", "weight", "coupling")
    )
    overlaps = torch.zeros_like(nodes[1:])
    if "overlaps" in about:
        overlaps = torch.tensor(about["overlaps"], dtype=torch.float64, device="cpu").view(
            overlaps.shape
        )
    names = ("num_parameters", "matrix", "squared_lengths", "overlaps", "num_products", "eps",
             "asymmetry")  # fmt: skip
    return Density(
        nodes=nodes,
        weights=weights,
        couplings=couplings,
        squared_lengths=torch.tensor(about["squared_lengths"], dtype=torch.float64, device="cpu"),
        overlaps=overlaps,
        dim=about["num_parameters"],
        matrix=about["matrix"],
        num_products=about.get("num_products", len(table)),
        eps=about["eps"],
        asymmetry=about["asymmetry"],
        provenance=rest(about, names),
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
    vectors = torch.zeros(about["num_parameters"], 0, dtype=torch.float64, device="cpu")
    if "eigenvector" in table:
        rows = np.zeros((len(table), about["num_parameters"]), about["eigenvector_dtype"])
        for row, vector in zip(rows, table["eigenvector"], strict=True):
            row[:] = vector
        vectors = torch.from_numpy(rows).T
    num_smallest = int((table["end"] == "smallest").sum())
    names = ("num_parameters", "matrix", "num_products", "eigenvector_dtype")
    return Eigenpairs(
        eigenvalues=tensor(table["eigenvalue"]),
        eigenvectors=vectors,
        residual_norms=tensor(table["residual_norm"]),
        num_products=about["num_products"],
        matrix=about["matrix"],
        num_smallest=num_smallest,
        num_largest=len(table) - num_smallest,
        provenance=rest(about, names),
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
        provenance=rest(about, ("unit", "num_products", "matrix", "num_parameters")),
    )


def rest(provenance: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Return a provenance without what has become part of a result."""
    return {key: value for key, value in provenance.items() if key not in names}


def tensor(column: pd.Series) -> Tensor:
    """Copy a column of numbers (n,) in float64."""
    return torch.from_numpy(column.to_numpy(dtype="float64", copy=True))


def _names_of_plain_fields(kind: type) -> tuple[str, ...]:
    """Names of the fields that are numbers and texts."""
    return tuple(each.name for each in fields(kind) if each.type in ("int", "float", "str"))


def _plain_fields(found: Any) -> dict[str, Any]:
    values = {name: getattr(found, name) for name in _names_of_plain_fields(type(found))}
    # A name may be a member of an enumeration.
    return {key: str(each) if isinstance(each, str) else each for key, each in values.items()}


FORMS = {
    "spectrum": Form(Spectrum, _spectrum_table, _spectrum),
    "density": Form(Density, _density_table, density_of),
    "eigenpairs": Form(Eigenpairs, _eigenpairs_table, _eigenpairs),
    "norms": Form(NormEstimates, _norms_table, _norms),
}
