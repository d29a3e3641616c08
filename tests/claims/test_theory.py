"""Claims on random matrices: a case for each verdict."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from hesspipe.claims.check import check_claim
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.experiments.spiked_models import compare_parts, compare_positions
from hesspipe.random_matrices.sampling import sample_largest, sample_spectra
from hesspipe.tables.store import Result

Results = dict[ResultKey, Result]


def by_key(*results: Result) -> Results:
    return {
        ResultKey(ResultKind.RANDOM_MATRICES, f"source{number}", group=result.kind): result
        for number, result in enumerate(results)
    }


def law(distance, plain) -> Result:
    table = pd.DataFrame({"position": [1.0]})
    return Result("law", table, {"name": "one", "distance": distance, "plain_distance": plain})


def outliers(side, predicted, measured) -> Result:
    table = pd.DataFrame({"side": side, "predicted": predicted, "measured": measured})
    return Result("law_outliers", table, {"name": "one", "upper_edge": 0.5})


def test_laws_hold_up_to_their_distance() -> None:
    both, first = by_key(law(0.01, 0.2), law(0.03, 0.02)), by_key(law(0.01, 0.2))
    settings = {"section": "B", "sources": ["one"], "max_distance": 0.02}
    assert check_claim(both, kind="generalized_law", **settings)["verdict"] == "holds in part"
    found = check_claim(both, kind="plain_law", **settings)
    assert found["measured"]["distances"] == [0.2, 0.02]
    assert check_claim(first, kind="plain_law", **settings)["verdict"] == "does not hold"


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
    results = by_key(outliers(side, predicted, measured))
    found = check_claim(results, kind="large_outlier", section="B", sources=["one"], max_error=0.1)
    assert found["verdict"] == verdict


def positions_of(spikes: pd.DataFrame) -> Results:
    return by_key(Result("positions", compare_positions(spikes), {"name": "spikes"}))


@pytest.fixture(scope="module")
def spikes() -> pd.DataFrame:
    return sample_largest(
        strengths=[1.0, 1.9, 4.0], num_samples=[50, 400, 3200], aspect_ratio=1.0, num_repeats=300,
        seed=0,
    )  # fmt: skip


def test_theorem_1_holds_for_what_it_is_about_and_not_for_another(spikes: pd.DataFrame) -> None:
    settings = {"section": "B", "sources": ["spikes"], "min_distance": 0.5}
    positions = check_claim(
        positions_of(spikes), kind="spike_positions", max_errors=1.5, **settings
    )
    assert positions["verdict"] == "holds"
    assert positions["measured"]["num_points"] == 6  # without the strength at the transition
    assert positions["measured"]["edge_exponent"] == pytest.approx(-2 / 3, abs=0.05)
    assert positions["measured"]["outlier_exponent"] == pytest.approx(-1 / 2, abs=0.05)
    fluctuations = {"kind": "spike_fluctuations", "min_p_value": 0.001, **settings}
    assert check_claim(positions_of(spikes), **fluctuations)["verdict"] == "holds"
    shifted = positions_of(spikes.assign(eigenvalue=1.1 * spikes["eigenvalue"]))
    assert check_claim(shifted, **fluctuations)["verdict"] == "does not hold"
    found = check_claim(shifted, kind="spike_positions", max_errors=1.5, **settings)
    assert found["verdict"] != "holds"


def test_theorem_2_holds_for_what_it_is_about_and_not_for_another() -> None:
    entry = {"strengths": [8.0, 0.05], "num_parameters": 60, "num_samples": 240, "num_repeats": 10,
             "seed": 0}  # fmt: skip
    spectra = sample_spectra(**entry)

    def parts(strengths: list[float]) -> Results:
        about = entry | {"name": "one", "strengths": strengths}
        return by_key(Result("parts", compare_parts(Result("spiked_spectra", spectra, about)), {}))

    settings = {"kind": "spectrum_parts", "section": "B", "sources": ["one"], "max_errors": 3.0}
    found = check_claim(parts([8.0, 0.05]), **settings)
    assert found["verdict"] == "holds"
    assert found["measured"]["num_parts"] == 5
    assert check_claim(parts([4.0, 0.05]), **settings)["verdict"] == "holds in part"


def test_spike_positions_of_one_size_are_strict_json(spikes: pd.DataFrame) -> None:
    one = spikes[spikes["num_samples"] == spikes["num_samples"].max()]
    settings = {"section": "B", "sources": ["spikes"], "max_errors": 3.0}
    found = check_claim(positions_of(one), kind="spike_positions", min_distance=0.5, **settings)
    assert found["measured"]["edge_exponent"] is None
    assert found["measured"]["outlier_exponent"] is None
    assert isinstance(found["measured"]["largest_error"], float)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("spike_positions", {"max_errors": 3.0}),
        ("spike_fluctuations", {"min_p_value": 0.01}),
    ],
)
def test_claims_without_anything_to_check_are_not_measured(
    spikes: pd.DataFrame, kind: str, limits: dict[str, float]
) -> None:
    found = check_claim(
        positions_of(spikes), kind=kind, section="B", sources=["spikes"], min_distance=1e6, **limits
    )
    assert found["verdict"] == "not measured"
    json.dumps(found, allow_nan=False)
