"""Which tests execute which line of the package: recorded once, then used for every mutant."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BUDGET = 100.0  # seconds of tests for one mutant, the fastest tests first


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

        Lines that an import executes, such as defaults, get the tests of the function or of the
        module around them. Empty if no test executes the line.
        """
        lines = self.tests.get(path, {})
        names: set[str] = set()
        for first, last in _spans((tree / path).read_text(encoding="utf-8"), line):
            names = set().union(*(lines.get(number, set()) for number in range(first, last + 1)))
            if names or not any(number in lines for number in range(first, last + 1)):
                break
        chosen, total = {}, 0.0
        for name in sorted(names, key=lambda name: self.seconds[name]):
            total += self.seconds[name]
            if chosen and total > _BUDGET:
                break
            chosen[name] = self.seconds[name]
        package, module = Path(path).parts[-2:]
        own = f"tests/{package}/test_{module.removesuffix('.py')}"
        first = {name: chosen[name] for name in chosen if name.startswith((own, path))}
        others = {name: chosen[name] for name in chosen if name not in first}
        return [phase for phase in (first, others) if phase]


def _spans(source: str, line: int) -> list[tuple[int, int]]:
    """The line ranges of the statement at a line, of the function, and of the module."""
    tree = ast.parse(source)
    statements, functions = [], []
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if body else node.end_lineno
            if line <= max(node.lineno, last):
                statements.append((node.lineno, max(node.lineno, last)))
            if isinstance(node, ast.FunctionDef):
                functions.append((body[0].lineno, node.end_lineno))
    shortest = sorted(statements, key=lambda span: span[1] - span[0])[:1]
    inner = sorted(functions, key=lambda span: span[1] - span[0])[:1]
    return [*shortest, *inner, (1, source.count("\n") + 1)]
