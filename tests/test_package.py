"""The package as a whole: public names, lazy loading, dependencies."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hesspipe

PACKAGE = Path(hesspipe.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
# Distributions whose modules have another name.
_IMPORTED_AS = {"pyyaml": "yaml", "scikit-learn": "sklearn"}


def _module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def test_public_names_are_the_documented_ones() -> None:
    for name in hesspipe.__all__:
        assert getattr(hesspipe, name).__doc__
        assert name in re.findall(r"\w+", hesspipe.__doc__ or "")
    assert set(hesspipe.__all__) <= set(dir(hesspipe))
    with pytest.raises(AttributeError, match="No hesspipe attribute hessian"):
        _ = hesspipe.hessian


def test_modules_without_a_network_do_not_load_torch() -> None:
    """Figures, tables and checks of the configuration start fast, in many small jobs."""
    paths = [
        *(PACKAGE / "config").glob("*.py"),
        *(PACKAGE / "figures").glob("*.py"),
        *(PACKAGE / "tables").glob("*.py"),
        *(PACKAGE / "claims").glob("*.py"),
    ]
    program = f"""
import importlib, sys
for module in {[_module_name(path) for path in paths]!r}:
    importlib.import_module(module)
    assert "torch" not in sys.modules, module
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_docstring_lists_every_subpackage() -> None:
    listed = re.findall(r"^(\w+)  ", hesspipe.__doc__ or "", flags=re.MULTILINE)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(listed)


def test_library_needs_nothing_of_the_pipeline() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    # Plots need matplotlib; they are imported when the first one is drawn.
    library = [name for name in layers[layers.index("outliers") :] if name != "plots"]
    modules = [
        _module_name(path)
        for path in MODULES
        if path.relative_to(PACKAGE).with_suffix("").parts[0] in library
    ]
    assert "hesspipe.curvature.spectra" in modules
    names = [
        re.split(r"[<>=]", entry)[0]
        for entry in settings["project"]["optional-dependencies"]["workflow"]
    ]
    absent = {_IMPORTED_AS.get(name, name) for name in names}
    program = f"""
import importlib, importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for module in {modules!r}:
    importlib.import_module(module)
import hesspipe
for name in hesspipe.__all__:
    getattr(hesspipe, name)
assert not {absent!r} & {{name.split(".")[0] for name in sys.modules}}
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _lines_of_code(path: Path) -> set[int]:
    """Numbers of the lines that hold code: no blank lines, comments or docstrings."""
    source = path.read_text(encoding="utf-8")
    lines = {
        number
        for number, line in enumerate(source.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#")
    }
    for node in ast.walk(ast.parse(source)):
        is_scope = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if is_scope and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, (docstring.end_lineno or 0) + 1))
    return lines


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_is_one_idea_of_at_most_250_lines_of_code(path: Path) -> None:
    lines = _lines_of_code(path)
    assert len(lines) <= 250
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef):
            size = len(lines & set(range(node.lineno, (node.end_lineno or 0) + 1)))
            assert size <= 40, f"{node.name} has {size} lines of code"


def test_scripts_only_call_and_belong_to_a_rule() -> None:
    rules = "".join(path.read_text() for path in (PACKAGE.parent / "rules").glob("*.smk"))
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        assert f"../scripts/{path.name}" in rules
        kinds = {type(node) for node in ast.parse(path.read_text(encoding="utf-8")).body}
        # A docstring, imports, and the block that Snakemake runs.
        assert kinds <= {ast.Expr, ast.Import, ast.ImportFrom, ast.If}, path.name
        assert len(path.read_text().splitlines()) <= 45
