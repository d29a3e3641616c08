"""Spectrum of G from the Gram matrix of Jacobians, against loops of double backward."""

from __future__ import annotations

import pytest
import torch
from networks_of_all_kinds import KINDS, Case, initialized, reference, with_loss
from problems import labels, normal
from torch import nn

import hesspipe
from hesspipe.curvature import sampled
from hesspipe.curvature.matrix import Matrix
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.objective.objective import Objective

# With more outputs than parameters, coupled samples, or a loss that is not convex in the outputs.
REFUSED = {
    "batch statistics", "branch", "centered", "curved late", "dictionary of outputs", "graph",
    "ignored positions", "positions as rows", "rarely used layer", "scalar", "segmentation",
    "slope", "tied", "tied, zeros", "time first", "tuple of outputs",
}  # fmt: skip


def jacobian_spectrum(objective: Objective) -> Spectrum | None:
    try:
        return hesspipe.spectrum(objective, "ggn", "jacobians")
    except ValueError as error:
        if "method 'jacobians' needs" not in str(error):
            raise
        return None


def require_close(found: Spectrum, expected: torch.Tensor) -> None:
    right = torch.linalg.eigvalsh(expected)
    error = float((found.eigenvalues - right).abs().max())
    assert error <= found.error_bound
    assert error <= 1e-13 * max(1.0, float(right.abs().max()))


@pytest.mark.parametrize("kind", KINDS)
def test_spectrum_by_jacobians_is_that_of_double_backward(kind: str) -> None:
    case = KINDS[kind]()
    found = jacobian_spectrum(Objective(case.model, case.loss_fn, (case.inputs, case.targets)))
    assert (found is None) == (kind in REFUSED)
    if found is not None:
        assert found.method == "jacobians"
        require_close(found, reference(KINDS[kind]())["ggn"])


@pytest.mark.parametrize("length", [1, 7, 100])
def test_gram_of_jacobians_adds_up_over_blocks_and_batches(
    length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = initialized(
        nn.Sequential(nn.Conv2d(1, 4, 2), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3))
    )
    inputs, targets = normal(5, 1, 3, 3), labels(5, 3)
    batches = [(inputs[:2], targets[:2]), (inputs[2:], targets[2:])]
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    directions = sampled.find_directions(objective, Matrix.GGN)
    expected = sampled.gram_of_jacobians(objective, directions)
    monkeypatch.setattr(sampled, "_SMALLEST_BLOCK", 1)
    monkeypatch.setattr(sampled, "_BLOCK_BYTES", length * 8 * directions.num_columns)
    blocks = list(sampled._blocks(objective, length))
    assert len(blocks) == {1: 71, 7: 12, 100: 1}[length]
    assert sum(entries.stop - entries.start for _, entries in blocks) == objective.num_parameters
    found = sampled.gram_of_jacobians(objective, directions)
    assert (found - expected).abs().max() <= 1e-15 * expected.abs().max() * len(blocks)
    whole = Case(model, inputs, targets, nn.CrossEntropyLoss())
    require_close(hesspipe.spectrum(objective, "ggn", "jacobians"), reference(whole)["ggn"])


def test_spectrum_has_the_weight_decay_of_varied_entries() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 3)

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.head(self.embedding(tokens).tanh().mean(1))
            return output

    data = labels(12, 9).view(4, 3), labels(4, 3)
    objective = Objective(
        initialized(Bag()), nn.CrossEntropyLoss(), data, weight_decay=0.1, parameters=["e*"]
    )
    found = hesspipe.spectrum(objective, "ggn", "jacobians")
    expected = hesspipe.ggn_matrix(objective, "columns")
    require_close(found, expected)
    # 8 rows of the embedding decay, and one is padding; the head is not part of theta.
    assert (found.num_negative, found.num_zero, found.num_positive) == (0, 4, 32)


def test_auto_takes_jacobians_where_they_are_much_fewer_than_parameters() -> None:
    for num_samples, method in ((4, "jacobians"), (40, "columns")):
        model = initialized(nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 3)))
        data = normal(num_samples, 3), labels(num_samples, 3)
        assert hesspipe.spectrum(Objective(model, nn.CrossEntropyLoss(), data), "ggn").method == (
            method
        )


def test_memory_is_refused_before_it_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    case = KINDS["attention"]()
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 500)
    with pytest.raises(hesspipe.TooLargeError, match="from 8 columns, one for each sample and"):
        hesspipe.spectrum(objective, "ggn", "jacobians")


@pytest.mark.parametrize(
    ("loss", "matrix", "message"),
    [
        ("cross-entropy", "hessian", "needs the matrix 'ggn', got 'hessian'"),
        ("correlation", "ggn", "needs independent samples"),
        ("concave", "ggn", "needs a loss that is convex in the outputs"),
    ],
)
def test_jacobians_say_what_they_need(loss: str, matrix: str, message: str) -> None:
    case = with_loss(loss, "tanh")
    objective = Objective(case.model, case.loss_fn, (case.inputs, case.targets))
    with pytest.raises(ValueError, match=message):
        hesspipe.spectrum(objective, matrix, "jacobians")
