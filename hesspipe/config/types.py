"""What the entries of a configuration are made of."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Activation = Literal["relu", "tanh"]
Matrix = Literal["hessian", "ggn", "residual"]
OutlierRule = Literal["gap", "ratio", "elbow"]
Seed = Annotated[int, Field(ge=0)]
Step = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def _without_repeats(entries: list[Any]) -> list[Any]:
    if len({*map(str, entries)}) < len(entries):
        raise ValueError("a list without repeated entries")
    return entries


Distinct = AfterValidator(_without_repeats)


class Section(BaseModel):
    """Part of a configuration: strict types, known keys only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
