"""The kinds of errors: where they are defined, and what they derive from."""

from __future__ import annotations

import ast
import builtins
import inspect
from pathlib import Path

import pytest

import hesspipe
from hesspipe import errors

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_is_public_and_derives_from_the_base_class(kind: type) -> None:
    assert issubclass(kind, errors.HesspipeError)
    assert getattr(hesspipe, kind.__name__) is kind
    assert kind.__name__ in hesspipe.__all__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_kind_derives_from_the_builtin_that_callers_catch(kind: type) -> None:
    if kind is errors.HesspipeError:
        return
    base = kind.__mro__[2]
    assert getattr(builtins, base.__name__) is base
    assert base is not Exception


def test_no_other_module_defines_a_public_error() -> None:
    package = Path(errors.__file__).parent
    found = {
        node.name
        for path in package.rglob("*.py")
        if path.name != "errors.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert not {name for name in found if not name.startswith("_")}
