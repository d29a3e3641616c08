"""The notebooks run from the top, and their numbers are right."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest
import torch

REPOSITORY = Path(__file__).parents[1]


def docs_module() -> Any:
    """The module of docs/ that runs notebooks."""
    spec = importlib.util.spec_from_file_location("notebooks", REPOSITORY / "docs/notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_own_network_runs_and_its_spectrum_is_that_of_torch() -> None:
    notebooks, names, drawn = docs_module(), dict[str, Any](), 0
    plt.close("all")  # those of other tests
    with torch.random.fork_rng():
        for kind, source in notebooks.cells(REPOSITORY / "examples/own_network.ipynb"):
            if kind == "code":
                drawn += len(notebooks.run_code(source, names)[1])
    assert drawn == 2
    model, loss_fn = names["model"], names["loss_fn"]
    parameters = dict(model.named_parameters())
    theta = torch.cat([value.detach().flatten() for value in parameters.values()])

    def loss(point: torch.Tensor) -> torch.Tensor:
        parts = point.split([value.numel() for value in parameters.values()])
        shaped = {
            name: part.view_as(value)
            for (name, value), part in zip(parameters.items(), parts, strict=True)
        }
        outputs = torch.func.functional_call(model, shaped, names["inputs"])
        result: torch.Tensor = loss_fn(outputs, names["targets"])
        return result

    expected = torch.linalg.eigvalsh(torch.autograd.functional.hessian(loss, theta))
    found = names["spectra"]["hessian"].eigenvalues
    assert float((found - expected).abs().max()) <= 1e-13 * float(expected.abs().max())


@pytest.mark.parametrize(
    "path", sorted(REPOSITORY.glob("examples/*.ipynb")), ids=lambda one: one.stem
)
def test_notebooks_are_kept_without_outputs(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
