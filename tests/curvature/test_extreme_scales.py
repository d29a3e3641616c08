"""Matrices of losses at the borders of floating point are right, or refused by name."""

import pytest
import torch
from dense_reference import reference_matrices
from torch import Tensor, nn

import hesspipe

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(12, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()


def objective(scale: float, dtype: torch.dtype) -> hesspipe.Objective:
    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        return scale * nn.functional.mse_loss(outputs, targets)

    return hesspipe.Objective(network(), loss_fn, (X, Y), dtype=dtype)


def expected(matrix: str) -> Tensor:
    return reference_matrices(
        network(), lambda model: model(X), lambda outputs: nn.functional.mse_loss(outputs, Y)
    )[matrix]


MATRICES = {
    "hessian": hesspipe.hessian_matrix,
    "ggn": hesspipe.ggn_matrix,
    "residual": hesspipe.residual_matrix,
}


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("scale", "dtype", "allowed"),
    [(1e-25, torch.float32, 1e-5), (1e30, torch.float32, 1e-5), (1e-200, torch.float64, 1e-12),
     (1e-280, torch.float64, 1e-12), (1e200, torch.float64, 1e-12), (1e280, torch.float64, 1e-12)],
)  # fmt: skip
def test_matrix_of_a_scaled_loss_is_the_scaled_matrix(
    matrix: str, scale: float, dtype: torch.dtype, allowed: float
) -> None:
    found = MATRICES[matrix](objective(scale, dtype)).double() / scale
    reference = expected(matrix)
    assert (found - reference).norm() <= allowed * reference.norm()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e-36, torch.float32), (1e-40, torch.float32), (1e-300, torch.float64)]
)
def test_matrix_that_loses_digits_by_underflow_is_refused(
    matrix: str, scale: float, dtype: torch.dtype
) -> None:
    with pytest.raises(ValueError, match=f"the {matrix} must not be so small"):
        MATRICES[matrix](objective(scale, dtype))


@pytest.mark.parametrize("scale", [1e-280, 1e-150, 1e150, 1e280])
def test_spectrum_of_a_scaled_loss_is_the_scaled_spectrum(scale: float) -> None:
    found = hesspipe.spectrum(objective(scale, torch.float64))
    plain = hesspipe.spectrum(objective(1.0, torch.float64))
    largest = plain.eigenvalues.abs().max()
    assert (found.eigenvalues / scale - plain.eigenvalues).abs().max() <= 1e-13 * largest
    assert (found.num_negative, found.num_zero) == (plain.num_negative, plain.num_zero)


def test_loss_whose_derivative_takes_logarithms_of_rounding_errors_is_computed() -> None:
    """The partial likelihood of Cox: its derivative jumps, by rounding."""

    def cox(outputs: Tensor, _: object) -> Tensor:
        return -(outputs - torch.logcumsumexp(outputs.flip(0), 0).flip(0)).mean()

    found = hesspipe.spectrum(hesspipe.Objective(network(), cox, (X, None)))
    reference = reference_matrices(
        network(), lambda model: model(X), lambda outputs: cox(outputs, None)
    )["hessian"]
    eigenvalues = torch.linalg.eigvalsh(reference)
    assert (found.eigenvalues - eigenvalues).abs().max() <= 1e-13 * eigenvalues.abs().max()
    assert found.error_bound <= 1e-11 * eigenvalues.abs().max()
