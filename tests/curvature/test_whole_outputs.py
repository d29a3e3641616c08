"""G by the outputs of whole batches, against J^T S J from `torch.func`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from problems import assert_close, labels, normal
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

import hesspipe
from hesspipe.curvature import sampled, whole_outputs
from hesspipe.linalg.spectrum import Spectrum
from hesspipe.objective.pytrees import join_whole, map_tensors

WIDTH = 20


class Heads(nn.Module):
    """A network with several outputs, as for detection."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Linear(4, WIDTH)
        self.classes, self.boxes = nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return classes and boxes."""
        features = self.body(x).tanh()
        return {"classes": self.classes(features), "boxes": self.boxes(features).exp()}


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 3))


class Kind(NamedTuple):
    """A model, and its loss as a function of (outputs, batch); how many eigenvalues are not 0."""

    model: nn.Module
    loss: Callable[[Any, dict[str, Tensor]], Tensor]
    rank: int
    denominator: Callable[[dict[str, Tensor]], float] = lambda batch: float(len(batch["x"]))
    shape: tuple[int, ...] = (4,)
    is_convex: bool = True


def cross_entropy(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(outputs, batch["y"])


def sequences(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), batch["y"].flatten(), ignore_index=-100)


def detection(outputs: dict[str, Tensor], batch: dict[str, Tensor]) -> Tensor:
    boxes = functional.mse_loss(outputs["boxes"], batch["x"])
    return functional.cross_entropy(outputs["classes"], batch["y"]) + boxes


def pairs(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Every sample is compared with every other."""
    distances = (outputs.unsqueeze(0) - outputs.unsqueeze(1)).square().sum(2)
    return distances.mean() + outputs.square().mean()


def ranking(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Not convex in the outputs."""
    return (outputs - batch["y"].unsqueeze(1)).square().mean().log()


def linear(outputs: Tensor, batch: dict[str, Tensor]) -> Tensor:
    return (outputs[:, 0] * batch["x"][:, 0]).mean()


def valid(batch: dict[str, Tensor]) -> float:
    return float((batch["y"] != -100).sum())


KINDS = {
    "classes": Kind(plain(), cross_entropy, 5 * 2),
    "sequences": Kind(plain(), sequences, 11 * 2, valid, shape=(3, 4)),
    "heads": Kind(Heads(), detection, 5 * (2 + 4)),
    "pairs": Kind(plain(), pairs, 5 * 3),
    "linear": Kind(plain(), linear, 0),
    "not convex": Kind(plain(), ranking, 5 * 3, is_convex=False),
}


def batches_of(kind: Kind) -> list[dict[str, Tensor]]:
    inputs = normal(5, *kind.shape)
    targets = labels(inputs[..., 0].numel(), 3).view(inputs.shape[:-1])
    if targets.ndim > 1:
        targets[0, 1:] = targets[3, :2] = -100
    return [{"x": x, "y": y} for x, y in zip(inputs.split(3), targets.split(3), strict=True)]


def objective_of(kind: Kind, **options: Any) -> hesspipe.Objective:
    return hesspipe.Objective.from_batches(
        kind.model,
        kind.loss,
        batches_of(kind),
        outputs=lambda model, batch: model(batch["x"]),
        denominator=kind.denominator,
        **options,
    )


def reference(kind: Kind) -> Tensor:
    """Compute J^T S J, batch by batch."""
    model = kind.model.double()
    state = {name: value.detach() for name, value in model.named_parameters()}
    theta = torch.cat([value.reshape(-1) for value in state.values()])
    batches = batches_of(kind)
    total = theta.new_zeros(len(theta), len(theta))
    weights = [kind.denominator(batch) for batch in batches]
    for batch, weight in zip(batches, weights, strict=True):

        def outputs(at: Tensor, inputs: Tensor = batch["x"]) -> Any:
            parts = at.split([value.numel() for value in state.values()])
            named = zip(state, parts, state.values(), strict=True)
            return functional_call(
                model, {name: part.view_as(value) for name, part, value in named}, (inputs,)
            )

        vector, layout = join_whole(map_tensors(torch.detach, outputs(theta)))
        jacobian = torch.func.jacrev(lambda at: join_whole(outputs(at))[0])(theta)
        curvature = torch.autograd.functional.hessian(
            lambda at: kind.loss(layout.split(at), batch),  # noqa: B023
            vector,
        )
        total += weight / sum(weights) * jacobian.mT @ curvature @ jacobian
    return total


def require_close(found: Spectrum, expected: Tensor) -> None:
    right = torch.linalg.eigvalsh(expected)
    error = float((found.eigenvalues - right).abs().max())
    assert error <= found.error_bound + 1e-14 * float(right.abs().max())
    assert error <= 1e-12 * max(1e-3, float(right.abs().max()))


@pytest.mark.parametrize("name", KINDS)
def test_ggn_of_whole_batches_is_that_of_all_their_outputs(name: str) -> None:
    kind = KINDS[name]
    objective, expected = objective_of(kind), reference(kind)
    assert_close(hesspipe.ggn_matrix(objective), expected, factor=1000)
    found = hesspipe.spectrum(objective, matrix="ggn")
    require_close(found, expected)
    assert found.method == ("outputs" if kind.is_convex and kind.rank else "columns")
    assert found.num_positive + found.num_negative == kind.rank


def test_ggn_by_outputs_takes_no_product_of_each_column(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["classes"]
    objective = objective_of(kind)
    monkeypatch.setattr("hesspipe.curvature.columns._second_derivative", None)
    assert_close(hesspipe.ggn_matrix(objective), reference(kind), factor=1000)


@pytest.mark.parametrize("length", [50, 1000])
def test_blocks_of_parameters_add_up(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = KINDS["heads"]
    objective = objective_of(kind, weight_decay=1e-2)
    monkeypatch.setattr(sampled, "_SMALLEST_BLOCK", length)
    monkeypatch.setattr(sampled, "_BLOCK_BYTES", 0)
    expected = reference(kind)
    expected.diagonal().add_(1e-2)
    require_close(hesspipe.spectrum(objective, "ggn", "outputs"), expected)


def test_samples_of_little_weight_are_no_rounding_of_the_others() -> None:
    weights = torch.tensor([1e-12, 1e6], dtype=torch.float64)
    objective = hesspipe.Objective.from_batches(
        nn.Linear(2, 2, bias=False),
        lambda outputs, batch: (outputs.square().sum(1) * batch["w"]).sum(),
        [{"x": normal(2, 2), "w": weights}],
        outputs=lambda model, batch: model(batch["x"]),
    )
    factors, signs = whole_outputs.output_factors(objective, objective.batches[0])
    assert signs.tolist() == [1, 1, 1, 1]
    expected = 2 * weights.repeat_interleave(2)
    assert_close(factors.square().sum(0), expected)


def test_curvature_that_does_not_fit_into_memory_is_left_to_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = KINDS["classes"]
    objective = objective_of(kind)

    def refuse(num_bytes: int, what: str, *_: Any, **__: Any) -> None:
        raise hesspipe.TooLargeError(f"{what} needs {num_bytes} bytes")

    monkeypatch.setattr(whole_outputs, "require", refuse)
    with pytest.raises(hesspipe.TooLargeError, match="in 9 outputs of batch 0 needs 1944 bytes"):
        hesspipe.spectrum(objective, "ggn", "outputs")
    assert_close(hesspipe.ggn_matrix(objective), reference(kind), factor=1000)
    assert hesspipe.spectrum(objective, matrix="ggn").method == "columns"


@pytest.mark.parametrize(
    ("name", "matrix", "message"),
    [
        ("classes", "hessian", "needs the matrix 'ggn'"),
        ("not convex", "ggn", "convex in the outputs"),
    ],
)
def test_outputs_say_what_they_need(name: str, matrix: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hesspipe.spectrum(objective_of(KINDS[name]), matrix, "outputs")


def test_outputs_serve_coupled_samples_of_a_plain_objective() -> None:
    kind = KINDS["pairs"]
    data = [(batch["x"], batch["y"]) for batch in batches_of(kind)][:1]

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return pairs(outputs, {"y": targets})

    objective = hesspipe.Objective(kind.model, loss, data)
    assert objective.coupling is not None
    found = hesspipe.spectrum(objective, matrix="ggn")
    assert found.method == "outputs"
    assert found.num_positive == 3 * 3
    columns = hesspipe.curvature.columns._second_derivative(
        objective, hesspipe.curvature.matrix.Matrix.GGN, 8, False
    )
    require_close(found, columns)
