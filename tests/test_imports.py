"""User functions are found by name, or the error says why not, before and during the call."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hesspipe.imports import (
    call_function,
    check_name,
    is_function_name,
    load_function,
    meant_function,
    source_file,
)

SOURCE = """
import math as mathematics
from os import path
if True:
    def inside(): return 1
LIMIT = 3
noted: int = 4
class Model: pass
def build(width, *, depth=1):
    hidden = width
    return width * depth
"""
OWN = {"own_package", "own_single", "failing"}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "own_package/inner").mkdir(parents=True)
    (tmp_path / "own_package/__init__.py").write_text("")
    (tmp_path / "own_package/nets.py").write_text(SOURCE)
    (tmp_path / "own_package/broken.py").write_text("def build(:\n")
    (tmp_path / "own_package/needy.py").write_text("import absent_dependency\ndef build(): 0\n")
    (tmp_path / "own_single.py").write_text("from own_package.nets import build\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] in OWN]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("a:b", True), ("a.b.c:D", True), ("a.b", False), ("a:b.c", False), (":b", False),
        ("a:", False), ("a b:c", False), ("a/b:c", False), ("1a:c", False), ("a..b:c", False),
    ],
)  # fmt: skip
def test_is_function_name_takes_a_module_and_a_function(name: str, is_one: bool) -> None:
    assert is_function_name(name) == is_one


def test_source_file_is_a_module_or_a_package(root: Path) -> None:
    assert source_file("own_package.nets", root) == Path("own_package/nets.py")
    assert source_file("own_package", root) == Path("own_package/__init__.py")
    assert source_file("torch.nn", root) is None


@pytest.mark.parametrize("function", ["build", "Model", "path", "mathematics", "LIMIT", "inside"])
def test_check_name_accepts_what_a_module_defines(root: Path, function: str) -> None:
    assert check_name(f"own_package.nets:{function}", root) is None


def test_check_name_lists_the_functions_of_the_module(root: Path) -> None:
    found = check_name("own_single:bild", root)
    assert found == "must name a function of own_single.py, which has build; got 'own_single:bild'"
    assert "hidden" not in str(check_name("own_package.nets:x", root))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_module:f", "must name a module in this folder or an installed one"),
        ("own_package.absent:f", "must name a module below own_package"),
        ("own_package.broken:f", r"that can be read, got .* \(own_package/broken.py, line 1\)"),
    ],
)
def test_check_name_explains_an_invalid_module(root: Path, name: str, message: str) -> None:
    found = check_name(name, root)
    assert found is not None
    assert re.search(message, found)


def test_check_name_runs_nothing(root: Path) -> None:
    (root / "loud.py").write_text("raise SystemExit('ran')\ndef build(): pass\n")
    assert check_name("loud:build", root) is None


def test_check_name_leaves_installed_packages_to_the_call(root: Path) -> None:
    assert check_name("torch.nn:CrossEntropyLoss", root) is None


def test_call_function_calls_it_with_its_arguments(root: Path) -> None:
    assert call_function("own_package.nets:build", {"width": 3, "depth": 2}, root) == 6
    assert call_function("own_single:build", {"width": 3}, root) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_module:f", "'absent_module:f' must name a module .* there is no absent_module"),
        ("own_package.absent:f", "there is no own_package.absent"),
        ("own_package.nets:bild", "must name a function of own_package.nets.*nearest are build"),
        ("torch.nn:CrossEntropy", "nearest are CrossEntropyLoss"),
        ("own_package.nets:LIMIT", "must name a function of own_package.nets"),
    ],
)
def test_load_function_says_what_is_not_found(root: Path, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_function(name, root)


def test_load_function_leaves_a_missing_dependency_to_its_own_error(root: Path) -> None:
    with pytest.raises(ModuleNotFoundError, match="absent_dependency"):
        load_function("own_package.needy:build", root)


@pytest.mark.parametrize("arguments", [{}, {"width": 1, "height": 2}])
def test_call_function_names_the_arguments_it_takes(root: Path, arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must fit \(width, \*, depth=1\), got \["):
        call_function("own_package.nets:build", arguments, root)


@pytest.mark.parametrize("code", ["raise SystemExit", "def build(): raise SystemExit('no')"])
def test_call_function_refuses_code_that_ends_python(root: Path, code: str) -> None:
    (root / "own_script.py").write_text(f"{code}\n", encoding="utf-8")
    try:
        with pytest.raises(ValueError, match=r"'own_script:build' must not end Python, got Sys"):
            call_function("own_script:build", {}, root)
    finally:
        sys.modules.pop("own_script", None)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("torch.nn.MSELoss", "torch.nn:MSELoss"),
        ("my_network.build", "my_network:build"),
        ("my_network.py:build", "my_network:build"),
        ("./my_network:build", "my_network:build"),
        ("networks/small.py:build", "networks.small:build"),
        ("build", None),
        ("my_network.py", None),
        ("a:b:c", None),
        ("", None),
    ],
)
def test_meant_function_corrects_paths_and_dots(text: str, meant: str | None) -> None:
    assert meant_function(text) == meant


def test_call_function_leaves_errors_of_the_function_alone(root: Path) -> None:
    (root / "failing.py").write_text("def build(): raise TypeError('its own')\n")
    with pytest.raises(TypeError, match="its own"):
        call_function("failing:build", {}, root)
