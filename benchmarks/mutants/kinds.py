"""The small changes of the code that a test should notice: mutants.

Operators of cosmic-ray, one replacement for each operator of the language (its others, such as a
shift in place of a sum, mostly crash, and would raise the score), and the removal of a statement,
which it lacks: a check that is not made, an update that is not applied.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parso
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Operator
from cosmic_ray.plugins import get_operator
from parso.python.tree import Number

_BINARY = ["Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Mul", "Mod_Mul", "Pow_Mul",
           "BitOr_BitAnd", "BitAnd_BitOr"]  # fmt: skip
_COMPARISONS = ["Eq_NotEq", "NotEq_Eq", "Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE",
                "GtE_Gt", "GtE_Lt", "Is_IsNot", "IsNot_Is"]  # fmt: skip
_OTHERS = ["ReplaceUnaryOperator_USub_UAdd", "ReplaceUnaryOperator_Delete_Invert",
           "ReplaceUnaryOperator_Delete_Not", "AddNot", "ReplaceTrueWithFalse",
           "ReplaceFalseWithTrue", "ReplaceAndWithOr", "ReplaceOrWithAnd",
           "ReplaceBreakWithContinue", "ReplaceContinueWithBreak", "ExceptionReplacer",
           "RemoveDecorator", "ZeroIterationForLoop"]  # fmt: skip
_CALLS_THAT_SHOW = ("tqdm", "trange", "warn", "set_postfix", "set_description")
_DECORATORS = ("overload", "dataclass", "property", "staticmethod", "classmethod", "abstractmethod")


class RemoveStatement(Operator):
    """Replaces a call, a `raise` or an augmented assignment by `pass`."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield a place for each change."""
        if node.type != "simple_stmt":
            return
        statement = node.children[0]
        is_update = statement.type == "expr_stmt" and statement.children[1].get_code().strip() in (
            "+=", "-=", "*=", "/=", "|=", "&=",
        )  # fmt: skip
        if statement.type in ("atom_expr", "raise_stmt") or is_update:
            yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        nothing = parso.parse("pass\n").children[0]
        nothing.get_first_leaf().prefix = node.get_first_leaf().prefix  # its indentation
        return nothing

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """Return no example; cosmic-ray's interface asks for them."""
        return ()


class ReplaceNumber(Operator):
    """Moves counts and indices by one, and others, such as tolerances, by a factor of 1000."""

    def mutation_positions(self, node: Any) -> Iterator[Any]:
        """Yield a place for each change."""
        if isinstance(node, Number):
            for _ in range(2):
                yield node.start_pos, node.end_pos

    def mutate(self, node: Any, index: int) -> Any:
        """Return the changed node."""
        value = ast.literal_eval(node.value)
        if value == 0 or (isinstance(value, int) and value < 5):
            changed = value + (1, -1)[index]
        else:
            changed = value * 1000 if index == 0 else type(value)(value / 1000)
        return Number(f" ({changed})" if changed < 0 else f" {changed}", node.start_pos)

    @classmethod
    def examples(cls) -> tuple[Any, ...]:
        """Return no example; cosmic-ray's interface asks for them."""
        return ()


OPERATORS: dict[str, Operator] = {
    **{
        name: get_operator(f"core/{name}")()
        for name in (
            *(f"ReplaceBinaryOperator_{pair}" for pair in _BINARY),
            *(f"ReplaceComparisonOperator_{pair}" for pair in _COMPARISONS),
            *_OTHERS,
        )
    },
    "RemoveStatement": RemoveStatement(),
    "ReplaceNumber": ReplaceNumber(),
}


@dataclass(frozen=True)
class Mutant:
    """One change of one module.

    Attributes
    ----------
    path : str
        Of the module, from the root of the repository.
    operator : str
    occurrence : int
        Number of the place among those of the operator.
    line : int
    name : str
        Digest of the module's code and of the change: a change of the module makes new mutants.
    """

    path: str
    operator: str
    occurrence: int
    line: int
    name: str

    def code(self, source: str) -> str:
        """The code of the module with the change."""
        changed = mutate_code(source, OPERATORS[self.operator], self.occurrence)
        assert changed is not None, self
        return str(changed)


def find_mutants(root: Path, path: str) -> list[Mutant]:
    """List the mutants of a module, without those that only change a message or a type."""
    source = (root / path).read_text(encoding="utf-8")
    tree, found = get_ast(source), []
    for name, operator in OPERATORS.items():
        positions = [
            (node, start)
            for node in ast_nodes(tree)
            for start, _ in operator.mutation_positions(node)
        ]
        for occurrence, (node, start) in enumerate(positions):
            if not _is_skipped(node, start, name):
                key = hashlib.sha256(f"{path} {name} {occurrence} {source}".encode()).hexdigest()
                found.append(Mutant(path, name, occurrence, start[0], key[:16]))
    return found


def _is_skipped(node: Any, start: tuple[int, int], operator: str) -> bool:
    if node.type == "decorator":
        return any(name in node.get_code() for name in _DECORATORS)
    if operator == "AddNot":
        condition = node.children[2 if node.type == "test" else 1]
        if condition.type in ("comparison", "not_test"):
            return True  # the mutants of the comparison say the same
    below = node.get_leaf_for_position(start) if hasattr(node, "children") else node
    if below.type == "operator" and below.parent.type in ("parameters", "param"):
        return True  # the star before keyword-only arguments
    while below.parent is not None and not (operator == "RemoveStatement" and below is node):
        if _only_shows(below.parent, below) or _is_annotation(below.parent, below):
            return True
        below = below.parent
    return False


def _only_shows(above: Any, below: Any) -> bool:
    """Whether the code below only makes a message, a progress bar or an immutable class."""
    if above.type in ("fstring", "raise_stmt", "strings", "decorator"):
        return True
    if above.type == "param":
        return bool(above.name.value == "progress")
    if above.type in ("atom_expr", "power") and below is not above.children[0]:
        called = "".join(child.get_code() for child in above.children[:2]).split("(")[0].strip()
        return called.split(".")[-1] in _CALLS_THAT_SHOW
    return bool(above.type == "if_stmt" and above.children[1].get_code().strip() == "TYPE_CHECKING")


def _is_annotation(above: Any, below: Any) -> bool:
    if above.type == "annassign":
        return below is above.children[1]
    if above.type == "tfpdef":
        return below is above.children[2]
    return bool(above.type == "funcdef" and below is above.annotation)
