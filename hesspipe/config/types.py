"""Types of the values in a configuration, with ranges that exclude slips.

A number beyond its range is a slip of the hand: no machine holds the result, or no disk. What fits
in general and not on this machine is found by `hesspipe.workflow.forecasts`.
"""

from __future__ import annotations

import math
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from hesspipe.curvature.matrix import Matrix
from hesspipe.imports import is_function_name, meant_function

NAME_PATTERN = "[a-z][a-z0-9_]*"
# A path of three names, and what is added to them, stays within the 255 bytes of a file name.
LONGEST_NAME = 100
LARGEST_SEED = 2**63 - 1  # of torch's generators
MOST_STEPS = 10**9  # a year of 30 steps a second
MOST_CHECKPOINTS = 10_000  # of one run, each a file
MOST_RECORDS = 100_000  # rows of one history, which is written anew for each
MOST_SEEDS = 1000
MOST_SAMPLES = 10**9
MOST_UNITS = 10**7  # of a layer: between two of them lie 1e14 parameters
MOST_LAYERS = 1000
MOST_PROBES = 10_000  # the error falls as their root
MOST_LANCZOS_STEPS = 100_000
MOST_PAIRS = 100_000
MOST_PROCESSES = 1_024
MOST_COUNTED = 10**6  # of anything else
MOST_POINTS = 100_000  # of a curve, an axis or a histogram
MOST_PLANE_POINTS = 1000  # along each direction
LARGEST_MAGNITUDE = 1e30  # squares, and sums of them, stay finite in float64
SMALLEST_MAGNITUDE = 1e-30
_LONGEST_FILE_NAME = 255  # bytes, of Linux and macOS
LARGEST_TOLERANCE = 0.1  # of residuals, as a share of the largest eigenvalue

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$", max_length=LONGEST_NAME)]
Activation = Literal["relu", "tanh"]
# Strict types refuse a text where a member is expected; YAML has texts only.
MatrixName = Annotated[Matrix, Field(strict=False)]
Dtype = Literal["float32", "float64"]
Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]
Step = Annotated[int, Field(ge=0, le=MOST_STEPS)]
Count = Annotated[int, Field(ge=1, le=MOST_COUNTED)]
NumSteps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
NumSamples = Annotated[int, Field(ge=1, le=MOST_SAMPLES)]
NumUnits = Annotated[int, Field(ge=1, le=MOST_UNITS)]
NumPairs = Annotated[int, Field(ge=1, le=MOST_PAIRS)]
NumPoints = Annotated[int, Field(ge=2, le=MOST_POINTS)]
Finite = Annotated[float, Field(ge=-LARGEST_MAGNITUDE, le=LARGEST_MAGNITUDE)]
Share = Annotated[float, Field(ge=0, le=1)]


def _not_tiny(value: float) -> float:
    if value < SMALLEST_MAGNITUDE:
        raise ValueError(f"at least {SMALLEST_MAGNITUDE}")
    return value


def _json_like(arguments: dict[str, Any]) -> dict[str, Any]:
    """Refuse what Snakemake's parameters and the headers of files cannot hold."""
    waiting: list[Any] = [arguments]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict) and all(isinstance(key, str) for key in value):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif not isinstance(value, str | bool | int | None) and not (
            isinstance(value, float) and math.isfinite(value)
        ):
            raise ValueError("a mapping of texts, finite numbers, lists and mappings")
    return arguments


def _without_repeats(entries: list[Any]) -> list[Any]:
    if len({*map(str, entries)}) < len(entries):
        raise ValueError("a list without repeated entries")
    return entries


def _of_the_form(name: str) -> str:
    if not is_function_name(name):
        meant = meant_function(name)
        such = f", such as {meant!r}" if meant else ""
        raise ValueError(f"a name of the form package.module:function{such}")
    if any(len(part) > LONGEST_NAME for part in name.replace(":", ".").split(".")):
        raise ValueError(f"a name whose parts have at most {LONGEST_NAME} letters")
    return name


def _nameable(path: str) -> str:
    if any(len(part.encode()) > _LONGEST_FILE_NAME for part in path.split("/")):
        raise ValueError(f"a path whose parts have at most {_LONGEST_FILE_NAME} bytes")
    return path


def _writable(text: str) -> str:
    for character in text:
        if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\t":
            raise ValueError(f"a text without the control character {character!r}")
    return text


def _drawable(label: str) -> str:
    """Refuse mathematical text that matplotlib cannot parse, as it decides line by line."""
    for line in label.split("\n"):
        num_dollars = line.count("$") - line.count(r"\$")
        if num_dollars > 0 and num_dollars % 2 == 0:
            import matplotlib as mpl
            from matplotlib.mathtext import MathTextParser

            try:
                with mpl.rc_context({"mathtext.fontset": "stix"}):  # as in the figures
                    MathTextParser("path").parse(line)
            except Exception as error:  # of pyparsing, of fonts, or of depth
                reason = str(error).strip().split("\n")[-1] or type(error).__name__
                raise ValueError(f"a text that matplotlib can draw ({reason})") from None
    return label


Positive = Annotated[float, Field(gt=0, le=LARGEST_MAGNITUDE), AfterValidator(_not_tiny)]
Tolerance = Annotated[float, Field(gt=0, le=LARGEST_TOLERANCE), AfterValidator(_not_tiny)]
Arguments = Annotated[dict[str, Any], AfterValidator(_json_like)]
Text = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_writable)]
Label = Annotated[Text, AfterValidator(_drawable)]
# Of a file or folder; systems allow 4,096 bytes.
PathName = Annotated[Text, AfterValidator(_nameable)]
Distinct = AfterValidator(_without_repeats)
FunctionName = Annotated[Text, AfterValidator(_of_the_form)]
Names = Annotated[list[str], Field(min_length=1), Distinct]
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=MOST_SEEDS), Distinct]
Steps = Annotated[list[Step], Distinct]
Matrices = Annotated[list[MatrixName], Field(min_length=1), Distinct]


class Section(BaseModel):
    """Part of a configuration: strict types, finite numbers, known keys only."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
