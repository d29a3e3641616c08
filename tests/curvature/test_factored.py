"""Spectra from factors of the matrix, against those of the matrix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from problems import EPS, labels, network, normal
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

import hesspipe
from hesspipe.curvature import columns, factored, linear
from hesspipe.curvature.compression import Compression
from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.exact_spectra import SpectrumMethod
from hesspipe.errors import InconsistentMatrixError, TooLargeError
from hesspipe.objective.objective import Objective

MATRICES = ["hessian", "ggn", "residual"]


def assert_spectrum_is_that_of_the_matrix(objective: Objective, matrix: str) -> None:
    values = getattr(hesspipe, f"{matrix}_matrix")(objective, "columns")
    expected = torch.linalg.eigvalsh(values)
    found = hesspipe.spectrum(objective, matrix, "factored")
    assert found.method == "factored"
    # All P of them, zeros included.
    assert (found.eigenvalues - expected).abs().max() <= 50 * EPS * expected.abs().max()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    "widths", [[8, 4, 3], [8, 1, 2], [12, 6, 4], [30, 4, 7], [9, 5, 4, 3], [4, 3, 12, 3],
     [6, 3, 3, 3, 2]],
)  # fmt: skip
@pytest.mark.parametrize("num_samples", [1, 12])
def test_spectrum_equals_that_of_the_matrix(
    matrix: str, widths: list[int], num_samples: int
) -> None:
    data = normal(num_samples, widths[0]), labels(num_samples, widths[-1])
    objective = Objective(network(widths), nn.CrossEntropyLoss(), data)
    assert_spectrum_is_that_of_the_matrix(objective, matrix)


def with_zero_inputs(inputs: Tensor) -> Tensor:
    return inputs * (torch.arange(inputs.shape[1]) % 3 > 0)


def with_duplicates(inputs: Tensor) -> Tensor:
    return inputs[torch.arange(len(inputs)) // 2]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("change", [with_zero_inputs, with_duplicates, torch.zeros_like])
def test_degenerate_inputs_change_nothing(matrix: str, change: Callable[[Tensor], Tensor]) -> None:
    data = change(normal(8, 9)), labels(8, 3)
    objective = Objective(network([9, 5, 3]), nn.CrossEntropyLoss(), data)
    assert_spectrum_is_that_of_the_matrix(objective, matrix)


@pytest.mark.parametrize("matrix", MATRICES)
def test_dead_units_change_nothing(matrix: str) -> None:
    model = network([9, 5, 4, 3])
    with torch.no_grad():
        model[1].bias[1:3] = -100.0
        model[3].bias[0] = -100.0
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(8, 9), labels(8, 3)))
    assert_spectrum_is_that_of_the_matrix(objective, matrix)


@pytest.mark.parametrize("matrix", MATRICES)
def test_batches_class_weights_and_layers_without_bias_change_nothing(matrix: str) -> None:
    model = nn.Sequential(nn.Linear(9, 5, bias=False), nn.LeakyReLU(), nn.Linear(5, 3)).double()
    loss_fn = nn.CrossEntropyLoss(weight=torch.tensor([0.2, 1.0, 3.0]))
    batches = zip(normal(8, 9).split([3, 3, 2]), labels(8, 3).split([3, 3, 2]), strict=True)
    assert_spectrum_is_that_of_the_matrix(Objective(model, loss_fn, batches), matrix)


@pytest.mark.parametrize("matrix", MATRICES)
def test_confident_network_is_solved_to_its_own_rounding(matrix: str) -> None:
    inputs = normal(12, 40)
    model = network([40, 15, 3])
    with torch.no_grad():
        model[3].weight *= 1e3
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, model(inputs).argmax(1)))
    assert objective.loss(objective.theta) < 1e-3
    found = hesspipe.spectrum(objective, matrix, "factored")
    values = getattr(hesspipe, f"{matrix}_matrix")(objective, "columns")
    expected = torch.linalg.eigvalsh(values)
    difference = (found.eigenvalues - expected).abs().max()
    assert difference <= 50 * EPS * expected.abs().max() + 10 * found.tolerance


def test_regression_has_factors_too() -> None:
    objective = Objective(network([9, 5, 3]), nn.MSELoss(), (normal(6, 9), normal(6, 3, seed=4)))
    for matrix in MATRICES:
        assert_spectrum_is_that_of_the_matrix(objective, matrix)


def test_linear_network_has_no_residual() -> None:
    objective = Objective(network([9, 3]), nn.CrossEntropyLoss(), (normal(6, 9), labels(6, 3)))
    found = hesspipe.spectrum(objective, "residual", "factored")
    assert (found.eigenvalues == 0).all()
    assert found.num_zero == objective.num_parameters


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_spectrum_scales_with_the_loss(scale: float) -> None:
    data = normal(8, 9), labels(8, 3)
    unit = Objective(network([9, 5, 3]), nn.CrossEntropyLoss(), data)
    scaled = Objective(
        unit.model,
        lambda outputs, targets: scale * nn.functional.cross_entropy(outputs, targets),
        data,
    )
    expected = hesspipe.spectrum(unit, "hessian", "factored")
    found = hesspipe.spectrum(scaled, "hessian", "factored")
    difference = found.eigenvalues / scale - expected.eigenvalues
    assert difference.abs().max() <= 50 * EPS * expected.eigenvalues.abs().max()
    assert (found.num_negative, found.num_zero) == (expected.num_negative, expected.num_zero)


def test_memory_budget_does_not_change_the_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    data = normal(8, 9), labels(8, 3)
    objective = Objective(network([9, 5, 4, 3]), nn.CrossEntropyLoss(), data)
    monkeypatch.setattr(linear, "_SAMPLE_BYTES", 1)
    assert_spectrum_is_that_of_the_matrix(objective, "hessian")


@pytest.mark.parametrize("hidden", [2, 5, 9])
def test_one_hidden_layer_has_at_most_h_times_c_minus_1_negative_eigenvalues(hidden: int) -> None:
    # R is the direct sum over units of [[0, B^T], [B, 0]] with B of rank C - 1.
    data = normal(60, 20), labels(60, 4)
    objective = Objective(network([20, hidden, 4]), nn.CrossEntropyLoss(), data)
    residual = hesspipe.spectrum(objective, "residual", "factored")
    hessian = hesspipe.spectrum(objective, "hessian", "factored")
    assert residual.num_negative == residual.num_positive == hidden * (4 - 1)
    assert 0 < hessian.num_negative <= hidden * (4 - 1)


def test_auto_uses_the_cheaper_method() -> None:
    few, many = ((normal(n, 40), labels(n, 3)) for n in (10, 300))
    model = network([40, 6, 3])
    assert hesspipe.spectrum(Objective(model, nn.CrossEntropyLoss(), few)).method == "factored"
    assert hesspipe.spectrum(Objective(model, nn.CrossEntropyLoss(), many)).method == "layers"


def test_inputs_that_are_zero_in_every_sample_do_not_count_as_rows() -> None:
    inputs = normal(30, 400)
    inputs[:, 5:] = 0
    objective = Objective(network([400, 6, 3]), nn.CrossEntropyLoss(), (inputs, labels(30, 3)))
    assert hesspipe.spectrum(objective).method == "layers"


@pytest.mark.parametrize("activation", ["tanh"])
def test_smooth_network_has_factors_for_its_ggn_alone(activation: str) -> None:
    objective = Objective(
        network([9, 5, 3], activation), nn.CrossEntropyLoss(), (normal(6, 9), labels(6, 3))
    )
    assert_spectrum_is_that_of_the_matrix(objective, "ggn")
    for matrix in ("hessian", "residual"):
        with pytest.raises(ValueError, match="needs a network of Linear layers, piecewise linear"):
            hesspipe.spectrum(objective, matrix, "factored")
        assert hesspipe.spectrum(objective, matrix).method == "layers"


def concave(outputs: Tensor, _: Tensor) -> Tensor:
    return -outputs.square().sum(1).mean()


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.mse_loss(outputs.softmax(1), nn.functional.one_hot(targets, 3).double())


def robust(outputs: Tensor, _: Tensor) -> Tensor:
    return torch.log1p(10 * outputs.square()).sum(1).mean()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("loss_fn", [concave, brier, robust])
def test_loss_that_is_not_convex_has_factors_with_signs(
    matrix: str, loss_fn: Callable[[Tensor, Tensor], Tensor]
) -> None:
    objective = Objective(network([9, 5, 4, 3]), loss_fn, (normal(6, 9), labels(6, 3)))
    assert hesspipe.spectrum(objective, "ggn", "factored").num_negative > 0
    assert_spectrum_is_that_of_the_matrix(objective, matrix)


@pytest.mark.parametrize(
    ("place", "size"),
    [((0, 0), 1e-9), ((-1, 0), 1e-9), ((-1, 20), 1e-9), ((-1, 0), 1e-6), ((0, 0), 0.1)],
)
@pytest.mark.parametrize("matrix", MATRICES)
def test_wrong_matrix_is_noticed(
    matrix: str, place: tuple[int, int], size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = normal(8, 40), labels(8, 3)
    objective = Objective(network([40, 5, 4, 3]), nn.CrossEntropyLoss(), data)
    compute, compress = factored.gram_matrix, factored.compress

    def wrong_gram(*arguments: Any) -> Tensor:
        gram = compute(*arguments)
        gram[place[0] % 16, place[1] % 16] += size * gram.norm()
        return gram

    def wrong_compression(*arguments: Any) -> Compression:
        found = compress(*arguments)
        found.values[place] += size * found.values.norm()
        return found

    monkeypatch.setattr(factored, "gram_matrix", wrong_gram)
    monkeypatch.setattr(factored, "compress", wrong_compression)
    with pytest.raises(InconsistentMatrixError, match="disagrees with a product computed without"):
        hesspipe.spectrum(objective, matrix, "factored")


def test_gram_matrix_too_large_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = Objective(
        network([40, 6, 3]), nn.CrossEntropyLoss(), (normal(10, 40), labels(10, 3))
    )
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 1000)
    with pytest.raises(TooLargeError, match=r"the spectrum of the hessian from \d+ columns needs"):
        hesspipe.spectrum(objective, method="factored")


def test_automatic_method_states_the_smallest_need_if_no_method_fits_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objective = Objective(
        network([40, 6, 3]), nn.CrossEntropyLoss(), (normal(10, 40), labels(10, 3))
    )
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 1000)
    with pytest.raises(TooLargeError, match=r"the spectrum of the hessian from \d+ columns needs"):
        hesspipe.spectrum(objective)


def test_factors_too_large_for_memory_give_way_to_the_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_large(*_: Any, **__: Any) -> Any:
        raise TooLargeError("the factors need more memory")

    objective = Objective(
        network([40, 6, 3]), nn.CrossEntropyLoss(), (normal(10, 40), labels(10, 3))
    )
    expected = hesspipe.spectrum(objective)
    monkeypatch.setattr("hesspipe.curvature.exact_spectra.factored_spectrum", too_large)
    found = hesspipe.spectrum(objective)
    assert found.method == "layers"
    error = float((found.eigenvalues - expected.eigenvalues).abs().max())
    assert error <= found.error_bound + expected.error_bound


def test_largest_eigenvalues_are_those_of_a_matrix_free_solver() -> None:
    data = normal(20, 300), labels(20, 6)
    objective = Objective(network([300, 12, 8, 6], std=0.2), nn.CrossEntropyLoss(), data)
    size = objective.num_parameters

    def multiply(vector: np.ndarray) -> np.ndarray:
        product = columns.multiply(objective, "hessian", torch.from_numpy(vector).view(1, -1))
        return product[0].numpy()

    operator = LinearOperator((size, size), matvec=multiply, dtype=np.float64)
    start = normal(size).numpy()
    found = hesspipe.spectrum(objective)
    assert found.method == "factored"
    for which, part in (("LA", slice(-3, None)), ("SA", slice(3))):
        expected = eigsh(operator, 3, which=which, v0=start, return_eigenvectors=False)
        assert np.abs(np.sort(expected) - found.eigenvalues[part].numpy()).max() < 1e-10


@pytest.mark.parametrize("name", ["dead last unit", "zero weights", "zero inputs"])
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("method", ["auto", "factored"])
def test_matrix_of_zeros_has_only_zeros(name: str, matrix: str, method: SpectrumMethod) -> None:
    inputs, targets = normal(7, 6), torch.zeros(7, 3, dtype=torch.float64)
    layers = [nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 3, bias=False)]
    if name == "dead last unit":
        layers = [nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU()]
        nn.init.constant_(layers[2].bias, -1e3)
    elif name == "zero weights":
        for layer in (layers[0], layers[2]):
            nn.init.zeros_(layer.weight)
    else:
        inputs = torch.zeros_like(inputs)
    objective = Objective(nn.Sequential(*layers).double(), nn.MSELoss(), (inputs, targets))
    found = hesspipe.spectrum(objective, matrix, method)
    assert (found.eigenvalues == 0).all()
    assert (found.num_negative, found.num_positive) == (0, 0)
    assert found.error_bound == 0
    assert found.certificate.startswith("LDL^T")


@dataclass(frozen=True)
class Shape:
    """A random deep network and its data, drawn from a seed."""

    widths: list[int]
    model: nn.Sequential
    inputs: Tensor
    rank: int  # of the inputs
    labels: Tensor

    @classmethod
    def draw(cls, seed: int, activation: type[nn.Module], *, is_biased: bool) -> Shape:
        generator = torch.Generator().manual_seed(seed)

        def between(low: int, high: int) -> int:
            return int(torch.randint(low, high + 1, (), generator=generator))

        num_inputs, num_samples, num_outputs = between(8, 24), between(6, 20), between(2, 5)
        hidden = [between(3, 9) for _ in range(between(2, 4))]
        widths = [num_inputs, *hidden, num_outputs]
        rank = min(between(2, num_inputs), num_samples)
        modules: list[nn.Module] = []
        for entering, leaving in pairwise(widths):
            layer = nn.Linear(entering, leaving, bias=is_biased).double()
            for parameter in layer.parameters():
                std = entering**-0.5 if parameter.ndim == 2 else 0.1
                nn.init.normal_(parameter, std=std, generator=generator)
            modules += [layer, activation()]
        factors = [
            torch.randn(*shape, generator=generator, dtype=torch.float64)
            for shape in ((num_samples, rank), (rank, num_inputs))
        ]
        classes = torch.randint(num_outputs, (num_samples,), generator=generator)
        model = nn.Sequential(*modules[:-1])
        inputs = factors[0] @ factors[1] / rank**0.5
        return cls(widths, model, inputs, rank, classes)

    def one_hot(self) -> Tensor:
        return nn.functional.one_hot(self.labels, self.widths[-1]).double()


@pytest.mark.parametrize("is_softmax", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_ranks_of_deep_linear_networks_are_known_integers(seed: int, is_softmax: bool) -> None:
    # Singh, Bachmann, Hofmann (2021), Analytic insights into structure and rank of neural network
    # Hessian maps; a softmax ignores one direction of the outputs.
    shape = Shape.draw(seed, nn.Identity, is_biased=False)
    _, *hidden, num_outputs = shape.widths
    num_targets = num_outputs - is_softmax
    targets = shape.labels if is_softmax else normal(len(shape.labels), num_outputs, seed=seed)
    loss_fn = nn.CrossEntropyLoss() if is_softmax else nn.MSELoss()
    narrowest = min(shape.rank, num_targets, *hidden)
    slope_rank, total = min(shape.rank, num_targets), sum(hidden)
    residual = 2 * narrowest * (total + slope_rank) - (len(hidden) + 1) * narrowest**2
    ggn = narrowest * (shape.rank + num_targets - narrowest)
    hessian = residual + ggn + narrowest * (narrowest - 2 * slope_rank)
    objective = Objective(shape.model, loss_fn, (shape.inputs, targets))
    for matrix, expected in (("residual", residual), ("ggn", ggn), ("hessian", hessian)):
        found = hesspipe.spectrum(objective, matrix, "factored")
        assert found.num_negative + found.num_positive == expected, matrix
        assert "except" not in found.certificate
        assert found.certificate.startswith("LDL^T")


def brier_of_one_hot(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.softmax(1) - targets).square().sum(1).mean()


@pytest.mark.parametrize("num_steps", [0, 200])
@pytest.mark.parametrize("seed", range(8))
def test_signs_in_deep_networks_are_those_of_the_matrix(seed: int, num_steps: int) -> None:
    shape = Shape.draw(100 + seed, nn.ReLU, is_biased=seed % 2 == 0)
    loss_fn = (nn.CrossEntropyLoss(), nn.MSELoss(), brier_of_one_hot)[seed % 3]
    data = shape.inputs, shape.labels if seed % 3 == 0 else shape.one_hot()
    optimizer = torch.optim.SGD(shape.model.parameters(), lr=0.1)
    for _ in range(num_steps):
        optimizer.zero_grad()
        loss_fn(shape.model(data[0]), data[1]).backward()
        optimizer.step()
    objective = Objective(shape.model, loss_fn, data)
    for matrix in ("hessian", "residual"):
        expected = torch.linalg.eigvalsh(exact_matrix(objective, matrix, "columns").values)
        found = hesspipe.spectrum(objective, matrix, "factored")
        assert (found.eigenvalues - expected).abs().max() <= found.error_bound
        assert found.num_negative == (expected < -found.tolerance).sum()
        assert found.num_positive == (expected > found.tolerance).sum()
        # As sharp as the solution of the whole matrix: no digit is lost.
        assert (found.eigenvalues - expected).abs().max() <= 100 * EPS * expected.abs().max()
