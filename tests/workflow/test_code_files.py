"""The file that stands for the code of a script depends on the code alone."""

from __future__ import annotations

import ast
import json
import os
import shutil
from pathlib import Path

import pytest
from small_project import REPOSITORY

from hesspipe.files import digest
from hesspipe.workflow.closure import code_closure
from hesspipe.workflow.code_files import code_file, without_docstrings

# Each with the lines that are left.
DOCSTRINGS = {
    b'"""One."""\nx = 1\n': b"x = 1\n",
    b'"""One.\n\nTwo.\n"""\n\nx = 1\n': b"\nx = 1\n",
    b"# first\n'One.'\nx = 1\n": b"# first\nx = 1\n",
    b'"One."; x = 1\n': b"; x = 1\n",
    b'class A:\n    """One."""\n\n    y = 1\n': b"class A:\n\n    y = 1\n",
    b'def f():\n    """One.\n    """  # kept\n    pass\n': b"def f():\n      # kept\n    pass\n",
    b'async def f():\n    r"""One."""\n    return 1\n': b"async def f():\n    return 1\n",
    b'class A:\n    "One."\n    def f(self): "Two."\n': b"class A:\n    def f(self): \n",
    'def f():\n    """Größe."""\n    return "ß"\n'.encode(): 'def f():\n    return "ß"\n'.encode(),
    b'"""One."""\r\nx = 1\r\n': b"x = 1\r\n",
}
KEPT = [
    b"",
    b"x = 'text'\n",
    b'x = 1\n"""no docstring"""\n',
    b'def f():\n    x = 1\n    "no docstring"\n',
    b'def f():\n    return """text"""\n',
    b'f"""no {docstring}"""\n',
    b'b"""no docstring"""\n',
    b'if x:\n    """no docstring"""\n',
    b"# a comment\nx = 1  # another\n",
]


@pytest.mark.parametrize(("source", "expected"), DOCSTRINGS.items())
def test_without_docstrings_removes_docstrings_and_their_lines(
    source: bytes, expected: bytes
) -> None:
    assert without_docstrings(source, ast.parse(source)) == expected


@pytest.mark.parametrize("source", KEPT)
def test_without_docstrings_keeps_everything_else(source: bytes) -> None:
    assert without_docstrings(source, ast.parse(source)) == source


DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def test_without_docstrings_leaves_the_code_of_modules_as_it_is() -> None:
    for path in sorted((REPOSITORY / "hesspipe/workflow").glob("*.py")):
        tree = ast.parse(path.read_bytes())
        left = without_docstrings(path.read_bytes(), tree)
        for node in ast.walk(tree):
            if isinstance(node, DOCUMENTED):
                if ast.get_docstring(node) is not None:
                    del node.body[0]
                if not node.body and not isinstance(node, ast.Module):
                    break  # nothing but a docstring, as of an error class: no longer Python
        else:
            assert ast.unparse(ast.parse(left)) == ast.unparse(tree), path


def name_after(edit: tuple[str, str], name: str, folder: Path) -> str:
    """Name the code of a script in a copy of the package with one edit."""
    for source in ("hesspipe", "scripts"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(REPOSITORY / source, folder / source, ignore=ignored)
    text = (folder / name).read_text()
    old, new = edit
    assert old in text
    (folder / name).write_text(text.replace(old, new, 1) if old else text + new)
    return code_file("count_outliers", str(folder))


DOCSTRING = '"""', '"""Another text. '
COMMENT = "", "# a comment\n"
CODE = "", "another = 1\n"


@pytest.mark.parametrize(
    ("name", "edit", "is_same"),
    [
        ("hesspipe/outliers.py", DOCSTRING, True),
        ("hesspipe/__init__.py", DOCSTRING, True),
        ("hesspipe/tables/__init__.py", DOCSTRING, True),
        ("scripts/count_outliers.py", DOCSTRING, True),
        ("hesspipe/claims/check.py", CODE, True),
        ("hesspipe/outliers.py", CODE, False),
        ("hesspipe/outliers.py", COMMENT, False),
        ("hesspipe/__init__.py", CODE, False),
        ("scripts/count_outliers.py", CODE, False),
    ],
)
def test_code_file_has_another_name_after_edits_of_code_that_its_script_runs_alone(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    edit: tuple[str, str],
    is_same: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = name_after(("", ""), name, tmp_path / "before")
    assert (name_after(edit, name, tmp_path / "after") == before) is is_same


def test_code_file_lists_what_the_script_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(code_file("render_figure", str(REPOSITORY), "hesspipe.figures.gaps"))
    files = code_closure("scripts/render_figure.py", REPOSITORY, ["hesspipe.figures.gaps"])
    assert list(json.loads(path.read_text())) == files
    assert digest(path)[:16] == path.stem


def test_code_file_is_as_old_as_the_newest_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    edited = tmp_path / "copy"
    name_after(("", ""), "hesspipe/outliers.py", edited)
    shutil.rmtree(".hesspipe")
    for path in edited.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    os.utime(edited / "hesspipe/outliers.py", (2e9, 2e9))
    code_file.cache_clear()
    assert Path(code_file("count_outliers", str(edited))).stat().st_mtime == 2e9
