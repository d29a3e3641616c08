"""The package as a whole: reading order of its modules, public names, what loading it costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hesspipe

PACKAGE = Path(hesspipe.__file__).parent
# The order in which the modules are read; each imports only from those above it.
READING_ORDER = [
    "named_functions", "config_messages", "config_types", "config_theory", "config_own",
    "config_own_references", "config_references", "config_gallery", "config_readers",
    "config_claims", "config",
    "seeding", "files", "digits", "cifar10", "data", "models", "own_networks", "memory",
    "structures", "batches", "denominators", "evaluations", "flat_model", "differentiability",
    "objective", "finiteness", "curvature", "products", "columns", "linear_layers", "layers",
    "patch_layers", "tangents", "convolutions", "dense", "factors", "gram", "factored", "spectra",
    "processes", "operators", "lanczos", "krylov", "ritz_pairs", "search_state", "pair_search",
    "extreme_pairs", "spectral_density", "norms", "diagonal_blocks", "smoothing", "scores",
    "training", "runs", "saved_states", "extraction", "marchenko_pastur", "spiked_models",
    "tracy_widom", "generalized_law", "law_outliers", "random_matrices", "law_comparison",
    "law_tables", "linear_models", "spiked_samples", "linear_extraction", "matrix_free", "paths",
    "alignment", "barriers", "basins", "outliers", "outlier_table", "tables", "extremes",
    "sharpness",
    "inertia_table", "decomposition", "output_directions", "direction_table",
    "claim_runs", "spectrum_claims", "landscape_claims", "theory_claims", "claims", "pages",
    "figures", "workflow",
]  # fmt: skip
MODULES = sorted(PACKAGE.rglob("*.py"))


def place(path: Path) -> str:
    """First part of a module's name below the package."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, wherever in it but for types alone."""
    names, tree = set(), ast.parse(path.read_text())
    for block in [node for node in ast.walk(tree) if isinstance(node, ast.If)]:
        if "TYPE_CHECKING" in ast.unparse(block.test):
            block.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hesspipe"):
            parts = node.module.split(".")
            names.update(parts[1:2] or {alias.name for alias in node.names})
    return names


def test_reading_order_lists_every_module() -> None:
    found = {place(path) for path in MODULES} - {"__init__"}
    assert found == set(READING_ORDER)


@pytest.mark.parametrize("name", READING_ORDER)
def test_module_imports_only_from_those_above_it(name: str) -> None:
    above = set(READING_ORDER[: READING_ORDER.index(name) + 1])
    for path in MODULES:
        if place(path) == name:
            assert imported(path) <= above, path


def test_public_names_are_the_documented_ones() -> None:
    for name in hesspipe.__all__:
        assert getattr(hesspipe, name).__doc__
    assert set(hesspipe.__all__) <= set(dir(hesspipe))
    with pytest.raises(AttributeError, match="no attribute 'hessian'"):
        _ = hesspipe.hessian


@pytest.mark.parametrize("script", ["render_gaps", "count_outliers", "check_claims"])
def test_script_without_a_network_does_not_load_torch(script: str) -> None:
    program = f"""
import runpy, sys
runpy.run_path("scripts/{script}.py", run_name="loaded")
print("torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=PACKAGE.parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_one_idea_of_at_most_330_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 330


def test_scripts_are_thin_and_named_as_their_function_and_rule() -> None:
    rules = "".join(path.read_text() for path in (PACKAGE.parent / "rules").glob("*.smk"))
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert functions == [path.stem]
        assert f'code("{path.stem}")' in rules
        assert len(path.read_text().splitlines()) <= 45
