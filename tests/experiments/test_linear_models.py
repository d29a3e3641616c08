"""Linear models against a dense Hessian, the laws that predict them, and the way they are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import EPS, assert_close
from torch.nn import functional

from hesspipe.curvature.dense import residual_matrix
from hesspipe.experiments.laws import compare_with_laws, group_means
from hesspipe.experiments.linear_extraction import linear_model_tables
from hesspipe.experiments.linear_models import descend, linear_model
from hesspipe.tables.laws import law_table

SMALL = {
    "num_features": 6, "num_samples": 40, "signal": 2.0, "initial_norm": 1.5,
    "step_size": 0.1, "num_steps": 30, "seed": 3,
}  # fmt: skip


@pytest.mark.parametrize("model", ["logistic", "softmax"])
def test_hessian_is_the_sample_covariance_with_these_weights(model: str) -> None:
    found = linear_model(model=model, **SMALL)
    (batch,) = found.objective.batches

    def loss(theta: torch.Tensor) -> torch.Tensor:
        outputs = batch.inputs @ theta.view(-1, SMALL["num_features"]).T
        if model == "logistic":
            return functional.binary_cross_entropy_with_logits(outputs, batch.targets)
        return functional.cross_entropy(outputs, batch.targets)

    hessian = torch.autograd.functional.hessian(loss, found.objective.theta)
    covariance = batch.inputs.T @ (found.curvatures[:, None] * batch.inputs) / 40
    if model == "logistic":
        assert_close(hessian, covariance)
    else:
        pair = torch.tensor([[0.5, -0.5], [-0.5, 0.5]], dtype=torch.float64)
        assert_close(hessian, torch.kron(pair, covariance))
    assert residual_matrix(found.objective).abs().max() == 0


@pytest.mark.parametrize("model", ["logistic", "softmax"])
def test_curvature_depends_on_the_projections_alone(model: str) -> None:
    found = linear_model(model=model, **SMALL)
    (batch,) = found.objective.batches
    weights = found.objective.theta.view(-1, SMALL["num_features"])
    slope = weights[0] if model == "logistic" else weights[1] - weights[0]
    logits = batch.inputs @ slope
    solution = torch.linalg.lstsq(found.projections, logits[:, None])
    assert_close(found.projections @ solution.solution, logits[:, None])
    # An orthonormal basis keeps the slope's length.
    assert float(solution.solution.norm()) == pytest.approx(float(slope.norm()), rel=1e-10)


def test_descent_decreases_the_loss_and_stops_where_it_starts_without_steps() -> None:
    start = linear_model(model="logistic", **(SMALL | {"num_steps": 0}))
    end = linear_model(model="logistic", **SMALL)
    theta = start.objective.theta
    assert end.objective.loss(end.objective.theta) < start.objective.loss(theta)
    assert torch.equal(descend(start.objective, 0.1, 0), theta)
    step = theta - 0.1 * torch.func.grad(start.objective.loss)(theta)
    assert (descend(start.objective, 0.1, 1) - step).abs().max() <= 10 * EPS


def test_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="model must be 'logistic' or 'softmax', got 'probit'"):
        linear_model(model="probit", **SMALL)


@pytest.mark.parametrize(
    ("model", "num_features", "num_samples", "num_steps"),
    [("logistic", 120, 120, 200), ("softmax", 60, 300, 0), ("softmax", 100, 50, 200)],
)
def test_generalized_law_predicts_the_spectrum_and_plain_law_does_not(
    model: str, num_features: int, num_samples: int, num_steps: int
) -> None:
    entry = {
        "kind": "linear_model", "model": model, "num_features": num_features,
        "num_samples": num_samples, "signal": 3.0, "initial_norm": 2.0, "step_size": 0.1,
        "num_steps": num_steps, "seed": 1, "num_groups": 50 if num_samples % 60 else 60,
        "num_positions": 40,
    }  # fmt: skip
    spectrum, samples, about = linear_model_tables("one", entry, zero_tolerance=1.0)
    spectrum.attrs = about
    law, outliers, summary = compare_with_laws(
        spectrum, samples, num_groups=entry["num_groups"], num_positions=40
    )
    num_bulk = min(num_features, num_samples)
    assert summary["distance"] < 4 * np.log(num_bulk) / num_bulk
    assert summary["plain_distance"] > 1.5 * summary["distance"]
    assert about["num_zero"] == summary["num_zero_predicted"]
    assert about["num_zero"] == about["num_parameters"] - num_bulk
    # The law's mean is the mean curvature: trace over d.
    mean = float(np.trapezoid(law["position"] * law["density"], law["position"]))
    assert mean == pytest.approx(float(samples["curvature"].mean()), rel=0.02)
    if num_steps == 0:
        right = outliers[outliers["side"] == "right"]
        assert len(right) == 1
        assert float(right["measured"].iloc[0] / right["predicted"].iloc[0]) == pytest.approx(
            1, abs=4 * np.sqrt(2 / num_samples)
        )
    law.attrs = about | summary
    (row,) = law_table([law], [outliers]).to_dict("records")
    assert row["distance"] == summary["distance"]
    assert row["alpha"] == (2 if model == "softmax" else 1) * num_features / num_samples
    assert len(row["outliers_predicted"].split()) == len(outliers)


def test_group_means_keep_the_mean_and_refuse_unequal_groups() -> None:
    values = np.array([4.0, 1.0, 3.0, 2.0])
    np.testing.assert_array_equal(group_means(values, 2), [1.5, 3.5])
    np.testing.assert_array_equal(group_means(values, 4), [1.0, 2.0, 3.0, 4.0])
    with pytest.raises(ValueError, match=r"num_groups must divide the number of samples \(4\)"):
        group_means(values, 3)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    linear_model(model="softmax", **SMALL)
    assert torch.equal(before, torch.get_rng_state())
