"""Types of the values in a configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from hesspipe.curvature.matrix import Matrix
from hesspipe.imports import is_function_name

NAME_PATTERN = "[a-z][a-z0-9_]*"

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
Activation = Literal["relu", "tanh"]
# Strict types refuse a text where a member is expected; YAML has texts only.
MatrixName = Annotated[Matrix, Field(strict=False)]
Dtype = Literal["float32", "float64"]
Seed = Annotated[int, Field(ge=0)]
Step = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


def _without_repeats(entries: list[Any]) -> list[Any]:
    if len({*map(str, entries)}) < len(entries):
        raise ValueError("a list without repeated entries")
    return entries


def _of_the_form(name: str) -> str:
    if not is_function_name(name):
        raise ValueError("a name of the form package.module:function")
    return name


Distinct = AfterValidator(_without_repeats)
FunctionName = Annotated[str, AfterValidator(_of_the_form)]
Names = Annotated[list[str], Field(min_length=1), Distinct]
Seeds = Annotated[list[Seed], Field(min_length=1), Distinct]
Steps = Annotated[list[Step], Distinct]
Matrices = Annotated[list[MatrixName], Field(min_length=1), Distinct]


class Section(BaseModel):
    """Part of a configuration: strict types, known keys only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
