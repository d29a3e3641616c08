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


def test_public_names_are_the_documented_ones() -> None:
    for name in hesspipe.__all__:
        assert getattr(hesspipe, name).__doc__
        assert name in re.findall(r"\w+", hesspipe.__doc__ or "")
    assert set(hesspipe.__all__) <= set(dir(hesspipe))
    with pytest.raises(AttributeError, match="No hesspipe attribute hessian"):
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


def test_docstring_lists_every_subpackage() -> None:
    listed = re.findall(r"^(\w+)  ", hesspipe.__doc__ or "", flags=re.MULTILINE)
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} <= set(listed)


def test_library_needs_nothing_of_the_pipeline() -> None:
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8"))
    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    library = layers[layers.index("outliers") :]
    modules = [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
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


def test_scripts_are_thin_and_named_as_their_function_and_rule() -> None:
    rules = "".join(path.read_text() for path in (PACKAGE.parent / "rules").glob("*.smk"))
    for path in (PACKAGE.parent / "scripts").glob("*.py"):
        tree = ast.parse(path.read_text())
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        assert functions == [path.stem]
        assert f'code("{path.stem}")' in rules
        assert len(path.read_text().splitlines()) <= 45
