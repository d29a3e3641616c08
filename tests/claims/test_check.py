"""Statements about spectra, with a case for each verdict."""

import numpy as np
import pandas as pd
import pytest

from hesspipe.claims.check import check_claim, check_claims
from hesspipe.claims.runs import Run, run_of
from hesspipe.config.results import ResultKey, ResultKind
from hesspipe.curvature.matrix import Matrix
from hesspipe.tables.store import Result

# Shares of eigenvalues within 0.1 of the largest magnitude: 3/4, 1/2 and 1/4.
SPREADS = {
    "flat": [-0.1, 0.0, 0.1, 1.0],
    "half": [-1.0, 0.0, 0.1, 1.0],
    "steep": [-2.0, 0.5, 1.0, 0.0],
}


def run(name: str, **known) -> Run:
    blank = {
        "num_classes": 3,
        "eigenvalues": np.array([-0.1, 1.0]),
        "num_outliers": {"gap": 0},
        "num_negative": 1,
    }
    return Run(name, **blank | known)


def results_of(runs: list[Run], seed: int = 0) -> dict[ResultKey, Result]:
    """The spectra and the outlier counts of some runs."""
    results = {}
    for run in runs:
        labels = {"experiment": run.name, "seed": seed, "num_classes": run.num_classes}
        ranks = range(len(run.eigenvalues))
        spectrum = Result(
            "spectrum",
            pd.DataFrame({"rank": ranks, "eigenvalue": run.eigenvalues}),
            labels | {"step": 100, "matrix": "hessian", "num_negative": run.num_negative},
        )
        rows = [(100, "hessian", rule, number) for rule, number in run.num_outliers.items()]
        columns = ["step", "matrix", "rule", "num_outliers"]
        counts = Result("outliers", pd.DataFrame(rows, columns=columns), labels)
        results |= {
            ResultKey(ResultKind.SPECTRA, run.name, seed, 100, Matrix.HESSIAN): spectrum,
            ResultKey(ResultKind.OUTLIERS, run.name, seed): counts,
        }
    return results


def check(runs: list[Run], kind: str, **settings) -> dict:
    if kind != "counts_grow":
        settings = {"experiments": [run.name for run in runs], **settings}
    results = results_of(runs)
    return check_claim(results, kind=kind, section="9.9", seed=0, step=100, **settings)


def flatness(*names: str, **settings) -> dict:
    runs = [run(f"{name}{i}", eigenvalues=np.sort(SPREADS[name])) for i, name in enumerate(names)]
    return check(runs, "flatness", **{"max_magnitude": 0.1, "min_share": 0.5} | settings)


@pytest.mark.parametrize(
    ("names", "verdict"),
    [
        (["flat", "flat"], "holds"),
        (["flat", "half"], "holds"),
        (["flat", "steep"], "holds in part"),
        (["steep", "half", "steep"], "holds in part"),
        (["steep", "steep"], "does not hold"),
    ],
)
def test_flatness_has_the_verdict_of_its_runs(names, verdict):
    assert flatness(*names)["verdict"] == verdict


def test_flatness_measures_shares_of_the_largest_magnitude():
    measured = flatness("steep", "flat", "half")["measured"]
    assert measured == {"smallest_share": 0.25, "median_share": 0.5, "num_runs": 3}


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        ({"min_share": 0.76}, "does not hold"),
        ({"min_share": 0.75}, "holds"),
        ({"max_magnitude": 0.099}, "does not hold"),
        ({"max_magnitude": 1.0, "min_share": 1.0}, "holds"),
    ],
)
def test_flatness_holds_up_to_its_bounds_and_no_further(settings, verdict):
    assert flatness("flat", **settings)["verdict"] == verdict


def counts_match(*num_outliers: int, **settings) -> dict:
    runs = [run(f"run{i}", num_outliers={"gap": 9, "ratio": n}) for i, n in enumerate(num_outliers)]
    defaults = {"rule": "ratio", "max_difference": 1, "min_share": 0.75}
    return check(runs, "counts_match", **defaults | settings)


@pytest.mark.parametrize(
    ("num_outliers", "verdict"),
    [
        ([3, 2, 3], "holds"),
        ([3, 2, 3, 1], "holds"),
        ([3, 2, 4, 1], "holds in part"),
        ([3, 4, 4, 4], "holds in part"),
        ([4, 1, 0], "does not hold"),
    ],
)
def test_counts_match_has_the_verdict_of_its_runs(num_outliers, verdict):
    assert counts_match(*num_outliers)["verdict"] == verdict


def test_counts_match_measures_what_is_equal_and_what_is_near():
    measured = counts_match(3, 2, 2, 4, 1)["measured"]
    assert measured == {"num_equal": 1, "num_within": 3, "num_runs": 5}


@pytest.mark.parametrize(("max_difference", "expected"), [(0, 1), (1, 2), (2, 3), (9, 4)])
def test_counts_match_counts_fewer_and_never_more(max_difference, expected):
    measured = counts_match(5, 4, 3, 2, 1, 0, max_difference=max_difference)["measured"]
    assert measured["num_within"] == expected


def counts_grow(*groups: list[int]) -> dict:
    names = [[f"run{i}_{j}" for j in range(len(group))] for i, group in enumerate(groups)]
    runs = [
        run(name, num_outliers={"gap": -len(name), "ratio": count})
        for line, group in zip(names, groups, strict=True)
        for name, count in zip(line, group, strict=True)
    ]
    return check(runs, "counts_grow", groups=names, rule="ratio")


@pytest.mark.parametrize(
    ("groups", "verdict"),
    [
        ([[1, 2, 5], [0, 1]], "holds"),
        ([[1, 2, 5], [1, 1]], "holds in part"),
        ([[1, 5, 2], [0, 1]], "holds in part"),
        ([[1, 1], [2, 1]], "does not hold"),
        ([[5, 2, 9]], "does not hold"),
    ],
)
def test_counts_grow_has_the_verdict_of_its_groups(groups, verdict):
    result = counts_grow(*groups)
    assert result["verdict"] == verdict
    assert result["measured"] == {"counts": groups}


def negative_part(*pairs: tuple[float, int]) -> dict:
    """Runs whose largest eigenvalue is 2, each with its smallest and its number of negatives."""
    runs = [
        run(f"run{i}", eigenvalues=np.array([smallest, 0.0, 2.0]), num_negative=num_negative)
        for i, (smallest, num_negative) in enumerate(pairs)
    ]
    return check(runs, "negative_part", max_magnitude=0.25)


@pytest.mark.parametrize(
    ("pairs", "verdict"),
    [
        ([(-0.5, 1), (-0.25, 7)], "holds"),
        ([(-0.5, 1), (-0.75, 7)], "holds in part"),
        ([(-0.5, 1), (0.0, 0)], "holds in part"),
        ([(-0.75, 1), (-4.0, 7)], "does not hold"),
        ([(-1e-18, 0)], "does not hold"),
    ],
)
def test_negative_part_has_the_verdict_of_its_runs(pairs, verdict):
    assert negative_part(*pairs)["verdict"] == verdict


def test_negative_part_measures_the_smallest_against_the_largest():
    assert negative_part((-0.5, 6), (-1.0, 4), (-0.25, 5))["measured"] == {
        "smallest_ratio": 0.125,
        "largest_ratio": 0.5,
        "num_within": 2,
        "num_runs": 3,
        "fewest_negative": 4,
    }


@pytest.mark.parametrize(
    ("result", "numbers"),
    [
        (flatness("flat"), ["50%", "0.1 times"]),
        (counts_match(3), ["ratio rule", "up to 1 fewer", "75%"]),
        (counts_grow([1, 2]), ["ratio rule"]),
        (negative_part((-1.0, 1)), ["0.25 times"]),
    ],
    ids=["flatness", "counts_match", "counts_grow", "negative_part"],
)
def test_check_claim_has_the_numbers_of_its_criterion(result, numbers):
    assert [number for number in numbers if number not in result["criterion"]] == []
    assert result["where"] == "Section 9.9"


def test_check_claim_ignores_runs_that_it_does_not_name():
    runs = [run("named", num_negative=1), run("other", num_negative=0)]
    result = check(runs, "negative_part", experiments=["named"], max_magnitude=0.1)
    assert (result["verdict"], result["measured"]["num_runs"]) == ("holds", 1)


def spectrum(name: str, seed: int = 0, step: int = 100, largest: float = 1.0):
    key = ResultKey(ResultKind.SPECTRA, name, seed, step, Matrix.HESSIAN)
    table = pd.DataFrame({"rank": [0, 1], "eigenvalue": [-0.1, largest]})
    provenance = {
        "experiment": name, "seed": seed, "step": step, "matrix": "hessian", "num_classes": 3,
        "num_negative": 1,
    }  # fmt: skip
    return key, Result("spectrum", table, provenance)


def outliers(name: str, seed: int = 0):
    rows = [
        (0, "hessian", "gap", 7),
        (100, "ggn", "gap", 8),
        (100, "hessian", "gap", 3),
        (100, "hessian", "ratio", 2),
        (100, "residual", "ratio", 6),
        (200, "hessian", "gap", 9),
    ]
    table = pd.DataFrame(rows, columns=["step", "matrix", "rule", "num_outliers"])
    result = Result("outliers", table, {"experiment": name, "seed": seed})
    return ResultKey(ResultKind.OUTLIERS, name, seed), result


def test_run_of_takes_counts_at_the_step_and_matrix_of_the_spectrum():
    result = run_of(spectrum("a")[1], outliers("a")[1])
    assert result.num_outliers == {"gap": 3, "ratio": 2}
    assert (result.name, result.num_classes, result.num_negative) == ("a", 3, 1)
    assert result.eigenvalues.tolist() == [-0.1, 1.0]


def test_run_of_has_no_counts_without_outliers():
    assert run_of(spectrum("a")[1], None).num_outliers == {}


@pytest.mark.parametrize(
    ("seed", "step", "verdict"), [(0, 100, "holds"), (0, 200, "does not hold"), (1, 100, "holds")]
)
def test_check_claims_takes_the_results_that_the_claim_reads(seed, step, verdict):
    # Only the last step of seed 0 has a negative part as large as a tenth of the rest.
    results = dict(
        [
            spectrum("a", 0, 100, largest=4.0),
            spectrum("a", 0, 200, largest=0.5),
            spectrum("a", 1, 100, largest=8.0),
            outliers("a", 0),
            outliers("a", 1),
        ]
    )
    claim = {"kind": "negative_part", "section": "1", "experiments": ["a"], "max_magnitude": 0.1}
    reads = {"mine": [ResultKey(ResultKind.SPECTRA, "a", seed, step, Matrix.HESSIAN)]}
    verdicts = check_claims({"mine": claim | {"seed": seed, "step": step}}, reads, results)
    assert verdicts["mine"]["verdict"] == verdict


def test_check_claims_keeps_every_claim_under_its_name():
    shared = {"section": "1", "seed": 0, "step": 100, "rule": "gap"}
    claims = {
        "grow": {"kind": "counts_grow", "groups": [["a", "b"]], **shared},
        "match": {
            "kind": "counts_match",
            "experiments": ["a", "b"],
            "max_difference": 0,
            "min_share": 1.0,
            **shared,
        },
    }
    results = dict(make(name) for make in (spectrum, outliers) for name in ("a", "b"))
    verdicts = check_claims(claims, {name: list(results) for name in claims}, results)
    assert {name: result["verdict"] for name, result in verdicts.items()} == {
        "grow": "does not hold",
        "match": "holds",
    }
    for result in verdicts.values():
        assert result["rules"] == ["count_outliers", "extract_spectrum"]
        assert result["files"] == [
            "results/outliers/a/seed0.parquet",
            "results/outliers/b/seed0.parquet",
            "results/spectra/a/seed0/step100_hessian.parquet",
            "results/spectra/b/seed0/step100_hessian.parquet",
        ]


def test_claim_whose_results_are_missing_is_not_measured():
    key, result = spectrum("a")
    absent = ResultKey(ResultKind.LANDSCAPE, "images", 0, group="line")
    claims = {
        "line": {
            "kind": "no_barrier", "section": "4.1", "experiment": "images", "seeds": [0],
            "max_rise": 0.05,
        }
    }  # fmt: skip
    found = check_claims(claims, {"line": [absent]}, {key: result})["line"]
    assert (found["verdict"], found["rules"], found["files"]) == ("not measured", [], [])
    assert found["criterion"] == "experiment images, max_rise 0.05"
    assert found["measured"]["reason"] == (
        "needs CIFAR-10; build `results/landscape/images/seed0/line.parquet` to download it"
    )


def by_seed(runs: dict[int, dict[str, Run]]) -> dict[ResultKey, Result]:
    return {
        key: result
        for seed, by_name in runs.items()
        for key, result in results_of(list(by_name.values()), seed).items()
    }


def run_with(name: str, eigenvalues, num_negative=1):
    return Run(name, 3, np.array(eigenvalues, dtype=float), {}, num_negative)


@pytest.mark.parametrize(
    ("narrow", "wide", "verdict"),
    [
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 1.5, 3.0], [0, 2.0, 4.0]], "holds"),
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 1.0, 2.0], [0, 2.1, 4.1]], "holds in part"),
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 0.4, 0.8], [0, 3.0, 4.1]], "does not hold"),
    ],
)
def test_check_claim_compares_the_edges_of_all_networks(narrow, wide, verdict):
    runs = {
        seed: {"narrow": run_with("narrow", narrow[seed]), "wide": run_with("wide", wide[seed])}
        for seed in (0, 1)
    }
    found = check_claim(
        by_seed(runs), kind="edge_unchanged", section="3.2", experiments=["narrow", "wide"],
        seeds=[0, 1], step=5, num_compared=2, max_ratio=2.0,
    )  # fmt: skip
    assert found["verdict"] == verdict
    expected = [wide[0][1] / narrow[0][1] * wide[0][2] / narrow[0][2]]
    assert max(found["measured"]["factors"][0], 1 / found["measured"]["factors"][0]) == (
        pytest.approx(max(expected[0], 1 / expected[0]) ** 0.5)
    )


@pytest.mark.parametrize(
    ("numbers", "verdict"),
    [((10, 11), "holds"), ((10, 12), "does not hold"), ((12, 10), "does not hold")],
)
def test_check_claim_compares_the_shares_of_negative_eigenvalues(numbers, verdict):
    sizes = (100, 100)
    runs = {
        0: {
            name: run_with(name, np.zeros(size), number)
            for name, size, number in zip("ab", sizes, numbers, strict=True)
        }
    }
    found = check_claim(
        by_seed(runs), kind="share_unchanged", section="3.4", experiments=["a", "b"], seeds=[0],
        step=5, max_ratio=1.1,
    )  # fmt: skip
    assert found["verdict"] == verdict
    assert found["measured"]["shares"] == [[number / 100 for number in numbers]]


@pytest.mark.parametrize(
    ("large", "small", "verdict", "num_larger"),
    [
        ([0, 2.0, 3.0], [0, 1.0, 2.0], "holds", 2),
        ([0, 2.0, 3.0], [9, 1.0, 2.0], "holds", 2),
        ([0, 2.0, 3.0], [0, 1.0, 3.5], "does not hold", 1),
        ([0, 2.0, 3.0], [0, 2.0, 3.0], "does not hold", 0),
    ],
)
def test_check_claim_requires_each_outlier_of_the_first_network_to_be_larger(
    large, small, verdict, num_larger
):
    runs = {0: {"lb": run_with("lb", large), "sb": run_with("sb", small)}}
    found = check_claim(
        by_seed(runs), kind="first_is_larger", section="3.3",
        experiments=["lb", "sb"], seeds=[0], step=5, num_compared=2,
    )  # fmt: skip
    assert (found["verdict"], found["measured"]["num_larger"]) == (verdict, [num_larger])
    assert found["measured"]["ratios_of_the_largest"] == [large[2] / small[2]]
