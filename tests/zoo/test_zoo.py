"""Networks of real packages: right against plain torch, or refused in one clear message."""

from __future__ import annotations

import doctest
import re
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from zoo.case import Row, ggn_product, hessian_product, package, product
from zoo.rows import SECTIONS

from hesspipe.curvature.matrix import Matrix

PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
ROWS = [row for rows in SECTIONS.values() for row in rows]
ALLOWED = {torch.float64: 1e-12, torch.float32: 1e-4}  # relative; a fault is far above both


@pytest.fixture(autouse=True)
def no_process_group() -> Iterator[None]:
    """End the group of a model that needs one."""
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


def rows(*, refused: bool) -> list[pytest.ParameterSet]:
    chosen = [row for row in ROWS if (row.refusal is not None) == refused]
    return [pytest.param(row, id=row.name) for row in chosen]


def require_packages(row: Row) -> None:
    for name in row.packages:
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install 'hesspipe[zoo]'")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("row", rows(refused=False))
def test_products_are_those_of_plain_double_backward(row: Row) -> None:
    require_packages(row)
    case = row.make()
    objective = case.objective()
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(objective.num_parameters, generator=generator).to(case.dtype)
    references = {Matrix.HESSIAN: hessian_product}
    if case.outputs is not None:
        references[Matrix.GGN] = ggn_product
    for matrix, reference in references.items():
        found, expected = product(objective, matrix, vector), reference(case, vector)
        assert expected.any()
        error = float((found - expected).norm() / expected.norm())
        assert error < ALLOWED[case.dtype], f"the product with the {matrix} differs by {error:.1e}"


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("row", rows(refused=True))
def test_objective_refuses_with_the_reason(row: Row) -> None:
    require_packages(row)
    case = row.make()
    assert row.refusal is not None
    with pytest.raises(ValueError, match=row.refusal):
        case.objective()


def test_zoo_examples_of_the_page_run() -> None:
    for name in ("torchvision", "transformers"):
        if find_spec(name) is None:
            pytest.skip(f"{name} is not installed; pip install 'hesspipe[zoo]'")
        package(name)
    text = re.sub(r"^```.*$", "", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, "zoo", str(PAGE), 0)
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.attempted > 20
    assert results.failed == 0


def test_zoo_has_a_row_in_the_documentation_for_each_model() -> None:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line[:2] == "| "]
    documented = [re.split(r" \| ", line)[0].removeprefix("| ") for line in lines]
    assert [name for name in documented if name != "model"] == [row.name for row in ROWS]


def test_zoo_never_asks_for_more_than_two_lines() -> None:
    assert max(row.num_lines for row in ROWS) <= 2
