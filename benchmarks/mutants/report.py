"""The page about the mutants: a score with its interval, and the reason of every survivor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from kinds import Mutant
from scipy.stats import binomtest

PAGE, REASONS = "docs/mutants.md", "benchmarks/mutants/survivors.yaml"
_KILLED = ("killed", "timeout")


def change_of(result: Mapping[str, Any]) -> str:
    """A change as one line: what is in the place of what."""
    old = " ".join(line[1:].strip() for line in result["change"] if line.startswith("-"))
    new = " ".join(line[1:].strip() for line in result["change"] if line.startswith("+"))
    return f"{old} → {new}".replace("](", "] (")  # which Markdown would take for a link


def write_report(
    mutants: Sequence[Mutant], results: Sequence[Mapping[str, Any]], root: Path
) -> None:
    """Write the page, and print the score and the survivors that lack a reason."""
    reasons = yaml.safe_load((root / REASONS).read_text(encoding="utf-8")) or {}
    survivors = [result for result in results if result["outcome"] not in _KILLED]
    lines = [
        (root / PAGE).read_text(encoding="utf-8").split("<!-- results -->")[0] + "<!-- results -->",
        "",
        _score(results, len(mutants)),
        "",
        *_table(mutants, results),
        "",
        "## Mutants that survived",
        "",
    ]
    for result in sorted(survivors, key=lambda result: (result["path"], result["line"])):
        change = change_of(result)
        reason = reasons.get(result["path"], {}).get(change)
        if reason is None:
            print(f"no reason: {result['path']}:{result['line']} ({result['outcome']}) {change}")
        lines.append(f"- `{result['path']}`: `{change}`  \n  {reason or 'Not explained yet.'}")
    (root / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[2 : -len(survivors) - 3 or None]))


def _score(results: Sequence[Mapping[str, Any]], num_mutants: int) -> str:
    killed = sum(result["outcome"] in _KILLED for result in results)
    share = killed / len(results)
    interval = binomtest(killed, len(results)).proportion_ci(0.95, method="exact")
    return (
        f"Of {len(results)} mutants, a random sample of {num_mutants}, the tests killed {killed}: "
        f"{100 * share:.1f} % (95 % confidence interval {100 * interval.low:.1f} % to "
        f"{100 * interval.high:.1f} %)."
    )


def _table(mutants: Sequence[Mutant], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Killed and survived by module."""
    total = Counter(mutant.path for mutant in mutants)
    tried = Counter(result["path"] for result in results)
    killed = Counter(result["path"] for result in results if result["outcome"] in _KILLED)
    rows = ["| module | mutants | tried | killed | survived |", "|---|---|---|---|---|"]
    for path in sorted(tried):
        counts = total[path], tried[path], killed[path], tried[path] - killed[path]
        rows.append(f"| `{path.removeprefix('hesspipe/')}` | {' | '.join(map(str, counts))} |")
    return rows
