"""Max-pooling by comparing whole arrays: the same bits as torch's, and torch's where it is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from hesspipe.networks import pooling
from hesspipe.networks.evaluation import loss_and_accuracy
from hesspipe.networks.pooling import faster_pooling, max_pool2d

DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def images(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Tensor:
    """Images with many equal numbers."""
    draws = torch.Generator().manual_seed(sum(shape))
    return (3 * torch.randn(shape, generator=draws)).round().relu().to(dtype)


@torch.no_grad()
@settings(deadline=None)
@given(
    st.tuples(*4 * [st.integers(1, 7)]),
    st.sampled_from(DTYPES),
    st.sampled_from([0.0, -torch.inf, torch.inf, torch.nan]),
)
def test_max_pool2d_is_that_of_torch(
    shape: tuple[int, int, int, int], dtype: torch.dtype, other: float
) -> None:
    pixels = images((shape[0], shape[1], shape[2] + 1, shape[3] + 1), dtype)
    pixels[..., 1, 1] = other
    found, expected = max_pool2d(pixels, 2), functional.max_pool2d(pixels, 2)
    assert found.dtype == expected.dtype
    assert found.is_contiguous()
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@torch.no_grad()
@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((2,), {}), (((2, 2),), {"stride": [2, 2]}), ((2, 1), {}), ((3,), {}), (([2, 3],), {}),
        ((2,), {"padding": 1}), ((2,), {"dilation": 2}), ((2,), {"ceil_mode": True}),
        ((2, None, 0, 1), {"return_indices": True}), ((), {"kernel_size": 2, "stride": (2, 1)}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(3, 2, 7, 6), (2, 7, 6)])
def test_max_pool2d_takes_the_settings_of_torch(
    args: tuple[Any, ...], named: dict[str, Any], shape: tuple[int, ...]
) -> None:
    pixels = images(shape)
    found, expected = (pool(pixels, *args, **named) for pool in (max_pool2d, functional.max_pool2d))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@torch.no_grad()
def test_max_pool2d_keeps_the_order_in_memory() -> None:
    pixels = images((2, 3, 4, 6)).to(memory_format=torch.channels_last)
    assert max_pool2d(pixels, 2).stride() == functional.max_pool2d(pixels, 2).stride()


@torch.no_grad()
@pytest.mark.parametrize(("shape", "size"), [((2, 1, 1, 4), 2), ((2, 4), 2), ((1, 1, 4, 4), 2.5)])
def test_max_pool2d_refuses_what_torch_does(shape: tuple[int, ...], size: float) -> None:
    messages = []
    for pool in (max_pool2d, functional.max_pool2d):
        with pytest.raises((RuntimeError, TypeError)) as refused:
            pool(images(shape), size)
        messages.append(str(refused.value))
    assert messages[0] == messages[1]


def test_faster_pooling_leaves_what_is_differentiated_to_torch() -> None:
    pixels = images((2, 3, 4, 6)).requires_grad_()
    with faster_pooling(nn.MaxPool2d(2)):
        pooled = functional.max_pool2d(input=pixels, kernel_size=2)
    assert type(pooled.grad_fn).__name__ == "MaxPool2DWithIndicesBackward0"


@pytest.mark.parametrize("size", [12, 14])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_and_accuracy_pools_whole_arrays_to_equal_bits(
    size: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 3, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(3),
    ).to(dtype)  # fmt: skip
    inputs, targets = torch.randn(1100, 1, size, size, dtype=dtype), torch.arange(1100) % 3
    network(inputs[:1])
    with torch.no_grad():
        expected = functional.cross_entropy(network(inputs), targets).item()
    shapes = []
    largest = pooling._largest
    monkeypatch.setattr(pooling, "_largest", lambda x: shapes.append(x.shape) or largest(x))
    found = loss_and_accuracy(network, inputs, targets)
    assert (1000, 4, size - 4, size - 4) in shapes
    monkeypatch.setattr(pooling, "max_pool2d", functional.max_pool2d)
    assert loss_and_accuracy(network, inputs, targets) == found
    assert found[0] == pytest.approx(expected, rel=1e3 * torch.finfo(dtype).eps)
