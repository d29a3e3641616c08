"""Small networks, data, matrices and tolerances that several test modules share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hesspipe.linalg.ritz import Eigenpairs
from hesspipe.networks.architectures import initialize_normal, mlp

EPS = torch.finfo(torch.float64).eps


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers from a fixed seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def labels(num_samples: int, num_classes: int, seed: int = 1) -> Tensor:
    """Random class labels."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(num_classes, (num_samples,), generator=generator)


def network(widths: list[int], activation: str = "relu", std: float = 0.6) -> nn.Sequential:
    """A fully connected network at a random point in general position."""
    model = mlp(
        num_inputs=widths[0],
        hidden_widths=widths[1:-1],
        num_outputs=widths[-1],
        activation=activation,
    ).double()
    initialize_normal(model, std, torch.Generator().manual_seed(2))
    return model


def theta_of(model: nn.Module) -> Tensor:
    """A network's parameters as one vector, shape (P,), float64."""
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach().double()


def assert_close(found: Tensor, expected: Tensor, factor: float = 50.0) -> None:
    """Equal up to factor * eps * ||expected||, entry by entry."""
    tolerance = factor * EPS * float(expected.norm())
    worst = float((found - expected).abs().max())
    assert worst <= tolerance, f"differs by {worst:.2e}, allowed {tolerance:.2e}"


def matrix_with(eigenvalues: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
    """A symmetric matrix with the given eigenvalues, in general position."""
    size = len(eigenvalues)
    basis = torch.linalg.qr(normal(size, size, seed=11)).Q
    lower = ((basis * eigenvalues) @ basis.T).tril()
    return (lower + lower.tril(-1).T).to(dtype)


def check_eigenpairs(found: Eigenpairs, matrix: Tensor, values: Tensor, tolerance: float) -> None:
    """Check values against a prescribed spectrum, orthonormality, and the residual norms."""
    eps = torch.finfo(matrix.dtype).eps
    scale, ordered = float(values.abs().max()), values.sort().values
    num_pairs, last = found.num_smallest + found.num_largest, len(values) - found.num_largest
    expected = torch.cat([ordered[: found.num_smallest], ordered[last:]])
    # An eigenvalue's error is at most its residual norm.
    allowed = tolerance * scale + 20 * eps * scale
    assert found.eigenvalues.shape == found.residual_norms.shape == (num_pairs,)
    assert (found.eigenvalues - expected).abs().max() <= allowed
    assert found.residual_norms.max() <= tolerance * scale
    vectors = found.eigenvectors
    assert (vectors.T @ vectors - torch.eye(num_pairs)).abs().max() <= 20 * eps
    residuals = matrix @ vectors - vectors * found.eigenvalues.to(vectors)
    assert (residuals.norm(dim=0) - found.residual_norms).abs().max() <= 20 * eps * scale
