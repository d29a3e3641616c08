"""Each statement of the paper, with a case for each verdict it can get."""

import numpy as np
import pandas as pd
import pytest

from hesspipe.claims import check as claims
from hesspipe.claims.check import Run, check_claim, check_claims, run_from_tables

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


def check(runs: list[Run], kind: str, **settings) -> dict:
    by_name = {run.name: run for run in runs}
    if kind != "counts_grow":
        settings = {"experiments": list(by_name), **settings}
    return check_claim(by_name, kind=kind, section="9.9", seed=0, step=100, **settings)


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
def test_check_claim_says_the_numbers_of_its_criterion(result, numbers):
    assert [number for number in numbers if number not in result["criterion"]] == []
    assert result["where"] == "Section 9.9"


def test_check_claim_leaves_out_runs_that_it_does_not_name():
    runs = [run("named", num_negative=1), run("other", num_negative=0)]
    result = check(runs, "negative_part", experiments=["named"], max_magnitude=0.1)
    assert (result["verdict"], result["measured"]["num_runs"]) == ("holds", 1)


def spectrum_table(name: str, seed: int = 0, step: int = 100, largest: float = 1.0):
    table = pd.DataFrame({"rank": [0, 1], "eigenvalue": [-0.1, largest]})
    about = {"experiment": name, "seed": seed, "step": step, "matrix": "hessian"}
    path = f"{name}/seed{seed}/step{step}_hessian.parquet"
    table.attrs = about | {"num_classes": 3, "num_negative": 1, "kind": "spectrum", "path": path}
    return table


def outlier_table(name: str, seed: int = 0):
    rows = [
        (0, "hessian", "gap", 7),
        (100, "ggn", "gap", 8),
        (100, "hessian", "gap", 3),
        (100, "hessian", "ratio", 2),
        (100, "residual", "ratio", 6),
        (200, "hessian", "gap", 9),
    ]
    table = pd.DataFrame(rows, columns=["step", "matrix", "rule", "num_outliers"])
    path = f"{name}/seed{seed}/outliers.parquet"
    table.attrs = {"experiment": name, "seed": seed, "kind": "outliers", "path": path}
    return table


def test_run_from_tables_takes_counts_at_the_step_and_matrix_of_the_spectrum():
    result = run_from_tables(spectrum_table("a"), outlier_table("a"))
    assert result.num_outliers == {"gap": 3, "ratio": 2}
    assert (result.name, result.num_classes, result.num_negative) == ("a", 3, 1)
    assert result.eigenvalues.tolist() == [-0.1, 1.0]


@pytest.mark.parametrize(
    ("seed", "step", "verdict"), [(0, 100, "holds"), (0, 200, "does not hold"), (1, 100, "holds")]
)
def test_check_claims_reads_the_tables_of_its_seed_and_step(seed, step, verdict):
    # Only the last step of seed 0 has a negative part as large as a tenth of the rest.
    spectra = [
        spectrum_table("a", 0, 100, largest=4.0),
        spectrum_table("a", 0, 200, largest=0.5),
        spectrum_table("a", 1, 100, largest=8.0),
    ]
    claim = {"kind": "negative_part", "section": "1", "experiments": ["a"], "max_magnitude": 0.1}
    outliers = [outlier_table("a", 0), outlier_table("a", 1)]
    verdicts = check_claims([*spectra, *outliers], {"mine": claim | {"seed": seed, "step": step}})
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
    names = ["a", "b"]
    verdicts = check_claims(
        [make(name) for make in (spectrum_table, outlier_table) for name in names], claims
    )
    assert {name: result["verdict"] for name, result in verdicts.items()} == {
        "grow": "does not hold",
        "match": "holds",
    }
    for result in verdicts.values():
        assert result["rules"] == ["count_outliers", "extract_spectrum"]
        assert result["files"] == sorted(
            f"{name}/seed0/{file}.parquet"
            for name in names
            for file in ("outliers", "step100_hessian")
        )


def run_of(eigenvalues, num_negative=1):
    return claims.Run("any", 3, np.array(eigenvalues, dtype=float), {}, num_negative)


@pytest.mark.parametrize(
    ("narrow", "wide", "verdict"),
    [
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 1.5, 3.0], [0, 2.0, 4.0]], "holds"),
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 1.0, 2.0], [0, 2.1, 4.1]], "holds in part"),
        ([[0, 1.0, 2.0], [0, 1.0, 2.0]], [[0, 0.4, 0.8], [0, 3.0, 4.1]], "does not hold"),
    ],
)
def test_check_claim_compares_the_edges_of_all_networks(narrow, wide, verdict):
    runs = {seed: {"narrow": run_of(narrow[seed]), "wide": run_of(wide[seed])} for seed in (0, 1)}
    found = claims.check_claim(
        runs, kind="edge_unchanged", section="3.2", experiments=["narrow", "wide"],
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
            name: run_of(np.zeros(size), number)
            for name, size, number in zip("ab", sizes, numbers, strict=True)
        }
    }
    found = claims.check_claim(
        runs, kind="share_unchanged", section="3.4", experiments=["a", "b"], seeds=[0], step=5,
        max_ratio=1.1,
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
def test_check_claim_wants_each_outlier_of_the_first_network_larger(
    large, small, verdict, num_larger
):
    found = claims.check_claim(
        {0: {"lb": run_of(large), "sb": run_of(small)}}, kind="first_is_larger", section="3.3",
        experiments=["lb", "sb"], seeds=[0], step=5, num_compared=2,
    )  # fmt: skip
    assert (found["verdict"], found["measured"]["num_larger"]) == (verdict, [num_larger])
    assert found["measured"]["ratios_of_the_largest"] == [large[2] / small[2]]
