"""Checks of the paper's statements, and the results that each verdict rests on.

A kind of claim is an entry of `SPECTRUM_CLAIMS`, `LANDSCAPE_CLAIMS` or `THEORY_CLAIMS`: from its
name to its statement and its check. The results that it reads are those of the `reads` of its
entry in config.yaml. A check is called as `check(results, **limits)`, with

results
    A mapping from `hesspipe.config.results.ResultKey` to `hesspipe.tables.store.Result`, exactly
    those that the entry reads, in ascending order of the keys; a statement about spectra gets
    them as runs, see `hesspipe.claims.runs.runs_of`.
limits
    The entry without the keys that select its results: its numbers and its rule for outliers. A
    statement about spectra also gets the order or the groups of its experiments.

It returns a dictionary of the criterion, what was measured, and a verdict: "holds", "holds in
part" or "does not hold". The criterion's numbers are those of config.yaml, written before the
value was known. A claim whose results are missing is "not measured".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hesspipe.claims.landscape import LANDSCAPE_CLAIMS
from hesspipe.claims.runs import runs_of
from hesspipe.claims.spectrum import SPECTRUM_CLAIMS
from hesspipe.claims.theory import THEORY_CLAIMS
from hesspipe.config.results import ResultKey
from hesspipe.tables.store import Result, read_result

# The rule that makes a result of each kind, so that a verdict can be traced.
_RULES = {
    "spectrum": "extract_spectrum",
    "outliers": "count_outliers",
    "line": "evaluate_line",
    "directions": "measure_directions",
    "law": "compare_with_laws",
    "law_outliers": "compare_with_laws",
    "positions": "sample_spikes",
    "parts": "sample_spiked_spectra",
}
# Keys of an entry that select its results.
_PLACES = ("seed", "seeds", "step", "experiment", "sources")


def read_results(paths: Iterable[str | Path]) -> dict[ResultKey, Result]:
    """Read results of any kind, by the key of each path."""
    return {ResultKey.from_path(str(path)): read_result(path) for path in paths}


def check_claims(
    claims: Mapping[str, Mapping[str, Any]],
    reads: Mapping[str, Sequence[ResultKey]],
    results: Mapping[ResultKey, Result],
) -> dict[str, Any]:
    """Check claims of config.yaml.

    Parameters
    ----------
    claims : mapping
        From a claim's name to its entry.
    reads : mapping
        From a claim's name to the keys of the results that it reads.
    results : mapping
        All results that are there, by key.

    Returns
    -------
    dict
        From a claim's name to statement, where, criterion, measured, verdict, and the rules and
        files that the verdict rests on.
    """
    verdicts = {}
    for name, claim in claims.items():
        missing = [key for key in reads[name] if key not in results]
        read = {} if missing else {key: results[key] for key in sorted(reads[name])}
        found = _not_measured(missing[0], claim) if missing else check_claim(read, **claim)
        verdicts[name] = found | {
            "rules": sorted({_RULES[result.kind] for result in read.values()}),
            "files": sorted(key.path for key in read),
        }
    return verdicts


def check_claim(
    results: Mapping[ResultKey, Result], *, kind: str, section: str, **settings: Any
) -> dict[str, Any]:
    """Check one statement of the paper.

    Parameters
    ----------
    results : mapping
        Those that the claim reads.
    kind, section, **settings
        The claim's entry in config.yaml.

    Returns
    -------
    dict
        statement, where, criterion, measured, verdict.
    """
    statement, check = (SPECTRUM_CLAIMS | LANDSCAPE_CLAIMS | THEORY_CLAIMS)[kind]
    limits = {key: settings[key] for key in settings if key not in _PLACES}
    evidence: Mapping[Any, Any] = results
    if kind in SPECTRUM_CLAIMS:
        by_seed = runs_of(results)
        evidence = by_seed if "seeds" in settings else by_seed[settings["seed"]]
    else:
        limits.pop("experiments", None)
    found = check(evidence, **limits)
    found["measured"] = _in_json(found["measured"])
    return {"statement": statement, "where": f"Section {section}"} | found


def _in_json(value: Any) -> Any:
    """Replace what JSON has no number for, such as the exponent of a single size, by None."""
    if isinstance(value, Mapping):
        return {key: _in_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_json(item) for item in value]
    is_number = isinstance(value, float) and not math.isfinite(value)
    return None if is_number else value


def _not_measured(missing: ResultKey, claim: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict if a result is missing, which happens only to data that must be downloaded."""
    statement, _ = (SPECTRUM_CLAIMS | LANDSCAPE_CLAIMS | THEORY_CLAIMS)[claim["kind"]]
    limits = {
        key: value
        for key, value in claim.items()
        if key not in ("kind", "section", "seed", "seeds", "step")
    }
    return {
        "statement": statement,
        "where": f"Section {claim['section']}",
        "criterion": ", ".join(f"{key} {value}" for key, value in limits.items()),
        "measured": {"reason": f"needs CIFAR-10; build `{missing.path}` to download it"},
        "verdict": "not measured",
    }
