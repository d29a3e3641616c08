"""Linear models against a dense Hessian, the laws that predict them, and their samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from problems import EPS, assert_close
from torch.nn import functional

from hesspipe.curvature.dense import residual_matrix
from hesspipe.experiments.laws import compare_with_laws, group_means
from hesspipe.experiments.linear_models import descend, extract_linear_model, linear_model
from hesspipe.random_matrices.marchenko_pastur import MarchenkoPastur
from hesspipe.tables import laws
from hesspipe.tables.store import Result, read_result, write_result

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
    # An orthonormal basis preserves the length of the slope.
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


def compare(folder: Path, **changes) -> tuple[dict[str, Any], list[Result]]:
    """Extract and compare, and check that all of it can be stored."""
    entry = {
        "kind": "linear_model", "signal": 3.0, "initial_norm": 2.0, "step_size": 0.1,
        "seed": 1, "num_positions": 40, "num_bins": 12,
    } | changes  # fmt: skip
    spectrum, samples = extract_linear_model(name="one", entry=entry, zero_tolerance=1.0)
    settings = {key: entry[key] for key in ("num_groups", "num_positions", "num_bins")}
    results = [spectrum, samples, *compare_with_laws(spectrum, samples, **settings)]
    for result in results:
        path = folder / f"{result.kind}.parquet"
        write_result(result, path)
        pd.testing.assert_frame_equal(read_result(path).table, result.table, check_dtype=False)
    return entry, results


@pytest.mark.parametrize(
    ("model", "num_features", "num_samples", "num_steps"),
    [("logistic", 120, 120, 200), ("softmax", 60, 300, 0), ("softmax", 100, 50, 200)],
)
def test_generalized_law_predicts_the_spectrum_and_plain_law_does_not(
    model: str, num_features: int, num_samples: int, num_steps: int, tmp_path: Path
) -> None:
    _, results = compare(
        tmp_path, model=model, num_features=num_features, num_samples=num_samples,
        num_steps=num_steps, num_groups=50 if num_samples % 60 else 60,
    )  # fmt: skip
    _, samples, law, outliers, _ = results
    num_bulk, about = min(num_features, num_samples), law.provenance
    assert about["distance"] < 4 * np.log(num_bulk) / num_bulk
    assert about["plain_distance"] > 1.5 * about["distance"]
    assert about["num_zero"] == about["num_zero_predicted"]
    assert about["num_zero"] == about["num_parameters"] - num_bulk
    # The law's mean is the mean curvature: trace over d.
    position = law.table["position"]
    mean = float(np.trapezoid(position * law.table["density"], position))
    assert mean == pytest.approx(float(samples.table["curvature"].mean()), rel=0.02)
    if num_steps == 0:
        right = outliers.table[outliers.table["side"] == "right"]
        assert len(right) == 1
        assert float(right["measured"].iloc[0] / right["predicted"].iloc[0]) == pytest.approx(
            1, abs=4 * np.sqrt(2 / num_samples)
        )
    (row,) = laws.make_table(results, {}).to_dict("records")
    assert row["distance"] == about["distance"]
    assert row["alpha"] == (2 if model == "softmax" else 1) * num_features / num_samples
    assert len(row["outliers_predicted"].split()) == len(outliers.table)


@pytest.mark.parametrize(
    ("num_features", "num_samples", "num_steps"), [(120, 60, 300), (60, 120, 0), (80, 80, 300)]
)
def test_histogram_holds_every_eigenvalue_and_the_whole_mass_of_the_laws(
    num_features: int, num_samples: int, num_steps: int, tmp_path: Path
) -> None:
    entry, (spectrum, samples, law, _, histogram) = compare(
        tmp_path, model="logistic", num_features=num_features, num_samples=num_samples,
        num_steps=num_steps, num_groups=num_samples,
    )  # fmt: skip
    table, num_nonzero = histogram.table, min(num_features, num_samples)
    assert len(table) == entry["num_bins"]
    assert list(table["lower"][1:]) == list(table["upper"][:-1])
    widths = table["upper"] - table["lower"]
    counts = table["measured"] * widths * num_features
    np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
    assert counts.sum() == pytest.approx(num_nonzero)
    roots = np.sqrt(spectrum.table["eigenvalue"][num_features - num_nonzero :])
    assert round(counts[0]) == (roots <= table["upper"][0]).sum()
    for column in ("density", "plain_density"):
        mass = float((table[column] * widths).sum())
        assert mass == pytest.approx(num_nonzero / num_features, abs=1e-6)
    plain = MarchenkoPastur(num_features / num_samples, float(samples.table["curvature"].mean()))
    expected = np.diff(plain.cdf(np.append(table["lower"], table["upper"].iloc[-1]) ** 2))
    np.testing.assert_allclose(table["plain_density"] * widths, expected, atol=1e-12)
    assert law.provenance["upper_edge"] <= table["upper"].iloc[-1] ** 2 * (1 + 1e-12)


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
