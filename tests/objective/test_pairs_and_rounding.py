"""Parameters that are viewed as complex numbers, and layers that round, as real networks have."""

from __future__ import annotations

import pytest
import torch
from problems import labels, normal
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn import functional

from hesspipe import GGNOperator, HessianOperator, eigenpairs, hessian_matrix
from hesspipe.objective.objective import Objective

X, CLASSES = normal(6, 4), labels(6, 3)


class Spectral(nn.Module):
    """Multiplies frequencies by complex numbers, kept as pairs, behind an odd number of others."""

    def __init__(self, num_before: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(normal(num_before, seed=3))
        self.pairs = nn.Parameter(normal(3, 2, seed=4))
        self.one = nn.Parameter(normal(2, seed=5))
        self.layer = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        frequencies = torch.fft.rfft(inputs) * torch.view_as_complex(self.pairs)
        frequencies = frequencies * torch.view_as_complex(self.one).exp()
        return self.layer((torch.fft.irfft(frequencies, n=4) + self.shift.sum()).tanh())


def reference(model: nn.Module) -> Tensor:
    """H (P, P) by a double backward of the plain model."""
    parameters = list(model.double().parameters())
    loss = functional.cross_entropy(model(X.double()), CLASSES)
    slopes = torch.autograd.grad(loss, parameters, create_graph=True)
    rows = [
        torch.autograd.grad(entry, parameters, retain_graph=True)
        for slope in slopes
        for entry in slope.flatten()
    ]
    return torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])


@pytest.mark.parametrize("patterns", [None, ["pairs", "one"], ["one", "layer.*"], ["shift"]])
@pytest.mark.parametrize("num_before", [1, 2, 3])
def test_products_are_right_where_pairs_of_parameters_are_complex(
    num_before: int, patterns: list[str] | None
) -> None:
    model = Spectral(num_before)
    objective = Objective(model, nn.CrossEntropyLoss(), (X, CLASSES), parameters=patterns)
    names = [name for name, value in model.named_parameters() for _ in range(value.numel())]
    chosen = [name in objective.names for name in names]
    expected = reference(model)[chosen][:, chosen]
    vectors = normal(objective.num_parameters, 3, seed=6).double()
    product = HessianOperator(objective) @ vectors
    assert torch.allclose(product, expected @ vectors, atol=1e-13)
    assert torch.allclose(hessian_matrix(objective), expected, atol=1e-13)
    largest = eigenpairs(objective, num_largest=1).eigenvalues
    assert torch.allclose(largest, torch.linalg.eigvalsh(expected)[-1:], atol=1e-8)
    assert bool((GGNOperator(objective) @ vectors).isfinite().all())


def rounding(*, is_training: bool) -> nn.Module:
    """A network prepared for training with rounded weights."""
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).train()
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(model, inplace=True)
    model(X.float())
    return model.train(is_training)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("is_training", [True, False])
def test_objective_refuses_layers_that_round(is_training: bool, dtype: torch.dtype) -> None:
    model = rounding(is_training=is_training)
    with pytest.raises(ValueError, match=r"0\.weight_fake_quant.*disable_fake_quant"):
        Objective(model, nn.CrossEntropyLoss(), (X, CLASSES), dtype=dtype)
    model.apply(quantization.disable_fake_quant)
    model.apply(quantization.disable_observer)
    Objective(model, nn.CrossEntropyLoss(), (X, CLASSES), dtype=dtype)


class Counting(nn.Module):
    """Counts its calls in a buffer, whose number its outputs may depend on."""

    def __init__(self, *, is_used: bool) -> None:
        super().__init__()
        self.layer, self.is_used = nn.Linear(4, 3), is_used
        self.register_buffer("num_calls", torch.zeros((), dtype=torch.long))

    def forward(self, inputs: Tensor) -> Tensor:
        self.num_calls += 1
        return self.layer(inputs) * (self.num_calls if self.is_used else 1)


@pytest.mark.parametrize("is_used", [True, False])
def test_objective_names_the_buffer_that_changes(is_used: bool) -> None:
    with pytest.raises(ValueError, match=r"in its buffer num_calls; call model\.eval"):
        Objective(Counting(is_used=is_used), nn.CrossEntropyLoss(), (X, CLASSES))
