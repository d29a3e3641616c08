"""Inputs for which other libraries are silently wrong: computed correctly, or refused.

Each result is compared with `dense_reference`, which does not use hesspipe.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from dense_reference import reference_hessian, reference_matrices
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import hesspipe
from hesspipe.curvature import columns
from hesspipe.linalg.spectrum import matrix_spectrum
from hesspipe.objective.objective import Objective

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])
MATRICES = {
    "hessian": (hesspipe.hessian_matrix, lambda o, rows: (hesspipe.HessianOperator(o) @ rows.T).T),
    "ggn": (hesspipe.ggn_matrix, lambda o, rows: (hesspipe.GGNOperator(o) @ rows.T).T),
    "residual": (
        hesspipe.residual_matrix,
        lambda o, rows: (hesspipe.ResidualOperator(o) @ rows.T).T,
    ),
}


def ignoring(targets: Tensor) -> Tensor:
    targets = targets.clone()
    targets[[1, 2, 3, 9]] = -100
    return targets


def assert_right(objective: Objective, expected: dict[str, Tensor], factor: float = 50.0) -> None:
    """Matrices and products of all three, against the reference."""
    vectors = normal(3, objective.num_parameters, seed=9)
    for name, (matrix, operator) in MATRICES.items():
        scale = max(float(value.norm()) for value in expected.values()) * EPS * factor
        worst = float((matrix(objective) - expected[name]).abs().max())
        assert worst <= scale, f"{name} differs by {worst:.1e}, allowed {scale:.1e}"
        for products in (columns.multiply(objective, name, vectors), operator(objective, vectors)):
            error = float((products - vectors @ expected[name]).norm())
            assert error <= scale * float(vectors.norm()), f"product with {name}: {error:.1e}"


def reference(model: nn.Module, loss_fn: Any, inputs: Tensor, targets: Any) -> dict[str, Tensor]:
    """H, G and R with all the data in one batch."""
    loss_fn = copy.deepcopy(loss_fn).double() if isinstance(loss_fn, nn.Module) else loss_fn
    return reference_matrices(
        model, lambda model: model(inputs), lambda outputs: loss_fn(outputs, targets)
    )


BATCHED = {
    "class weights": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), labels(11, 3)),
    "ignored labels": (nn.CrossEntropyLoss(), ignoring(labels(11, 3))),
    "both, smoothed": (
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, label_smoothing=0.1),
        ignoring(labels(11, 3)),
    ),
    "mean": (nn.CrossEntropyLoss(), labels(11, 3)),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), labels(11, 3)),
    "mean of squares": (nn.MSELoss(), normal(11, 3, seed=5)),
}


@pytest.mark.parametrize("loss", BATCHED)
@pytest.mark.parametrize("splits", [[4, 4, 3], [1, 9, 1]])
def test_batches_are_weighted_by_the_denominator_of_the_loss(loss: str, splits: list[int]) -> None:
    # Items 1 and 2: curvlinops weights by size, hessian-eigenthings by number.
    (loss_fn, targets), inputs = BATCHED[loss], normal(11, 4)
    model = network([4, 3, 3], "tanh")
    batches = list(zip(inputs.split(splits), targets.split(splits), strict=True))
    assert_right(Objective(model, loss_fn, batches), reference(model, loss_fn, inputs, targets))


def test_batch_without_a_valid_label_does_not_contribute() -> None:
    model, inputs, targets = network([4, 3, 3], "tanh"), normal(11, 4), labels(11, 3)
    targets[4:8] = -100
    loss_fn = nn.CrossEntropyLoss()
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    assert_right(Objective(model, loss_fn, batches), reference(model, loss_fn, inputs, targets))


class WithFunctional(nn.Module):
    """A network with a function of torch.nn.functional between its layers."""

    def __init__(self, between: Callable[[Tensor], Tensor], head: float = 1.0) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 5), nn.Linear(5, 3)
        self.between = between
        with torch.no_grad():
            self.first.weight.copy_(normal(5, 4))
            self.last.weight.copy_(normal(3, 5)).mul_(head)
            self.last.bias.zero_()

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.between(self.first(inputs)))
        return outputs


def drop(hidden: Tensor) -> Tensor:
    return functional.dropout(hidden, 0.3)


def noisy(hidden: Tensor) -> Tensor:
    return hidden + torch.randn_like(hidden)


def normalized(hidden: Tensor) -> Tensor:
    return functional.batch_norm(hidden, None, None, training=True)


def in_float32(hidden: Tensor) -> Tensor:
    return hidden.float().tanh().double()


def counted(hidden: Tensor) -> Tensor:
    # A function with a state, on purpose; mypy does not allow attributes of functions.
    counted.calls += 1  # type: ignore[attr-defined]
    return hidden * counted.calls  # type: ignore[attr-defined]


counted.calls = 0  # type: ignore[attr-defined]

REFUSED = {
    "dropout in training mode": (
        nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.3), nn.Linear(5, 3)),
        r"deterministic, got 1 \(Dropout\) in training mode; call model.eval\(\)",
    ),
    "batch norm in training mode": (
        nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)),
        r"deterministic, got 1 \(BatchNorm1d\) in training mode",
    ),
    "dropout of torch.nn.functional": (WithFunctional(drop), "dropout draws random numbers"),
    "dropout before a head of zeros": (WithFunctional(drop, 0.0), "dropout draws random numbers"),
    "noise": (WithFunctional(noisy), "randn_like draws random numbers"),
    "a model that counts its calls": (WithFunctional(counted), "changes from call to call"),
    "float32 inside": (WithFunctional(in_float32), "float, which returns torch.float32"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_model_that_is_not_a_function_of_theta_is_refused(case: str) -> None:
    # Item 3: hessian-eigenthings gives a different product each time.
    model, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        Objective(model, nn.CrossEntropyLoss(), (normal(8, 4), labels(8, 3)))


def test_batch_statistics_are_refused_on_several_batches() -> None:
    model, data = WithFunctional(normalized), (normal(8, 4), labels(8, 3))
    batches = [(data[0][:5], data[1][:5]), (data[0][5:], data[1][5:])]
    with pytest.raises(ValueError, match="samples independently over several batches, got a depen"):
        Objective(model, nn.CrossEntropyLoss(), batches)
    whole = Objective(model, nn.CrossEntropyLoss(), data)
    assert_right(whole, reference(model, nn.CrossEntropyLoss(), *data))


def test_model_set_to_training_mode_later_does_not_change_the_objective() -> None:
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3)).eval()
    data = normal(8, 4), labels(8, 3)
    expected = reference(model, nn.CrossEntropyLoss(), *data)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    model.train()
    nn.init.zeros_(model[0].weight)
    data[0].zero_()
    assert_right(objective, expected)


def test_each_eigenvalue_is_found_once_and_from_its_own_end() -> None:
    # Items 4 and 5: copies of the largest, negative ones missed; "top" of diag(-10, 2) is -10.
    expected = torch.tensor([-10.0, -3.0, -3.0, 0.5, 2.0, 2.0], dtype=torch.float64)
    basis, _ = torch.linalg.qr(normal(6, 6))
    matrix = basis * expected @ basis.T
    objective = Objective.from_function(lambda theta: theta @ matrix @ theta / 2, normal(6))
    result = hesspipe.spectrum(objective)
    assert_close(result.eigenvalues, expected)
    assert (result.num_negative, result.num_zero, result.num_positive) == (3, 0, 3)
    pairs = hesspipe.eigenpairs(objective, num_smallest=2, num_largest=3)
    assert_close(pairs.eigenvalues, expected[[0, 1, 3, 4, 5]], factor=1e-8 / EPS)


def test_second_objective_of_one_model_has_the_same_matrix() -> None:
    # Item 5: PyHessian, which leaves gradients behind, gives twice the Hessian.
    model, data = network([4, 5, 3], "tanh"), (normal(8, 4), labels(8, 3))
    functional.cross_entropy(model(data[0]), data[1]).backward()
    expected = reference(model, nn.CrossEntropyLoss(), *data)
    for _ in range(2):
        assert_right(Objective(model, nn.CrossEntropyLoss(), data), expected)


def test_signs_in_float32_are_refused() -> None:
    # Item 6.
    objective = Objective(
        network([4, 5, 3]), nn.CrossEntropyLoss(), (normal(8, 4), labels(8, 3)), dtype=torch.float32
    )
    with pytest.raises(ValueError, match=r"float64 to count signs, got torch.float32"):
        hesspipe.spectrum(objective)
    matrix = hesspipe.hessian_matrix(objective)
    with pytest.raises(ValueError, match=r"float64 for counts of signs, got torch.float32"):
        matrix_spectrum(matrix, matrix="hessian", method="columns")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_at_a_threshold_within_rounding_are_refused(dtype: torch.dtype) -> None:
    # All but 3 eigenvalues are zero, so rounding puts them on either side of 0.
    data = normal(8, 1) @ normal(1, 4, seed=1), normal(8, 3)
    model = nn.Linear(4, 3, bias=False)
    objective = Objective(model, nn.MSELoss(), data, dtype=dtype)
    found = hesspipe.density(objective, num_probes=3, num_steps=3)
    with pytest.raises(ValueError, match=r"thresholds must be apart from eigenvalues, got 0.0"):
        found.count(low=0.0)
    count = found.count(low=1e-3)
    assert 0 < count.low <= 3 <= count.high


class Attention(nn.Module):
    """One head of fused attention over 3 positions, as usual in torch 2."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.norm = nn.Linear(2, 6), nn.LayerNorm(2)
        self.last = nn.Linear(6, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        query, key, value = self.project(self.norm(inputs)).unsqueeze(1).chunk(3, dim=-1)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        outputs: Tensor = self.last(mixed.flatten(1))
        return outputs


@pytest.mark.parametrize("mode", [True, False])
def test_fused_attention_gets_its_second_derivative(mode: bool) -> None:
    # Item 7: the kernels that torch chooses by default have none.
    model, inputs, targets = Attention().double().train(mode), normal(6, 3, 2), labels(6, 3)
    expected = reference(model, nn.CrossEntropyLoss(), inputs, targets)
    assert_right(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), expected)


class Padded(nn.Module):
    """An encoder of padded sequences, for which torch has a fast path without gradients."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(4, 2, 3, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 1)
        self.last = nn.Linear(4, 3)

    def forward(self, inputs: Tensor, is_padding: Tensor) -> Tensor:
        hidden = self.encoder(inputs, src_key_padding_mask=is_padding)
        outputs: Tensor = self.last(hidden.sum(1))
        return outputs


def test_padded_encoder_is_the_same_with_and_without_gradients() -> None:
    torch.manual_seed(0)
    model, inputs, targets = Padded().double().eval(), normal(5, 3, 4), labels(5, 3)
    is_padding = torch.tensor([[False, False, index % 2 == 0] for index in range(5)])
    expected = reference_matrices(
        model,
        lambda model: model.train()(inputs, is_padding),
        lambda outputs: functional.cross_entropy(outputs, targets),
    )
    fields = {"inputs": inputs, "is_padding": is_padding}
    was_fused = torch.backends.mha.get_fastpath_enabled()
    assert_right(Objective(model, nn.CrossEntropyLoss(), (fields, targets)), expected)
    assert torch.backends.mha.get_fastpath_enabled() == was_fused


def test_unused_parameters_are_zero_rows_and_frozen_ones_are_left_out() -> None:
    # Item 8: PyHessian and hessian-eigenthings crash.
    class Partly(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            outputs: Tensor = self[2](self[1](self[0](inputs)))
            return outputs

    model = Partly(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.Linear(2, 2)).double()
    model[0].bias.requires_grad_(False)
    data = normal(8, 4), labels(8, 3)
    expected = reference(model, nn.CrossEntropyLoss(), *data)
    assert all((matrix[-6:] == 0).all() for matrix in expected.values())  # 3, which is unused
    assert all(matrix.any() for matrix in expected.values())
    kept = [row for row in range(49) if not 20 <= row < 25]
    expected = {name: matrix[kept][:, kept] for name, matrix in expected.items()}
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    assert_right(objective, expected)
    num_zero = int((torch.linalg.eigvalsh(expected["hessian"]).abs() < 1e-12).sum())
    assert hesspipe.spectrum(objective).num_zero == num_zero >= 6


def test_shared_weight_appears_once_in_theta() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: Tensor) -> Tensor:
            outputs: Tensor = self.head(self.embedding(tokens).mean(1).tanh())
            return outputs

    model, tokens, targets = Tied().double(), labels(14, 5).view(7, 2), labels(7, 5)
    objective = Objective(model, nn.CrossEntropyLoss(), (tokens, targets))
    assert objective.num_parameters == 15
    assert_right(objective, reference(model, nn.CrossEntropyLoss(), tokens, targets))


def test_batch_norm_in_evaluation_mode_uses_its_statistics() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 3)).double()
    model(normal(20, 4) + 1)
    model.eval()
    inputs, targets = normal(8, 4, seed=4), labels(8, 3)
    batches = list(zip(inputs.split(5), targets.split(5), strict=True))
    expected = reference(model, nn.CrossEntropyLoss(), inputs, targets)
    assert_right(Objective(model, nn.CrossEntropyLoss(), batches), expected)


def test_layer_norm_agrees_with_differences_of_the_gradient() -> None:
    # torch.func.hessian of it is not even symmetric.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 3)).double()
    data = normal(8, 4), labels(8, 3)
    expected = reference(model, nn.CrossEntropyLoss(), *data)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    assert_right(objective, expected)
    # The reference also differentiates twice; differences of the gradient do not.
    vector, step = normal(objective.num_parameters), 3e-6
    slopes = [
        torch.autograd.functional.jacobian(objective.loss, objective.theta + sign * step * vector)
        for sign in (1, -1)
    ]
    difference = (slopes[0] - slopes[1]) / (2 * step)
    assert_close(expected["hessian"] @ vector, difference, factor=1e-8 / EPS)


def test_model_that_modifies_its_inputs_in_place_does_not_change_the_data() -> None:
    model = nn.Sequential(
        nn.LeakyReLU(0.5, inplace=True), nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)
    ).double()
    inputs, targets = normal(8, 4), labels(8, 3)
    before = inputs.clone()
    expected = reference_matrices(
        model,
        lambda model: model(before.clone()),
        lambda outputs: functional.cross_entropy(outputs, targets),
    )
    assert_right(Objective(model, nn.CrossEntropyLoss(), (inputs, targets)), expected)
    assert torch.equal(inputs, before)


def test_shuffling_and_augmenting_loader_is_read_once() -> None:
    inputs, targets = normal(11, 4), labels(11, 3)
    shuffled = DataLoader(TensorDataset(inputs, targets), batch_size=4, shuffle=True)

    class Augmenting:
        def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
            return ((inputs + torch.randn_like(inputs), targets) for inputs, targets in shuffled)

    model = network([4, 3, 3], "tanh")
    assert_right(
        Objective(model, nn.CrossEntropyLoss(), shuffled),
        reference(model, nn.CrossEntropyLoss(), inputs, targets),
    )
    objective = Objective(model, nn.CrossEntropyLoss(), Augmenting())
    seen, seen_targets = (
        torch.cat([getattr(batch, name) for batch in objective.batches])
        for name in ("inputs", "targets")
    )
    expected = reference(model, nn.CrossEntropyLoss(), seen, seen_targets)
    assert_right(objective, expected)


def test_loader_that_reuses_one_buffer_is_copied() -> None:
    inputs, targets = normal(9, 4), labels(9, 3)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        buffer = torch.empty(3, 4, dtype=torch.float64)
        for start in (0, 3, 6):
            yield buffer.copy_(inputs[start : start + 3]), targets[start : start + 3]

    model = network([4, 3, 3], "tanh")
    expected = reference(model, nn.CrossEntropyLoss(), inputs, targets)
    assert_right(Objective(model, nn.CrossEntropyLoss(), batches()), expected)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_gradient_mode_of_the_caller_does_not_matter(mode: Callable[[], Any]) -> None:
    model, data = network([4, 5, 3], "tanh"), (normal(8, 4), labels(8, 3))
    expected = reference(model, nn.CrossEntropyLoss(), *data)
    with mode():
        assert_right(Objective(model, nn.CrossEntropyLoss(), data), expected)


def test_autocast_of_the_caller_does_not_lower_the_precision() -> None:
    model, data = network([4, 5, 3], "tanh").float(), (normal(8, 4).float(), labels(8, 3))
    plain = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float32)
    expected = columns.hessian_by_columns(plain)
    with torch.autocast("cpu", torch.bfloat16):
        objective = Objective(model, nn.CrossEntropyLoss(), data, dtype=torch.float32)
        found = columns.hessian_by_columns(objective)
    assert float((found - expected).norm()) <= 10 * torch.finfo(torch.float32).eps * float(
        expected.norm()
    )


def test_broadcast_targets_are_refused_on_several_batches() -> None:
    batches = [(normal(4, 3), normal(4)), (normal(5, 3), normal(5))]
    with pytest.raises(ValueError, match=r"targets must have the shape of the outputs, \(4, 1\)"):
        Objective(nn.Linear(3, 1), nn.MSELoss(), batches)


def test_function_of_theta_has_a_hessian_only() -> None:
    def loss(theta: Tensor) -> Tensor:
        return (theta[:-1] * theta[1:]).sin().sum() + theta.square().sum() / 3

    theta = normal(6)
    objective = Objective.from_function(loss, theta.float())
    expected = reference_hessian(loss, theta.float())
    assert_close(hesspipe.hessian_matrix(objective), expected)
    assert_close(columns.multiply(objective, "hessian", normal(2, 6)), normal(2, 6) @ expected)
    for compute in (
        lambda: hesspipe.ggn_matrix(objective),
        lambda: hesspipe.residual_matrix(objective),
        lambda: hesspipe.GGNOperator(objective) @ theta,
        lambda: hesspipe.ResidualOperator(objective) @ theta,
        lambda: hesspipe.spectrum(objective, "ggn"),
    ):
        with pytest.raises(ValueError, match="G and R are defined by the outputs of a network"):
            compute()
