"""Lines and planes: closed forms, and exact end points."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, labels, network, normal, theta_of
from torch import nn
from torch.nn import functional

from hesspipe.data.dataset import Dataset
from hesspipe.landscape.paths import (
    evaluate_line,
    evaluate_plane,
    line_coefficients,
    plane_grid,
    plane_through,
)


def data(dtype: torch.dtype = torch.float64) -> Dataset:
    whole = Dataset(normal(30, 4), labels(30, 3), normal(10, 4, seed=5), labels(10, 3, seed=6), 3)
    return whole.to(dtype, torch.device("cpu"))


def test_line_coefficients_hold_both_ends_exactly():
    found = line_coefficients(num_between=7, num_beyond=3)
    assert len(found) == 7 + 2 * 3 + 1
    assert {0.0, 1.0} <= set(found)
    assert np.diff(found) == pytest.approx(1 / 7, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluate_line_meets_both_ends_to_the_last_bit(dtype):
    one, other = network([4, 5, 3]).to(dtype), network([4, 5, 3], std=0.3).to(dtype)
    ends = theta_of(one), theta_of(other) + 0.7
    torch.nn.utils.vector_to_parameters(ends[1].to(dtype), other.parameters())
    sample = data(dtype)
    table = evaluate_line(
        one, sample, ends[0], theta_of(other), [0.0, 0.3, 1.0], loss_fn=functional.cross_entropy
    )
    for row, model in ((0, one), (2, other)):
        outputs = model(sample.train_inputs), model(sample.test_inputs)
        targets = sample.train_targets, sample.test_targets
        for half, output, target in zip(("train", "test"), outputs, targets, strict=True):
            assert table[f"{half}_loss"][row] == functional.cross_entropy(output, target).item()
            right = (output.argmax(1) == target).double().mean().item()
            assert table[f"{half}_accuracy"][row] == pytest.approx(right, rel=1e-15)


def test_evaluate_line_is_that_of_a_linear_model_in_closed_form():
    # Softmax regression: outputs are linear in theta, so along the line they are mixed as theta is.
    one, other = (nn.Linear(4, 3).double() for _ in range(2))
    sample = data()
    coefficients = [-0.5, 0.25, 2.0]
    table = evaluate_line(
        one, sample, theta_of(one), theta_of(other), coefficients, loss_fn=functional.cross_entropy
    )
    for coefficient, loss in zip(coefficients, table["train_loss"], strict=True):
        outputs = (1 - coefficient) * one(sample.train_inputs) + coefficient * other(
            sample.train_inputs
        )
        expected = functional.cross_entropy(outputs, sample.train_targets).item()
        assert loss == pytest.approx(expected, rel=100 * EPS)


def test_evaluate_line_leaves_the_model_as_it_was():
    model = network([4, 5, 3])
    before = theta_of(model)
    evaluate_line(model, data(), before, before + 1, [0.5], loss_fn=functional.cross_entropy)
    assert torch.equal(theta_of(model), before)
    assert all(value.grad is None for value in model.parameters())


def test_evaluate_line_refuses_a_loss_that_is_not_finite():
    model = network([4, 5, 3]).float()
    start = theta_of(model)
    with pytest.raises(ArithmeticError, match=r"got (nan|inf) at coefficient 1e\+35; evaluate"):
        evaluate_line(
            model,
            data(torch.float32),
            start,
            start + 1,
            [0.0, 1e35],
            loss_fn=functional.cross_entropy,
        )


# Planes.


def test_plane_holds_its_three_points_at_their_distances():
    points = [normal(50, seed=seed) for seed in range(3)]
    plane = plane_through(*points)
    gram = plane.axes.mT @ plane.axes
    assert (gram - torch.eye(2, dtype=torch.float64)).abs().max() < 10 * EPS
    places = [plane.project(point) for point in points]
    assert places[0] == (0.0, 0.0, 0.0)
    assert places[1][0] == pytest.approx((points[1] - points[0]).norm().item(), rel=20 * EPS)
    assert abs(places[1][1]) < 50 * EPS
    assert places[2][1] > 0
    for point, (first, second, distance) in zip(points, places, strict=True):
        assert distance < 100 * EPS
        assert (plane.point(first, second) - point).norm() < 100 * EPS


def test_plane_projects_to_the_nearest_point():
    plane = plane_through(*(normal(20, seed=seed) for seed in range(3)))
    other = normal(20, seed=9)
    first, second, distance = plane.project(other)
    foot = plane.point(first, second)
    assert distance == pytest.approx((other - foot).norm().item(), rel=20 * EPS)
    assert (plane.axes.mT @ (other - foot)).abs().max() < 50 * EPS


def test_plane_refuses_three_points_of_one_line():
    start, step = normal(20), normal(20, seed=3)
    with pytest.raises(ValueError, match="must not lie on one line"):
        plane_through(start, start + step, start + 3 * step)


def test_plane_grid_covers_the_points_with_room():
    grid = plane_grid([(0.0, 0.0), (4.0, 0.0), (1.0, 2.0)], num_points=5, margin=0.25)
    assert grid.shape == (25, 2)
    assert grid.amin(0).tolist() == [-1.0, -1.0]
    assert grid.amax(0).tolist() == [5.0, 3.0]
    assert grid[:5, 0].unique().tolist() == [-1.0]


def test_evaluate_plane_is_the_line_where_the_plane_holds_it():
    models = [network([4, 5, 3], std=0.6) for _ in range(3)]
    points = [theta_of(models[0]) + 0.3 * normal(43, seed=seed) for seed in range(3)]
    plane = plane_through(*points)
    length = (points[1] - points[0]).norm().item()
    line = evaluate_line(
        models[0], data(), points[0], points[1], [0.0, 0.5, 1.5], loss_fn=functional.cross_entropy
    )
    grid = torch.tensor([[0.0, 0.0], [0.5 * length, 0.0], [1.5 * length, 0.0]], dtype=torch.float64)
    table = evaluate_plane(models[0], data(), plane, grid, loss_fn=functional.cross_entropy)
    assert list(table["train_loss"]) == pytest.approx(list(line["train_loss"]), rel=1000 * EPS)
    assert list(table.columns) == ["first", "second", "train_loss"]
