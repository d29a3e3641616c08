"""The objective is the loss over all the data for any batches, and does not change the model."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from dense_reference import reference_matrices
from problems import EPS, assert_close, labels, network, normal
from torch import Tensor, nn
from torch.nn import functional

import hesspipe
from hesspipe.curvature import columns
from hesspipe.curvature.dense import exact_matrix
from hesspipe.curvature.loss_derivatives import output_curvatures
from hesspipe.errors import TooLargeError
from hesspipe.objective.batches import read_batches
from hesspipe.objective.objective import Objective

CLASS_WEIGHTS = torch.tensor([0.2, 1.0, 3.0])


def with_ignored_labels(targets: Tensor) -> Tensor:
    targets = targets.clone()
    targets[::4] = -100
    return targets


NAMED_WEIGHTS = partial(functional.cross_entropy, weight=CLASS_WEIGHTS.double(), ignore_index=1)

LOSSES = {
    "mean": (nn.CrossEntropyLoss(), labels(11, 3)),
    "sum": (nn.CrossEntropyLoss(reduction="sum"), labels(11, 3)),
    "class weights": (nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), labels(11, 3)),
    "ignored labels": (nn.CrossEntropyLoss(), with_ignored_labels(labels(11, 3))),
    "label smoothing": (nn.CrossEntropyLoss(label_smoothing=0.1), labels(11, 3)),
    "probabilities": (nn.CrossEntropyLoss(), normal(11, 3, seed=5).softmax(1)),
    "function": (functional.cross_entropy, labels(11, 3)),
    "partial": (NAMED_WEIGHTS, labels(11, 3)),
    "partial sum": (partial(functional.mse_loss, reduction="sum"), normal(11, 3, seed=5)),
    "squares": (nn.MSELoss(), normal(11, 3, seed=5)),
    "divergence by sample": (nn.KLDivLoss(reduction="batchmean"), normal(11, 3, seed=5).softmax(1)),
    "soft margin": (nn.MultiLabelSoftMarginLoss(), normal(11, 3, seed=5).sigmoid().round()),
    "weighted logistic": (
        nn.BCEWithLogitsLoss(pos_weight=CLASS_WEIGHTS),
        normal(11, 3, seed=5).sigmoid(),
    ),
    "functional squares": (functional.mse_loss, normal(11, 3, seed=5)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("splits", [[11], [5, 5, 1], [1, 2, 8]])
def test_loss_is_that_of_one_batch_whatever_the_batches(name: str, splits: list[int]) -> None:
    loss_fn, targets = LOSSES[name]
    model, inputs = network([4, 5, 3]), normal(11, 4)
    expected = (
        copy.deepcopy(loss_fn).double()(model(inputs), targets)
        if isinstance(loss_fn, nn.Module)
        else loss_fn(model(inputs), targets)
    )
    batches = list(zip(inputs.split(splits), targets.split(splits), strict=True))
    objective = Objective(model, loss_fn, batches)
    assert_close(objective.loss(objective.theta), expected.detach())


def test_outputs_follow_theta_and_the_order_of_named_parameters() -> None:
    model = nn.Linear(2, 3).double()
    objective = Objective(model, nn.MSELoss(), (normal(5, 2), normal(5, 3)))
    theta = normal(9, seed=3)
    expected = normal(5, 2) @ theta[:6].view(3, 2).T + theta[6:]
    assert_close(objective.outputs(theta, normal(5, 2)), expected)
    assert objective.names == ["weight", "bias"]
    assert [objective.name_of(index) for index in (0, 5, 6, 8)] == ["weight"] * 2 + ["bias"] * 2


def test_model_is_not_changed() -> None:
    model = network([4, 5, 3])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    objective = Objective(model, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))
    torch.autograd.functional.hessian(objective.loss, objective.theta)
    assert all(torch.equal(before[name], model.state_dict()[name]) for name in before)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert model.training
    assert torch.equal(random_state, torch.get_rng_state())


def test_float32_model_is_evaluated_in_float64() -> None:
    model, inputs, targets = network([4, 5, 3]).float(), normal(6, 4).float(), labels(6, 3)
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    expected = functional.cross_entropy(copy.deepcopy(model).double()(inputs.double()), targets)
    assert objective.theta.dtype == torch.float64
    assert abs(objective.loss(objective.theta) - expected) <= 10 * EPS
    assert next(model.parameters()).dtype == torch.float32


def test_frozen_parameters_are_constants_and_not_part_of_theta() -> None:
    model, data = network([4, 5, 3]), (normal(6, 4), labels(6, 3))
    whole = Objective(model, nn.CrossEntropyLoss(), data)
    model[1].weight.requires_grad_(False)
    objective = Objective(model, nn.CrossEntropyLoss(), data)
    assert torch.equal(objective.theta, whole.theta[20:])
    gradient = torch.autograd.functional.jacobian(objective.loss, objective.theta)
    expected = torch.autograd.functional.jacobian(whole.loss, whole.theta)[20:]
    assert_close(gradient, expected)
    assert (gradient != 0).any()


def test_batch_norm_in_evaluation_mode_uses_its_buffers() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    model(normal(20, 3))
    model.eval()
    objective = Objective(model, nn.MSELoss(), (normal(5, 3, seed=4), normal(5, 2)))
    expected = model(normal(5, 3, seed=4))
    assert_close(objective.outputs(objective.theta, normal(5, 3, seed=4)), expected.detach())


@pytest.mark.parametrize(
    ("module", "training", "message"),
    [
        (nn.Dropout(0.5), True, r"got 1 \(Dropout\) in training mode; call model.eval\(\)"),
        (nn.BatchNorm1d(4), True, r"got 1 \(BatchNorm1d\) in training mode; call model.eval\(\)"),
        (nn.BatchNorm1d(4, track_running_stats=False), False, "track_running_stats=True"),
    ],
)
def test_random_and_coupling_modules_are_refused(
    module: nn.Module, training: bool, message: str
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), module).train(training)
    with pytest.raises(ValueError, match=message):
        Objective(model, nn.MSELoss(), (normal(5, 3), normal(5, 4)))


def test_dropout_without_effect_is_accepted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.0))
    assert Objective(model, nn.MSELoss(), (normal(5, 3), normal(5, 4))).num_parameters == 16


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "data must hold at least one sample"),
        ((torch.full((2, 3), torch.nan), normal(2, 2)), "inputs must be finite, got nan or inf"),
    ],
)
def test_bad_data_are_refused(data: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(nn.Linear(3, 2), nn.MSELoss(), data)


def test_model_without_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="model must have parameters, got ReLU"):
        Objective(nn.ReLU(), nn.MSELoss(), (normal(2, 2), normal(2, 2)))


def test_unknown_loss_on_several_batches_needs_a_denominator() -> None:
    def half_squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).square().sum(1).mean() / 2

    model, inputs, targets = network([4, 5, 3]), normal(7, 4), normal(7, 3)
    batches = list(zip(inputs.split(4), targets.split(4), strict=True))
    with pytest.raises(ValueError, match=r"half_squares\) must be known.*pass denominator="):
        Objective(model, half_squares, batches)
    whole = Objective(model, half_squares, (inputs, targets))
    split = Objective(
        model, half_squares, batches, denominator=lambda outputs, _: float(len(outputs))
    )
    assert_close(split.loss(split.theta), whole.loss(whole.theta))


@pytest.mark.parametrize("method", ["auto", "columns"])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_weight_decay_is_part_of_the_loss_of_h_and_of_g(method: str, activation: str) -> None:
    model, data = network([4, 5, 3], activation), (normal(7, 4), labels(7, 3))
    plain = Objective(model, nn.CrossEntropyLoss(), data)
    decayed = Objective(model, nn.CrossEntropyLoss(), data, weight_decay=0.3)
    theta, identity = plain.theta, torch.eye(plain.num_parameters, dtype=torch.float64)
    assert_close(decayed.loss(theta), plain.loss(theta) + 0.15 * theta.square().sum())
    vectors = normal(2, len(theta))
    for name, decay in (("hessian", 0.3), ("ggn", 0.3), ("residual", 0.0)):
        expected = exact_matrix(plain, name, "columns").values + decay * identity
        assert_close(exact_matrix(decayed, name, method).values, expected)
        assert_close(columns.multiply(decayed, name, vectors), vectors @ expected)
        found = hesspipe.spectrum(decayed, name).eigenvalues
        assert_close(found, torch.linalg.eigvalsh(expected), factor=500)


@pytest.mark.parametrize("method", ["factored", "layers"])
def test_weight_decay_moves_every_eigenvalue(method: str) -> None:
    model, data = network([9, 5, 3]), (normal(4, 9), labels(4, 3))
    plain = hesspipe.spectrum(Objective(model, nn.CrossEntropyLoss(), data), method=method)
    decayed = hesspipe.spectrum(
        Objective(model, nn.CrossEntropyLoss(), data, weight_decay=0.3), method=method
    )
    assert decayed.method == method
    assert_close(decayed.eigenvalues, plain.eigenvalues + 0.3, factor=500)
    assert decayed.num_zero == 0 < plain.num_zero


def test_weight_decay_leaves_frozen_parameters_alone() -> None:
    model, data = network([4, 5, 3]), (normal(7, 4), labels(7, 3))
    model[1].weight.requires_grad_(False)
    objective = Objective(model, nn.CrossEntropyLoss(), data, weight_decay=0.3)
    matrix = hesspipe.hessian_matrix(objective)
    assert matrix.shape == (23, 23)
    varied = objective.theta
    plain = objective.without_weight_decay()
    assert_close(
        objective.loss(objective.theta), plain.loss(plain.theta) + 0.15 * varied.square().sum()
    )
    assert_close(matrix.trace(), hesspipe.hessian_matrix(plain).trace() + 0.3 * len(varied))
    with pytest.raises(ValueError, match="weight_decay must be at least 0, got -1"):
        Objective(model, nn.CrossEntropyLoss(), data, weight_decay=-1)


def test_matrix_of_some_parameters_is_a_block_of_the_full_one() -> None:
    model, data = network([4, 5, 3], "tanh"), (normal(7, 4), labels(7, 3))
    whole = Objective(model, nn.CrossEntropyLoss(), data)
    expected = hesspipe.hessian_matrix(whole)
    part = Objective(model, nn.CrossEntropyLoss(), data, parameters=["3.*", "?.bias"])
    assert part.names == ["1.bias", "3.weight", "3.bias"]
    assert torch.equal(part.theta, whole.theta[20:])
    assert part.is_varied.all()
    assert_close(hesspipe.hessian_matrix(part), expected[20:, 20:])


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["3.*", "layers.0"], "got 'layers.0'; the nearest are 1.weight, 1.bias, 3.weight"),
        ("3.*", r"must be a list of patterns, got the string '3\.\*'"),
        ([], "at least one parameter must be varied"),
    ],
)
def test_patterns_without_a_match_are_refused(patterns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(
            network([4, 5, 3]), nn.CrossEntropyLoss(), (normal(7, 4), labels(7, 3)),
            parameters=patterns,
        )  # fmt: skip


class TwoSided(nn.Module):
    """Two inputs; several outputs of different shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(2, 3), nn.Linear(3, 2, bias=False)
        self.mix = nn.Linear(3, 4)

    def forward(self, left: Tensor, right: Tensor, scale: Any = None) -> dict[str, Any]:
        hidden = (self.left(left) + self.right.weight.T.sum(1)).tanh()
        scores = self.mix(hidden * right).view(-1, 2, 2)
        return {"scores": scores, "nothing": scale, "level": self.right(hidden).sum(1)}


def two_sided_loss(outputs: dict[str, Any], targets: dict[str, Tensor]) -> Tensor:
    classes = functional.cross_entropy(outputs["scores"].flatten(0, 1), targets["y"].flatten())
    return classes + functional.mse_loss(outputs["level"].exp(), targets["z"])


@pytest.mark.parametrize("kind", [dict, tuple, list])
@pytest.mark.parametrize("splits", [[6], [1, 3, 2]])
def test_several_inputs_outputs_and_targets_are_correct(kind: type, splits: list[int]) -> None:
    torch.manual_seed(0)
    model = TwoSided().double()
    left, right, y, z = normal(6, 2), normal(6, 3, seed=3), labels(12, 2).view(6, 2), normal(6)
    targets = {"y": y, "z": z}
    expected = reference_matrices(
        model,
        lambda model: model(left, right),
        lambda outputs: two_sided_loss(outputs, targets),
        join=lambda outputs: torch.cat([outputs["scores"].flatten(), outputs["level"]]),
        split=lambda v: {"scores": v[:24].view(6, 2, 2), "level": v[24:]},
    )
    batches = [
        ({"left": a, "right": b} if kind is dict else kind([a, b]), {"y": c, "z": d})
        for a, b, c, d in zip(*(x.split(splits) for x in (left, right, y, z)), strict=True)
    ]
    objective = Objective(
        model, two_sided_loss, batches, denominator=lambda _, targets: float(len(targets["z"]))
    )
    vectors = normal(2, objective.num_parameters)
    for name, matrix in expected.items():
        assert_close(exact_matrix(objective, name).values, matrix, factor=100)
        assert_close(columns.multiply(objective, name, vectors), vectors @ matrix, factor=200)
    assert objective.num_data == 6


@pytest.mark.parametrize("matrix", ["hessian", "ggn", "residual"])
def test_outputs_of_a_sequence_per_sample_are_correct(matrix: str) -> None:
    model, inputs, targets = nn.Conv1d(1, 2, 2).double(), normal(5, 1, 4), labels(15, 2).view(5, 3)
    targets[0, 1] = -100
    for loss_fn in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=CLASS_WEIGHTS[:2])):
        objective = Objective(
            model, loss_fn, list(zip(inputs.split(2), targets.split(2), strict=True))
        )
        mean = copy.deepcopy(loss_fn).double()
        # B023: the function is called in the same iteration.
        expected = reference_matrices(
            model,
            lambda model: model(inputs),
            lambda outputs: mean(outputs, targets),  # noqa: B023
        )
        assert_close(exact_matrix(objective, matrix).values, expected[matrix])


def test_outputs_without_one_row_per_sample_have_all_matrices() -> None:
    class Penalized(nn.Linear):
        def forward(self, inputs: Tensor) -> Any:
            return super().forward(inputs).exp(), self.weight.square().sum()

    def loss_fn(outputs: Any, targets: Tensor) -> Tensor:
        return functional.mse_loss(outputs[0], targets) + outputs[1]

    model, inputs, targets = Penalized(3, 2).double(), normal(5, 3), normal(5, 2)
    objective = Objective(model, loss_fn, (inputs, targets))
    expected = reference_matrices(
        model, lambda model: model(inputs), lambda outputs: loss_fn(outputs, targets),
        join=lambda outputs: torch.cat([outputs[0].flatten(), outputs[1][None]]),
        split=lambda v: (v[:-1].view(5, 2), v[-1]),
    )  # fmt: skip
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"])
    assert_close(hesspipe.spectrum(objective).eigenvalues.sum(), expected["hessian"].trace())
    for name, matrix in expected.items():
        assert_close(exact_matrix(objective, name).values, matrix, factor=100)
    with pytest.raises(ValueError, match=r"outputs\[1\] must have one row per sample \(5\)"):
        objective.outputs(objective.theta, inputs)


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (
            lambda model: model[1].bias.data.fill_(torch.inf),
            "parameters must be finite.* in 1.bias",
        ),
        (
            lambda model: model[1].bias.data.fill_(1e308),
            "model outputs must be finite.* in batch 0",
        ),
    ],
)
def test_numbers_that_are_not_finite_are_named(
    prepare: Callable[[nn.Module], Any], message: str
) -> None:
    model = network([4, 5, 3])
    model[3].weight.data.fill_(1e3)
    prepare(model)
    with pytest.raises(ValueError, match=message):
        Objective(model, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))


def test_batch_that_is_not_finite_is_named() -> None:
    model, inputs, targets = network([4, 5, 3]), normal(6, 4), normal(6, 3)
    targets[5, 1] = torch.nan
    batches = list(zip(inputs.split(2), targets.split(2), strict=True))
    with pytest.raises(ValueError, match="targets must be finite, got nan or inf in batch 2"):
        Objective(model, nn.MSELoss(), batches)
    with pytest.raises(ValueError, match="the loss must be finite, got nan in batch 1"):
        Objective(
            model, lambda outputs, targets: (outputs * targets).sum() / targets.sum(),
            [(inputs, targets.fill_(1)), (inputs, torch.zeros(6, 3))], denominator=lambda *_: 1.0,
        )  # fmt: skip
    masks = {"inputs": torch.full((4, 3), -torch.inf)}
    bad = {"inputs": torch.full((4, 3), torch.nan)}
    assert read_batches([(masks, None)], torch.float64, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"inputs\['inputs'\] must be finite, got nan"):
        Objective(nn.Linear(3, 2), nn.MSELoss(), (bad, normal(4, 2)))


@pytest.mark.parametrize(
    ("loss_fn", "message"),
    [
        (nn.CrossEntropyLoss(reduction="none"), r"must return a scalar tensor, got shape \(6,\)"),
        (lambda *_: 1.0, "must return a scalar tensor, got float"),
    ],
)
def test_loss_that_is_not_a_scalar_is_refused(loss_fn: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective(network([4, 5, 3]), loss_fn, (normal(6, 4), labels(6, 3)))


def test_data_that_are_not_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a pair \(inputs, targets\), got dict as batch 0"):
        Objective(network([4, 5, 3]), nn.CrossEntropyLoss(), [{"inputs": normal(6, 4)}])


def test_data_too_large_for_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hesspipe.hardware.available_bytes", lambda: 50 * 2**20)
    batches = ((torch.zeros(2**20, 4), torch.zeros(2**20, 3)) for _ in range(1000))
    with pytest.raises(TooLargeError, match=r"batch 1 of the data, after 0.1 GiB.*dtype=torch.fl"):
        Objective(network([4, 5, 3]), nn.MSELoss(), batches)


def test_compiled_and_wrapped_models_are_unwrapped() -> None:
    model = network([4, 5, 3])
    wrapped = nn.DataParallel(model)
    data = normal(6, 4), labels(6, 3)
    objective = Objective(wrapped, nn.CrossEntropyLoss(), data)
    assert objective.names == [name for name, _ in model.named_parameters()]


def test_model_that_writes_into_its_buffers_is_refused() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            return super().forward(inputs)

    with pytest.raises(ValueError, match=r"a change in its buffer calls; call model.eval"):
        Objective(Counting(), nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))


@pytest.mark.parametrize(
    ("loss", "theta", "message"),
    [
        (torch.sum, torch.ones(2, 2), r"theta must be a vector.*shape \(2, 2\)"),
        (torch.sum, torch.ones(2, dtype=torch.int64), "torch.int64"),
        (torch.sin, torch.ones(2), r"loss must return a scalar tensor, got shape \(2,\)"),
        (lambda theta: 1.0, torch.ones(2), "loss must return a scalar tensor, got float"),
    ],
)
def test_function_that_is_not_a_loss_is_refused(loss: Any, theta: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Objective.from_function(loss, theta)


def test_outputs_of_one_size_and_two_shapes_have_all_matrices() -> None:
    class Shaped(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs.flatten(1)).tanh().view(len(inputs), *inputs.shape[1:])

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs.cumsum(1) * targets).sum()

    model = Shaped(6, 6).double()
    wide, tall = (normal(4, 2, 3), normal(4, 2, 3)), (normal(5, 3, 2), normal(5, 3, 2))
    objective = Objective(model, loss_fn, [wide, tall], denominator=lambda *_: 1.0)
    parts = [
        reference_matrices(
            model, lambda model: model(inputs), lambda outputs: loss_fn(outputs, targets)  # noqa: B023
        )
        for inputs, targets in (wide, tall)
    ]  # fmt: skip
    vectors = normal(2, objective.num_parameters)
    for name in ("hessian", "ggn", "residual"):
        expected = parts[0][name] + parts[1][name]
        assert_close(exact_matrix(objective, name).values, expected, factor=100)
        assert_close(columns.multiply(objective, name, vectors), vectors @ expected, factor=200)
    with pytest.raises(ValueError, match="of one size must have one shape, got two of 6"):
        objective.outputs(objective.theta, wide[0])


def test_spectral_norm_in_evaluation_mode_is_correct() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5))
    model = nn.Sequential(layer, nn.Tanh(), nn.Linear(5, 3)).double().eval()
    inputs, targets = normal(6, 4), labels(6, 3)
    expected = reference_matrices(
        model,
        lambda model: model(inputs),
        lambda outputs: functional.cross_entropy(outputs, targets),
    )
    objective = Objective(model, nn.CrossEntropyLoss(), (inputs, targets))
    assert_close(hesspipe.hessian_matrix(objective), expected["hessian"])


def test_spectral_norm_in_training_mode_is_refused() -> None:
    # Each evaluation changes its buffers.
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"buffer parametrizations|differs between two eval"):
        Objective(layer, nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.int64])
def test_other_dtypes_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=r"dtype must be torch.float64 or torch.float32"):
        Objective(nn.Linear(4, 3), nn.CrossEntropyLoss(), (normal(6, 4), labels(6, 3)), dtype=dtype)


@pytest.mark.parametrize("denominator", [-1.0, float("nan")])
def test_denominator_that_is_not_positive_is_refused(denominator: float) -> None:
    batches = [(normal(6, 4), labels(6, 3)), (normal(5, 4), labels(5, 3))]
    with pytest.raises(ValueError, match=r"denominator must be positive, got .* in batch 0"):
        Objective(
            nn.Linear(4, 3), nn.CrossEntropyLoss(), batches, denominator=lambda *_: denominator
        )


def test_empty_batches_are_left_out() -> None:
    model, inputs, targets = network([4, 5, 3]), normal(6, 4), labels(6, 3)
    batches = [(inputs[:0], targets[:0]), (inputs, targets), (inputs[:0], targets[:0])]
    objective = Objective(model, nn.CrossEntropyLoss(), batches)
    assert [batch.num_samples for batch in objective.batches] == [6]
    assert_close(
        objective.loss(objective.theta), functional.cross_entropy(model(inputs), targets).detach()
    )


def test_curvature_of_many_outputs_is_refused_with_the_numbers() -> None:
    # A million outputs a sample; products with G need no such array.
    model = nn.Conv1d(1, 2, 1, bias=False).double()
    inputs = normal(1, 1, 500_000)
    objective = Objective(model, nn.MSELoss(), (inputs, torch.zeros(1, 2, 500_000)))
    with pytest.raises(
        TooLargeError, match=r"1,000,000 outputs of 1 samples needs 7,450.6 GiB.*GGN"
    ):
        output_curvatures(objective, objective.batches[0])
    expected = torch.eye(2, dtype=torch.float64) * inputs.square().mean()
    assert_close(hesspipe.GGNOperator(objective) @ torch.eye(2, dtype=torch.float64), expected)
    assert_close(hesspipe.ggn_matrix(objective), expected)
