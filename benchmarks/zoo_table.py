"""Write docs/zoo.md: real models, and how their products compare with plain torch.

The rows are those that tests/zoo tests. `python benchmarks/zoo_table.py` needs the extra `zoo`.
"""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
import torch.distributed as dist

import hesspipe
from hesspipe.curvature.matrix import Matrix

_REPOSITORY = Path(__file__).parents[1]
sys.path.insert(0, str(_REPOSITORY / "tests"))

from zoo.case import Case, Row, ggn_product, hessian_product, product  # noqa: E402
from zoo.rows import SECTIONS  # noqa: E402

_START = "<!-- made by benchmarks/zoo_table.py -->\n"
_PACKAGES = "torch", "torchvision", "timm", "transformers", "peft", "torch_geometric"
_HEADER = "| model | P | H v | G v | lines | message |\n|---|---|---|---|---|---|\n"


def row_of_table(row: Row) -> str:
    """Evaluate one row: relative errors of its products, or the message that refuses it."""
    if dist.is_initialized():  # for the row before
        dist.destroy_process_group()
    case = row.make()
    try:
        objective = case.objective()
    except ValueError as error:
        if row.refusal is None:
            raise
        message = str(error).splitlines()[0].replace("|", "\\|")
        return f"| {row.name} | | refused | | | {message} |\n"
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(objective.num_parameters, generator=generator).to(case.dtype)
    first = _error(product(objective, Matrix.HESSIAN, vector), hessian_product(case, vector))
    second = _ggn_error(case, objective, vector)
    size = f"{objective.num_parameters:,}"
    return f"| {row.name} | {size} | {first} | {second} | {row.num_lines} | |\n"


def _ggn_error(case: Case, objective: hesspipe.Objective, vector: torch.Tensor) -> str:
    if case.outputs is None:
        return ""
    return _error(product(objective, Matrix.GGN, vector), ggn_product(case, vector))


def _error(found: torch.Tensor, expected: torch.Tensor) -> str:
    return f"{float((found - expected).norm() / expected.norm()):.0e}"


def write_page(path: Path) -> None:
    """Replace the tables of the page, below the mark."""
    text = path.read_text(encoding="utf-8").split(_START)[0] + _START
    versions = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    text += f"\nMeasured with {versions}.\n"
    for section, rows in SECTIONS.items():
        text += f"\n### {section}\n\n{_HEADER}" + "".join(map(row_of_table, rows))
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    write_page(_REPOSITORY / "docs" / "zoo.md")
