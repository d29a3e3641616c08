"""What a monitor says of spectra through time, in which eigenvectors rise that it has not seen.

The loss is a sum of c_i theta_i^2 / 2 with a buffer c, so that H = diag(c). The vectors that a
record carries to the next are unit vectors to the last digits: they contain nothing of the others.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hesspipe import Monitor, Objective

SIZE, RECORDS = 60, 6


class Quadratic(nn.Module):
    """Half the sum of c_i theta_i^2."""

    curvatures: Tensor

    def __init__(self, curvatures: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.ones(len(curvatures), dtype=curvatures.dtype))
        self.register_buffer("curvatures", curvatures.clone())

    def forward(self, batch: Tensor) -> Tensor:
        return (self.curvatures * self.theta**2).sum() / 2 * batch.sum()


def bulk() -> Tensor:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(SIZE, dtype=torch.float64, generator=generator) / 6
    values[-4:] = torch.tensor([3.0, 5.0, -2.5, -4.0])
    return values


def crossing(time: float) -> Tensor:
    """One passes the top halfway."""
    values = bulk()
    values[7] = 10 * time
    return values


def slowly(time: float) -> Tensor:
    """One passes the top by 1 % with each record, from just below it."""
    values = bulk()
    values[7] = 4.98 + 0.4 * time
    return values


def at_once(time: float) -> Tensor:
    """One jumps far beyond the top for a single record, and another one 7 % beyond it for two."""
    values = bulk()
    values[7] = 40.0 if time == 0.5 else 0.1
    values[8] = 5.35 if time > 0.7 else 0.0
    return values


def negative(time: float) -> Tensor:
    """One passes the most negative, and one comes up to it."""
    values = bulk()
    values[7], values[8] = -6 * time, -3.99
    return values


def several(time: float) -> Tensor:
    """Three pass the top together, and two the bottom."""
    values = bulk()
    values[7:10] = torch.tensor([9.0, 9.0, 9.5]) * time
    values[10:12] = torch.tensor([-7.0, -8.0]) * time
    return values


def falling(time: float) -> Tensor:
    """The leaders fall into the bulk, one after the other."""
    values = bulk()
    values[-4:] *= 1.05 - time
    return values


def turned(time: float) -> Tensor:
    """Each record has its own eigenvectors."""
    return bulk().roll(int(time * 7 * RECORDS))


FAMILIES = [crossing, slowly, at_once, negative, several, falling, turned]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("dtype", "max_products", "num_largest", "verify_every"),
    [
        (torch.float64, 40, 1, 1),
        (torch.float64, 40, 3, 2),
        (torch.float32, 15, 1, 1),
    ],
)
def test_records_are_right_or_say_that_they_are_not_verified(
    family: Callable[[float], Tensor],
    dtype: torch.dtype,
    max_products: int,
    num_largest: int,
    verify_every: int,
) -> None:
    model = Quadratic(family(0.0).to(dtype))
    data = [torch.ones(2, dtype=dtype) / 2]
    objective = Objective.from_batches(
        model, lambda net, batch: net(batch), data, num_samples=lambda _: 1
    )
    monitor = Monitor(
        objective, model, every=1, num_largest=num_largest, max_products=max_products,
        verify_every=verify_every, on_error="raise",
    )  # fmt: skip
    for record in range(RECORDS):
        values = family(record / RECORDS).to(dtype)
        model.curvatures.copy_(values)
        monitor.record(record)
        right = values.double().sort().values[[0, *range(SIZE - num_largest, SIZE)]].numpy()
        rows = monitor.table.query("step == @record")
        found = rows["eigenvalue"].to_numpy()
        off = abs(found - right)
        rounding = 1e-5 if dtype == torch.float32 else 1e-12
        converged, verified = rows["is_converged"].to_numpy(), rows["is_verified"].to_numpy()
        assert (off[converged] <= 1e-3 * abs(right[converged])).all()
        assert (off[verified] <= rows["error_bound"].to_numpy()[verified] + rounding).all()
        assert (~converged | verified).all()
        if record % verify_every != 0:
            assert not verified.any()
        elif max_products == 40:  # the others may not come to it
            assert verified.all()
        assert rows["error_bound"].notna().to_numpy().tolist() == verified.tolist()
        assert (rows["missed_probability"].unique() == 1.0) == (not verified.any())
        assert rows["num_products"].iloc[0] <= max_products
        if verify_every == 1 and max_products == 40:
            assert converged.all()
