"""Spectra of layers as one table: the tables of the layers' results below each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hesspipe.curvature.layer_spectra import LayerSpectra
from hesspipe.errors import NotConvergedError, TooLargeError
from hesspipe.saving.forms import FORMS, Form

if TYPE_CHECKING:
    import pandas as pd

    from hesspipe.tables.store import Result


def _layers_table(found: LayerSpectra) -> tuple[pd.DataFrame, dict[str, Any]]:
    """A column that the table of a layer does not have is missing in its rows."""
    import pandas as pd

    from hesspipe.tables.schemas import schema_of

    parts, groups = [], {}
    for group, result in found.results.items():
        kind = next(kind for kind, form in FORMS.items() if isinstance(result, form.type))
        table, about = FORMS[kind].to_table(result)
        parts.append(table.astype(object).assign(group=group, result=kind))
        groups[group] = {"kind": kind, **about}
    dtypes = {
        about["eigenvector_dtype"] for about in groups.values() if "eigenvector_dtype" in about
    }
    own: dict[str, Any] = {
        "matrix": str(found.matrix),
        "names": found.names,
        "sizes": found.num_parameters,
        "num_parameters": sum(found.num_parameters.values()),
        "groups": groups,
        "failures": {
            group: [type(error).__name__, str(error)] for group, error in found.failures.items()
        },
        **({"eigenvector_dtype": dtypes.pop()} if dtypes else {}),
    }
    columns = schema_of("layer_spectra", own).names
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return table.reindex(columns=columns), own


def _layers(result: Result) -> LayerSpectra:
    """Failures come back with their messages, without the pairs that had converged."""
    from hesspipe.tables.schemas import schema_of
    from hesspipe.tables.store import Result

    table, about = result.table, result.provenance
    found = {}
    for group, own in about["groups"].items():
        provenance = {key: value for key, value in own.items() if key != "kind"}
        rows = table[table["group"] == group]
        schema = schema_of(own["kind"], provenance)
        part = rows[schema.names].reset_index(drop=True)
        whole = [field.name for field in schema if str(field.type) == "int64"]
        part = part.astype(dict.fromkeys(whole, "int64"))
        found[group] = FORMS[own["kind"]].from_result(Result(own["kind"], part, provenance))
    return LayerSpectra(
        matrix=about["matrix"],
        names=about["names"],
        num_parameters=about["sizes"],
        results=found,
        failures={group: _failure(*each) for group, each in about["failures"].items()},
    )


def _failure(kind: str, message: str) -> NotConvergedError | TooLargeError:
    return TooLargeError(message) if kind == "TooLargeError" else NotConvergedError(message, None)


LAYERS = Form(LayerSpectra, _layers_table, _layers)
