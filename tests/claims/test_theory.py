"""Claims on the decomposition, the basins and random matrices: a case for each verdict."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from hesspipe.claims.check import check_claim, check_claims, claims_table
from hesspipe.experiments.spiked_models import compare_parts, compare_positions
from hesspipe.random_matrices.sampling import sample_largest, sample_spectra
from hesspipe.tables.store import Result


def spectrum(values, matrix, step=9, experiment="a", seed=0, **about) -> pd.DataFrame:
    values = np.sort(np.asarray(values, dtype=float))
    table = pd.DataFrame({"rank": range(len(values)), "eigenvalue": values})
    table.attrs = {
        "kind": "spectrum", "experiment": experiment, "seed": seed, "step": step,
        "matrix": matrix, "path": f"{experiment}/{seed}/{step}_{matrix}",
    } | about  # fmt: skip
    return table


@pytest.mark.parametrize(
    ("residuals", "verdict"),
    [
        (([0, -0.5], [0, 0.5]), "holds"),
        (([0, -0.5], [0, -3.0]), "holds in part"),
        (([0, -2.0], [-3.0, 0]), "does not hold"),
    ],
)
def test_residual_is_small_by_its_operator_norm(residuals, verdict) -> None:
    tables = [
        table
        for name, residual in zip("ab", residuals, strict=True)
        for table in (
            spectrum([0, 10.0], "hessian", experiment=name),
            spectrum(residual, "residual", experiment=name),
        )
    ]
    found = check_claim(
        tables, kind="residual_is_small", section="2.2", experiments=["a", "b"], seeds=[0], step=9,
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
    tables = [
        table
        for step, ratio in ((100, last), (0, first), (50, 2.0))
        for table in (
            spectrum([0, 1.0], "hessian", step), spectrum([-ratio, 0], "residual", step)
        )
    ]  # fmt: skip
    found = check_claim(
        tables, kind="residual_fades", section="2.2", experiment="a", seed=0, max_ratio=0.1
    )
    assert found["verdict"] == verdict
    assert found["measured"]["step_of_the_largest"] == 50
    assert (found["measured"]["first_ratio"], found["measured"]["last_ratio"]) == (first, last)


@pytest.mark.parametrize(
    ("num_zero", "verdict"), [(70, "holds"), (71, "holds"), (69, "does not hold")]
)
def test_trivial_zeros_are_at_least_parameters_minus_samples(num_zero, verdict) -> None:
    table = spectrum(
        np.zeros(100), "ggn", num_parameters=100, num_samples=30, num_classes=3, num_zero=num_zero
    )
    found = check_claim(
        [table], kind="trivial_zeros", section="2.2", experiments=["a"], seeds=[0], step=9
    )
    assert found["verdict"] == verdict
    assert found["measured"]["parameters_minus_samples"] == [70]
    assert found["measured"]["parameters_minus_samples_times_outputs"] == [40]


def line(train, test, seed=0, accuracies=(0.9, 0.9, 0.91)) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "coefficient": [-0.5, 0.0, 0.5, 1.0, 1.5],
            "train_loss": [99.0, *train, 99.0],
            "test_loss": [99.0, *test, 99.0],
            "test_accuracy": [0.1, *accuracies, 0.1],
        }
    )
    table.attrs = {"kind": "line", "experiment": "b", "seed": seed, "path": f"line{seed}"}
    return table


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
        [line(train, test)], kind="no_barrier", section="4.1", experiment="b", seeds=[0],
        max_rise=0.051,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["train_loss"] == [pytest.approx(max(train[1] / 2 - 1, 0))]


def test_second_end_is_better_by_its_test_accuracy() -> None:
    better, worse = line((1, 1, 1), (1, 1, 1)), line((1, 1, 1), (1, 1, 1), 1, (0.9, 0.99, 0.9))
    settings = {"kind": "second_end_is_better", "section": "4.1", "experiment": "b", "seeds": [0]}
    assert check_claim([better], **settings)["verdict"] == "holds"
    assert check_claim([better, worse], **settings)["verdict"] == "holds in part"
    assert check_claim([worse], **settings)["measured"] == {"gains": [0.0]}


def directions(own, num_classes=3) -> pd.DataFrame:
    table = pd.DataFrame({"order": range(1, len(own) + 1), "own": own})
    table.attrs = {"kind": "directions", "experiment": "a", "num_classes": num_classes}
    return table


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
        [directions(own)], kind="outliers_are_class_means", section="3.1", experiments=["a"],
        seed=0, min_overlap=0.5,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["largest_after"] == own[3]


def law(distance, plain) -> pd.DataFrame:
    table = pd.DataFrame({"position": [1.0]})
    table.attrs = {
        "kind": "law", "name": "one", "distance": distance, "plain_distance": plain, "path": "law",
    }  # fmt: skip
    return table


def outliers(side, predicted, measured) -> pd.DataFrame:
    table = pd.DataFrame({"side": side, "predicted": predicted, "measured": measured})
    table.attrs = {"kind": "law_outliers", "name": "one", "upper_edge": 0.5, "path": "outliers"}
    return table


def test_laws_hold_up_to_their_distance() -> None:
    tables = [law(0.01, 0.2), law(0.03, 0.02)]
    settings = {"section": "B", "sources": ["one"], "max_distance": 0.02}
    assert check_claim(tables, kind="generalized_law", **settings)["verdict"] == "holds in part"
    found = check_claim(tables, kind="plain_law", **settings)
    assert found["measured"]["distances"] == [0.2, 0.02]
    assert check_claim(tables[:1], kind="plain_law", **settings)["verdict"] == "does not hold"


@pytest.mark.parametrize(
    ("side", "predicted", "measured", "verdict"),
    [
        (["right"], [2.0], [2.1], "holds"),
        (["left", "right"], [0.1, 2.0], [0.3, 2.1], "holds"),
        (["right"], [2.0], [2.5], "does not hold"),
        (["right", "right"], [2.0, 3.0], [2.0, 3.0], "does not hold"),
        ([], [], [], "does not hold"),
    ],
)
def test_large_outlier_is_one_and_where_it_is_predicted(side, predicted, measured, verdict) -> None:
    found = check_claim(
        [outliers(side, predicted, measured)], kind="large_outlier", section="B", sources=["one"],
        max_error=0.1,
    )  # fmt: skip
    assert found["verdict"] == verdict


@pytest.fixture(scope="module")
def spikes() -> pd.DataFrame:
    table = sample_largest(
        strengths=[1.0, 1.9, 4.0], num_samples=[50, 400, 3200], aspect_ratio=1.0, num_repeats=300,
        seed=0,
    )  # fmt: skip
    table.attrs = {"kind": "spikes", "name": "spikes", "path": "spikes"}
    return table


def test_theorem_1_holds_for_what_it_is_about_and_not_for_another(spikes: pd.DataFrame) -> None:
    settings = {"section": "B", "sources": ["spikes"], "min_distance": 0.5}
    positions = check_claim([spikes], kind="spike_positions", max_errors=1.5, **settings)
    assert positions["verdict"] == "holds"
    assert positions["measured"]["num_points"] == 6  # without the strength at the transition
    assert positions["measured"]["edge_exponent"] == pytest.approx(-2 / 3, abs=0.05)
    assert positions["measured"]["outlier_exponent"] == pytest.approx(-1 / 2, abs=0.05)
    fluctuations = {"kind": "spike_fluctuations", "min_p_value": 0.001, **settings}
    assert check_claim([spikes], **fluctuations)["verdict"] == "holds"
    shifted = spikes.assign(eigenvalue=1.1 * spikes["eigenvalue"])
    assert check_claim([shifted], **fluctuations)["verdict"] == "does not hold"
    found = check_claim([shifted], kind="spike_positions", max_errors=1.5, **settings)
    assert found["verdict"] != "holds"


def test_theorem_2_holds_for_what_it_is_about_and_not_for_another() -> None:
    entry = {"strengths": [8.0, 0.05], "num_parameters": 60, "num_samples": 240, "num_repeats": 10,
             "seed": 0}  # fmt: skip
    table = sample_spectra(**entry)
    table.attrs = entry | {"kind": "spiked_spectra", "name": "one", "path": "spectra"}
    settings = {"kind": "spectrum_parts", "section": "B", "sources": ["one"], "max_errors": 3.0}
    found = check_claim([table], **settings)
    assert found["verdict"] == "holds"
    assert found["measured"]["num_parts"] == 5
    table.attrs = table.attrs | {"strengths": [4.0, 0.05]}
    assert check_claim([table], **settings)["verdict"] == "holds in part"


def test_claim_without_tables_is_not_measured_and_keeps_its_criterion() -> None:
    claim = {"kind": "no_barrier", "section": "4.1", "experiment": "b", "seeds": [0],
             "max_rise": 0.05}  # fmt: skip
    verdicts = check_claims([], {"mine": claim})
    assert verdicts["mine"]["verdict"] == "not measured"
    assert "max_rise 0.05" in verdicts["mine"]["criterion"]
    assert verdicts["mine"]["files"] == []


def test_check_claims_gives_each_claim_its_tables_and_says_which() -> None:
    claims = {
        "barrier": {"kind": "no_barrier", "section": "4.1", "experiment": "b", "seeds": [1],
                    "max_rise": 0.05},
        "law": {"kind": "plain_law", "section": "B", "sources": ["one"], "max_distance": 0.1},
        "fades": {"kind": "residual_fades", "section": "2.2", "experiment": "a", "seed": 0,
                  "max_ratio": 0.1},
    }  # fmt: skip
    tables = [
        line((2, 3, 2), (2, 3, 2), 0), line((2, 2, 2), (2, 2, 2), 1), law(0.3, 0.05),
        outliers([], [], []),
        *(spectrum([-ratio, 1.0], matrix, step) for step, ratio in ((0, 0.5), (9, 0.05))
          for matrix in ("hessian", "ggn", "residual")),
    ]  # fmt: skip
    verdicts = check_claims(tables, claims)
    assert {name: found["files"] for name, found in verdicts.items()} == {
        "barrier": ["line1"],
        "law": ["law", "outliers"],
        "fades": [f"a/0/{step}_{matrix}" for step in (0, 9) for matrix in ("hessian", "residual")],
    }
    assert verdicts["barrier"]["rules"] == ["evaluate_line"]
    assert verdicts["barrier"]["verdict"] == "holds"
    table = claims_table(verdicts).set_index("claim")
    assert table.loc["law", "measured"].startswith("distances 0.05;")
    assert table.loc["fades", "rules"] == "extract_spectrum"
    assert list(table["section"]) == sorted(table["section"])
