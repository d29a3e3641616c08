"""Which tests execute which line of the package: recorded once, then used for every mutant."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BUDGET = 60.0  # seconds of tests for one mutant, the fastest tests first


@dataclass(frozen=True)
class Coverage:
    """The tests of each line.

    Attributes
    ----------
    seconds : mapping of str to float
        Duration of each test function, by its name for pytest.
    tests : mapping of str to mapping of int to set of str
        Test functions that execute a line of a module.
    """

    seconds: Mapping[str, float]
    tests: Mapping[str, Mapping[int, set[str]]]

    @classmethod
    def of(cls, records: Iterable[Mapping[str, Any]]) -> Coverage:
        """Join what the processes recorded; lines of imports belong to no test."""
        seconds: dict[str, float] = {}
        tests: dict[str, dict[int, set[str]]] = {}
        for record in records:
            seconds |= record["seconds"]
            for name, modules in record["lines"].items():
                for module, lines in modules.items():
                    for line in lines:
                        found = tests.setdefault(module, {}).setdefault(line, set())
                        found |= {name} - {""}
        return cls(seconds, tests)

    def phases(self, path: str, line: int, tree: Path) -> list[dict[str, float]]:
        """The tests for a mutant at a line: those of its module first, then the others.

        Lines that no test executes in its own process get the tests of the module. Empty if there
        are none.
        """
        executed = self.tests.get(path, {})
        names: set[str] = set()
        for lines in _lines((tree / path).read_text(encoding="utf-8"), line):
            names = set().union(*(executed.get(number, set()) for number in lines))
            if names or not any(number in executed for number in lines):
                break
        package, module = Path(path).parts[-2:]
        own = f"tests/{package}/test_{module.removesuffix('.py')}"
        names = names or {name for name in self.seconds if name.startswith(own)}
        chosen, total = {}, 0.0
        for name in sorted(names, key=lambda name: self.seconds[name]):
            total += self.seconds[name]
            if chosen and total > _BUDGET:
                break
            chosen[name] = self.seconds[name]
        first = {name: chosen[name] for name in chosen if name.startswith((own, path))}
        others = {name: chosen[name] for name in chosen if name not in first}
        return [phase for phase in (first, others) if phase]


def _lines(source: str, line: int) -> list[set[int]]:
    """The lines whose tests may notice a change at a line, from few to all of the module.

    What an import executes belongs to whichever test imports first. A constant gets the lines that
    use it, and a default, or what else stands in the head of a function, gets its body.
    """
    tree = ast.parse(source)
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    used = [
        node.lineno
        for statement in around
        if isinstance(statement, ast.Assign | ast.AnnAssign)
        for target in ast.walk(statement)
        if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store)
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == target.id and isinstance(node.ctx, ast.Load)
    ]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    whole = set(range(1, source.count("\n") + 2))
    inner = _body(functions, line)
    if not inner:
        return [set().union(*(_body(functions, number) for number in used)) or whole, whole]
    if line not in inner:
        return [inner, whole]
    heads = [_head(node) for node in around if line in _head(node)]  # none at `except` or `else`
    shortest = min(heads, key=len, default=inner)
    return [shortest, inner, whole]


def _head(node: ast.stmt) -> set[int]:
    """The lines of a statement without the statements inside it."""
    body = getattr(node, "body", None)
    last = body[0].lineno - 1 if body else node.end_lineno or node.lineno
    return set(range(node.lineno, max(node.lineno, last) + 1))


def _body(functions: list[ast.FunctionDef], line: int) -> set[int]:
    """The lines in the body of the innermost function around a line."""
    bodies = [
        set(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
        for node in functions
        if node.lineno <= line <= (node.end_lineno or 0)
    ]
    return min(bodies, key=len, default=set())
