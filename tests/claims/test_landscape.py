"""Claims on the decomposition, the directions and the basins: a case for each verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.claims.check import check_claim, check_claims
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.curvature.matrix import Matrix
from hesspipe.tables import claims as claims_table
from hesspipe.tables.store import Result

Pair = tuple[ResultKey, Result]


def spectrum(values, matrix, step=9, experiment="a", seed=0, **about) -> Pair:
    values = np.sort(np.asarray(values, dtype=float))
    table = pd.DataFrame({"rank": range(len(values)), "eigenvalue": values})
    about |= {"experiment": experiment, "seed": seed, "step": step, "matrix": matrix}
    key = ResultKey(ResultKind.SPECTRA, experiment, seed, step, Matrix(matrix))
    return key, Result("spectrum", table, about)


@pytest.mark.parametrize(
    ("residuals", "verdict"),
    [
        (([0, -0.5], [0, 0.5]), "holds"),
        (([0, -0.5], [0, -3.0]), "holds in part"),
        (([0, -2.0], [-3.0, 0]), "does not hold"),
    ],
)
def test_residual_is_small_by_its_operator_norm(residuals, verdict) -> None:
    results = dict(
        pair
        for name, residual in zip("ab", residuals, strict=True)
        for pair in (
            spectrum([0, 10.0], "hessian", experiment=name),
            spectrum(residual, "residual", experiment=name),
        )
    )
    found = check_claim(
        results, kind="residual_is_small", section="2.2", experiments=["a", "b"], seeds=[0], step=9,
        max_ratio=0.1,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["largest_ratio"] == max(np.abs(residuals).max(1)) / 10


@pytest.mark.parametrize(
    ("first", "last", "verdict"),
    [(0.9, 0.05, "holds"), (0.9, 0.5, "holds in part"), (0.01, 0.05, "holds in part"),
     (0.2, 0.5, "does not hold")],
)  # fmt: skip
def test_residual_fades_if_it_falls_and_ends_low(first, last, verdict) -> None:
    results = dict(
        pair
        for step, ratio in ((100, last), (0, first), (50, 2.0))
        for pair in (
            spectrum([0, 1.0], "hessian", step), spectrum([-ratio, 0], "residual", step)
        )
    )  # fmt: skip
    found = check_claim(
        results, kind="residual_fades", section="2.2", experiment="a", seed=0, max_ratio=0.1
    )
    assert found["verdict"] == verdict
    assert found["measured"]["step_of_the_largest"] == 50
    assert (found["measured"]["first_ratio"], found["measured"]["last_ratio"]) == (first, last)


@pytest.mark.parametrize(
    ("num_zero", "verdict"), [(70, "holds"), (71, "holds"), (69, "does not hold")]
)
def test_trivial_zeros_are_at_least_parameters_minus_samples(num_zero, verdict) -> None:
    result = spectrum(
        np.zeros(100), "ggn", num_parameters=100, num_samples=30, num_classes=3, num_zero=num_zero
    )
    found = check_claim(
        dict([result]), kind="trivial_zeros", section="2.2", experiments=["a"], seeds=[0], step=9
    )
    assert found["verdict"] == verdict
    assert found["measured"]["parameters_minus_samples"] == [70]
    assert found["measured"]["parameters_minus_samples_times_outputs"] == [40]


def line(train, test, seed=0, accuracies=(0.9, 0.9, 0.91)) -> Pair:
    table = pd.DataFrame(
        {
            "coefficient": [-0.5, 0.0, 0.5, 1.0, 1.5],
            "train_loss": [99.0, *train, 99.0],
            "test_loss": [99.0, *test, 99.0],
            "test_accuracy": [0.1, *accuracies, 0.1],
        }
    )
    about = {"experiment": "b", "seed": seed}
    return ResultKey(ResultKind.LANDSCAPE, "b", seed, group="line"), Result("line", table, about)


@pytest.mark.parametrize(
    ("train", "test", "verdict"),
    [
        ((2.0, 1.5, 1.0), (3.0, 2.9, 2.8), "holds"),
        ((2.0, 2.1, 1.0), (3.0, 3.15, 2.8), "holds"),
        ((2.0, 2.2, 1.0), (3.0, 2.9, 2.8), "holds in part"),
        ((2.0, 2.2, 1.0), (3.0, 3.3, 2.8), "does not hold"),
    ],
)
def test_no_barrier_is_no_rise_above_the_higher_end(train, test, verdict) -> None:
    found = check_claim(
        dict([line(train, test)]), kind="no_barrier", section="4.1", experiment="b", seeds=[0],
        max_rise=0.051,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["train_loss"] == [pytest.approx(max(train[1] / 2 - 1, 0))]


def test_second_end_is_better_by_its_test_accuracy() -> None:
    better, worse = line((1, 1, 1), (1, 1, 1)), line((1, 1, 1), (1, 1, 1), 1, (0.9, 0.99, 0.9))
    settings = {"kind": "second_end_is_better", "section": "4.1", "experiment": "b", "seeds": [0]}
    assert check_claim(dict([better]), **settings)["verdict"] == "holds"
    assert check_claim(dict([better, worse]), **settings)["verdict"] == "holds in part"
    assert check_claim(dict([worse]), **settings)["measured"] == {"gains": [0.0]}


def directions(own, num_classes=3) -> Pair:
    table = pd.DataFrame({"order": range(1, len(own) + 1), "own": own})
    result = Result("directions", table, {"experiment": "a", "num_classes": num_classes})
    return ResultKey(ResultKind.DIRECTIONS, "a", 0, 9), result


@pytest.mark.parametrize(
    ("own", "verdict"),
    [
        ([0.9, 0.8, 0.2, 0.1], "holds"),
        ([0.9, 0.8, 0.9, 0.1], "holds"),
        ([0.9, 0.4, 0.9, 0.1], "does not hold"),
        ([0.9, 0.8, 0.9, 0.6], "does not hold"),
    ],
)
def test_outliers_are_class_means_up_to_the_last_class_and_no_further(own, verdict) -> None:
    found = check_claim(
        dict([directions(own)]), kind="outliers_are_class_means", section="3.1", experiments=["a"],
        seed=0, min_overlap=0.5,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["largest_after"] == own[3]


def test_claim_without_results_is_not_measured_and_keeps_its_criterion() -> None:
    claim = {"kind": "no_barrier", "section": "4.1", "experiment": "b", "seeds": [0],
             "max_rise": 0.05}  # fmt: skip
    key, _ = line((2, 3, 2), (2, 3, 2))
    verdicts = check_claims({"mine": claim}, {"mine": [key]}, {})
    assert verdicts["mine"]["verdict"] == "not measured"
    assert "max_rise 0.05" in verdicts["mine"]["criterion"]
    assert verdicts["mine"]["measured"]["reason"] == (
        f"needs CIFAR-10; build `{key.path}` to download it"
    )
    assert verdicts["mine"]["files"] == []


def test_check_claims_gives_each_claim_its_results_and_names_them() -> None:
    claims = {
        "barrier": {"kind": "no_barrier", "section": "4.1", "experiment": "b", "seeds": [1],
                    "max_rise": 0.05},
        "fades": {"kind": "residual_fades", "section": "2.2", "experiment": "a", "seed": 0,
                  "max_ratio": 0.1},
    }  # fmt: skip
    first, second = line((2, 3, 2), (2, 3, 2), 0), line((2, 2, 2), (2, 2, 2), 1)
    spectra = [
        spectrum([-ratio, 1.0], matrix, step)
        for step, ratio in ((0, 0.5), (9, 0.05))
        for matrix in ("residual", "hessian", "ggn")
    ]
    fades = [key for key, _ in spectra if key.matrix != Matrix.GGN]
    verdicts = check_claims(
        claims, {"barrier": [second[0]], "fades": fades}, dict([first, second, *spectra])
    )
    assert {name: found["files"] for name, found in verdicts.items()} == {
        "barrier": ["results/landscape/b/seed1/line.parquet"],
        "fades": [
            f"results/spectra/a/seed0/step{step}_{matrix}.parquet"
            for step in (0, 9)
            for matrix in ("hessian", "residual")
        ],
    }
    assert verdicts["barrier"]["rules"] == ["evaluate_line"]
    assert verdicts["barrier"]["verdict"] == "holds"
    table = claims_table.make_table(verdicts).set_index("claim")
    assert table.loc["fades", "rules"] == "extract_spectrum"
    assert list(table["section"]) == sorted(table["section"])
