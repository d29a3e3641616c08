"""Statements of the paper as checks on the tables, and what each verdict rests on.

Each check returns what was measured, the criterion, and a verdict: "holds", "holds in part",
"does not hold", or "not measured" where its tables need data that are not at hand. The
criterion's numbers stand in config.yaml, written before the value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from hesspipe.claims.landscape import LANDSCAPE_CLAIMS
from hesspipe.claims.runs import Run, run_from_tables
from hesspipe.claims.spectrum import SPECTRUM_CLAIMS
from hesspipe.claims.theory import THEORY_CLAIMS

__all__ = ["Run", "check_claim", "check_claims", "claims_table", "run_from_tables"]

# The rule that makes a table of each kind, so that a verdict can be traced.
_RULES = {
    "spectrum": "extract_spectrum",
    "outliers": "count_outliers",
    "line": "evaluate_line",
    "directions": "measure_directions",
    "law": "compare_with_laws",
    "law_outliers": "compare_with_laws",
    "spikes": "sample_spikes",
    "spiked_spectra": "sample_spectra",
}
# Which spectra the claims read that are not about the Hessian's alone.
_MATRICES = {
    "trivial_zeros": ["ggn"],
    "residual_is_small": ["hessian", "residual"],
    "residual_fades": ["hessian", "residual"],
}
# What a check is not told of its entry: it says where the tables are.
_PLACES = ("seed", "seeds", "step")


def check_claims(
    tables: Sequence[pd.DataFrame], claims: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Check every claim of config.yaml.

    Parameters
    ----------
    tables : sequence of DataFrame
        All that the claims read, of any kind, as `hesspipe.tables.store.read_tables` gives them.
    claims : mapping
        config.yaml's section of that name.

    Returns
    -------
    dict
        From the claim's name to what `check_claim` gives, with the rules and the files that
        the verdict rests on.
    """
    verdicts = {}
    for name, claim in claims.items():
        read = [table for table in tables if _is_read(table, claim)]
        is_on_runs = claim["kind"] in SPECTRUM_CLAIMS
        result = check_claim(_runs(read, claim) if is_on_runs else read, **claim)
        verdicts[name] = result | {
            "rules": sorted({_RULES[table.attrs["kind"]] for table in read}),
            "files": sorted({table.attrs["path"] for table in read}),
        }
    return verdicts


def check_claim(tables: Any, *, kind: str, section: str, **settings: Any) -> dict[str, Any]:
    """Check one statement of the paper.

    Parameters
    ----------
    tables : mapping or sequence
        For a statement about runs, from experiment name to its run, or, over several seeds, such
        a mapping for each; for others, the tables that it reads.
    kind, section, **settings
        The claim's entry in config.yaml.

    Returns
    -------
    dict
        statement, where, criterion, measured, verdict.
    """
    statement, check = (SPECTRUM_CLAIMS | LANDSCAPE_CLAIMS | THEORY_CLAIMS)[kind]
    about = {"statement": statement, "where": f"Section {section}"}
    arguments = {key: settings[key] for key in settings if key not in _PLACES}
    if not tables:
        limits = ", ".join(f"{key} {value}" for key, value in arguments.items())
        reason = "the data are not at hand, and nothing is downloaded without being asked"
        return about | {
            "criterion": limits,
            "measured": {"reason": reason},
            "verdict": "not measured",
        }
    return about | check(tables, **arguments)


def claims_table(verdicts: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """Lay verdicts out as a table, a row each.

    Parameters
    ----------
    verdicts : mapping
        What `check_claims` gives.

    Returns
    -------
    DataFrame
        claim, statement, section, criterion, measured, verdict, rules, files; in the order of
        the paper's sections.
    """
    table = pd.DataFrame(
        [
            {
                "claim": name,
                "statement": found["statement"],
                "section": found["where"].removeprefix("Section "),
                "criterion": found["criterion"],
                "measured": "; ".join(
                    f"{key.replace('_', ' ')} {_short(value)}"
                    for key, value in found["measured"].items()
                ),
                "verdict": found["verdict"],
                "rules": ", ".join(found["rules"]),
                "files": " ".join(found["files"]),
            }
            for name, found in verdicts.items()
        ]
    )
    return table.sort_values("section", kind="stable", ignore_index=True)


def _short(value: Any) -> str:
    """A number with four digits, also inside lists and mappings."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_short(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(_short(entry) for entry in value)
    return str(value)


def _is_read(table: pd.DataFrame, claim: Mapping[str, Any]) -> bool:
    """Whether a claim reads a table: the one place where this is decided."""
    about = table.attrs
    if "sources" in claim:
        return about.get("name") in claim["sources"]
    experiments = claim.get("experiments") or [claim.get("experiment")]
    if "groups" in claim:
        experiments = [name for group in claim["groups"] for name in group]
    seeds = claim["seeds"] if "seeds" in claim else [claim["seed"]]
    if about.get("experiment") not in experiments or about.get("seed") not in seeds:
        return False
    kind = about["kind"]
    if kind == "outliers":
        return claim["kind"] in SPECTRUM_CLAIMS
    if claim["kind"] == "outliers_are_class_means":
        return bool(kind == "directions")
    if claim["kind"] in ("no_barrier", "second_end_is_better"):
        return bool(kind == "line")
    if kind != "spectrum" or about["step"] != claim.get("step", about["step"]):
        return False
    wanted = _MATRICES.get(claim["kind"], ["hessian"])
    return about["matrix"] in wanted


def _runs(tables: Sequence[pd.DataFrame], claim: Mapping[str, Any]) -> dict[Any, Any]:
    """By experiment, or, for a claim over several seeds, by seed and experiment."""
    spectra = [table for table in tables if table.attrs["kind"] == "spectrum"]
    counts = {
        (table.attrs["experiment"], table.attrs["seed"]): table
        for table in tables
        if table.attrs["kind"] == "outliers"
    }
    by_seed: dict[int, dict[str, Run]] = {}
    for table in spectra:
        name, seed = table.attrs["experiment"], table.attrs["seed"]
        by_seed.setdefault(seed, {})[name] = run_from_tables(table, counts[name, seed])
    if "seeds" in claim:
        return {seed: by_seed[seed] for seed in claim["seeds"]}
    return by_seed[claim["seed"]]
