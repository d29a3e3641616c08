"""A saved search is resumed for the same problem only, and to the same end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from problems import check_eigenpairs, matrix_with, normal
from torch import Tensor

from hesspipe.errors import NotConvergedError
from hesspipe.files import read_tensors, write_tensors
from hesspipe.linalg.eigenpairs import eigenpairs
from hesspipe.linalg.operator import SymmetricProduct

VALUES = normal(120, seed=5)
MATRIX = matrix_with(VALUES)
OPTIONS: dict[str, Any] = {"num_smallest": 2, "num_largest": 4, "basis_size": 20, "seed": 3}


# As an operator of an objective, which has a name.
NAMED = SymmetricProduct(
    lambda vector: MATRIX @ vector, 120, MATRIX.dtype, MATRIX.device, "hessian"
)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """The state of a search that was stopped."""
    path = tmp_path / "search.safetensors"
    with pytest.raises(NotConvergedError):
        eigenpairs(MATRIX, **OPTIONS, max_products=60, state=path)
    assert path.exists()
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"num_smallest": 1}, {"num_largest": 5}, {"basis_size": 21}, {"seed": 4},
        {"tolerance": 1e-7}, {"num_smallest": 4, "num_largest": 2},
    ],
    ids=str,
)  # fmt: skip
def test_load_refuses_a_search_with_other_settings(state: Path, changes: dict[str, Any]) -> None:
    before = state.read_bytes()
    with pytest.raises(ValueError, match=r"got .*search\.safetensors with other settings"):
        eigenpairs(MATRIX, **OPTIONS | changes, state=state)
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    "operator",
    [MATRIX.float(), NAMED, matrix_with(normal(119, seed=5))],
    ids=["dtype", "name", "size"],
)
def test_load_refuses_a_search_of_another_kind_of_operator(state: Path, operator: Any) -> None:
    options = OPTIONS | ({"tolerance": 1e-5} if operator.dtype == torch.float32 else {})
    with pytest.raises(ValueError, match="with other settings"):
        eigenpairs(operator, **options, state=state)


@pytest.mark.parametrize("change", [1e-9, -1e-9, 1e-3])
def test_load_refuses_an_operator_that_differs_a_little(state: Path, change: float) -> None:
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs((1 + change) * MATRIX, **OPTIONS, state=state)
    other = MATRIX.clone()
    other[3, 7] += change
    other[7, 3] += change
    with pytest.raises(ValueError, match="another operator"):
        eigenpairs(other, **OPTIONS, state=state)


def test_load_accepts_rounding_of_the_same_operator(state: Path) -> None:
    # Another number of threads adds in another order.
    found = eigenpairs((1 + 2e-16) * MATRIX, **OPTIONS, state=state)
    check_eigenpairs(found, MATRIX, VALUES, 1e-8)
    assert not state.exists()


def damage(state: Path, name: str) -> None:
    """Write a state without one of its parts; its seal is right."""
    tensors, metadata = read_tensors(state)
    tensors.pop(name, None)
    metadata.pop(name, None)
    write_tensors(tensors, state, metadata)


def change(name: str, value: Callable[[Tensor], Tensor] | str) -> Callable[[Path], None]:
    """Write a state with another tensor or number; its seal is right."""

    def changed(state: Path) -> None:
        tensors, metadata = read_tensors(state)
        if isinstance(value, str):
            assert metadata[name] != value
            metadata[name] = value
        else:
            tensors[name] = value(tensors[name])
        write_tensors(tensors, state, metadata)

    return changed


def flip(share: float) -> Callable[[Path], None]:
    def flipped(state: Path) -> None:
        content = bytearray(state.read_bytes())
        content[int(share * len(content))] ^= 16
        state.write_bytes(content)

    return flipped


def at(index: Any, value: float) -> Callable[[Tensor], Tensor]:
    def put(tensor: Tensor) -> Tensor:
        changed = tensor.clone()
        changed[index] = value
        return changed

    return put


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda state: state.write_bytes(state.read_bytes()[:-100]),
    "empty": lambda state: state.write_bytes(b""),
    "text": lambda state: state.write_text("not a search"),
    **{f"flipped at {share}": flip(share) for share in (0.0, 0.01, 0.02, 0.3, 0.6, 0.999)},
    **{
        f"without {name}": lambda state, name=name: damage(state, name)
        for name in ("key", "exponent", "num_starts", "image", "vectors", "hidden", "scalars")
    },
    **{
        f"{name}: {value}": change(name, value)
        for name, value in [
            ("size", "3"), ("size", "10000"), ("size", "-1"), ("num_locked", "19"),
            ("num_locked", "-2"), ("num_products", "ten"), ("num_products", "0"),
            ("num_starts", "0"), ("exponent", "x"), ("num_steps", "-1"),
        ]
    },
    "nan in the basis": change("vectors", at((2, 3), float("nan"))),
    "inf in the basis": change("vectors", at((2, 3), float("inf"))),
    "a wrong number in the basis": change("vectors", at((2, 3), 0.5)),
    "a zero vector": change("vectors", at(2, 0.0)),
    "two equal vectors": change("vectors", lambda rows: torch.cat([rows[:1], rows[:-1]])),
    "another order": change("vectors", lambda rows: rows.flip(0)),
    "a wrong next vector": change("vectors", lambda rows: torch.linalg.qr(
        torch.cat([rows[:-1], normal(1, 120, seed=9)]).T).Q.T.contiguous()),
    "a wrong Ritz value": change("projected", at((1, 1), 0.3)),
    "nan in the projection": change("projected", at((0, 1), float("nan"))),
    "a Ritz value twice": change("projected", lambda square: square.flip(0).flip(1)),
    "a scale of nan": change("scalars", at(1, float("nan"))),
    "a scale of zero": change("scalars", at(1, 0.0)),
    "a shorter image": change("image", lambda image: image[:-1]),
    "a shorter bound": change("components", lambda rows: rows[:, :-1]),
    "a square of another size": change("projected", lambda square: square[:-1, :-1]),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_load_puts_a_damaged_state_aside_and_starts_again(
    state: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    DAMAGES[name](state)
    damaged = state.read_bytes()
    expected = eigenpairs(MATRIX, **OPTIONS, state=state.with_name("other.safetensors"))
    found = eigenpairs(MATRIX, **OPTIONS, state=state)
    assert torch.equal(found.eigenvectors, expected.eigenvectors)
    assert torch.equal(found.eigenvalues, expected.eigenvalues)
    assert found.num_products == expected.num_products
    [line] = caplog.messages
    assert str(state) in line
    assert line.endswith(f"is now {state}.damaged; the search starts again")
    assert "\n" not in line
    assert Path(f"{state}.damaged").read_bytes() == damaged
    assert [path.name for path in state.parent.iterdir()] == [f"{state.name}.damaged"]


@pytest.mark.parametrize("name", ["scalars", "start_of_run", "rest"])
def test_load_says_what_a_state_of_another_version_lacks(
    state: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tensors, metadata = read_tensors(state)
    contents: dict[str, Any] = metadata if name in metadata else tensors
    contents[f"old_{name}"] = contents.pop(name)
    write_tensors(tensors, state, metadata)
    eigenpairs(MATRIX, **OPTIONS, state=state)
    [line] = caplog.messages
    assert f"(it lacks '{name}'; another version may have written it)" in line


def test_load_does_not_blame_the_state_for_an_error_of_the_operator(state: Path) -> None:
    num_made = 0

    def failing(vector: Tensor) -> Tensor:
        nonlocal num_made
        num_made += 1
        if num_made == 2:  # in the check of the basis
            raise RuntimeError("out of memory")
        return MATRIX @ vector

    before = state.read_bytes()
    with pytest.raises(RuntimeError, match="out of memory"):
        eigenpairs(
            SymmetricProduct(failing, 120, MATRIX.dtype, MATRIX.device), **OPTIONS, state=state
        )
    assert {path.name: path.read_bytes() for path in state.parent.iterdir()} == {state.name: before}


def test_load_keeps_every_damaged_state(state: Path) -> None:
    contents = {b"first", b"second", b"third"}
    for content in contents:
        state.write_bytes(content)
        eigenpairs(MATRIX, **OPTIONS, state=state)
    assert {path.read_bytes() for path in state.parent.iterdir()} == contents


def test_state_counts_the_product_that_identifies_the_operator(tmp_path: Path) -> None:
    plain = eigenpairs(MATRIX, **OPTIONS)
    saved = eigenpairs(MATRIX, **OPTIONS, state=tmp_path / "search.safetensors")
    assert saved.num_products == plain.num_products + 1
    assert torch.equal(saved.eigenvalues, plain.eigenvalues)
