"""Give four libraries problems that are known to go wrong, and compare with a dense reference.

Claim: hesspipe is correct or raises an error where curvlinops, hessian-eigenthings or PyHessian
silently return wrong numbers.

Each library is called as its documentation shows. The reference is `tests/dense_reference.py`:
loops of torch.autograd in float64 over all the data as one batch, which use no library. A second
table compares products of H and G with curvlinops' where both are right. The questions are in
`battery`.
"""

from __future__ import annotations

import argparse
import platform
import textwrap
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch
from battery import products, searches
from battery.cross_check import cross_check
from battery.libraries import (
    ALLOWED_ERROR,
    LIBRARIES,
    NotOfferedError,
    Verdict,
    judge,
    judge_error,
)

_PACKAGES = ("hesspipe", "curvlinops-for-pytorch", "hessian-eigenthings", "pyhessian")
_KINDS = ("correct", "refused", "wrong", "crash", "not offered")

Rows = dict[str, dict[str, Verdict]]


def of_products(asked: dict[str, products.Asked]) -> dict[str, searches.Judged]:
    """Questions that are answered by products."""

    def judged(name: str, make: products.Asked) -> Verdict:
        return judge(name, make())

    return {question: partial(judged, make=make) for question, make in asked.items()}


FAMILIES: dict[str, dict[str, searches.Judged]] = {
    "Denominators, over batches of 8, 8 and 7": of_products(products.DENOMINATORS),
    "Samples that are coupled": of_products(products.COUPLED),
    "Targets that broadcast": of_products(products.BROADCAST),
    "Randomness": of_products(products.RANDOM) | searches.RANDOM,
    "Operations": of_products(products.OPERATIONS),
    "Derivatives that are cut, or wrong in torch": of_products(products.DERIVATIVES),
    "Precision and numbers": of_products(products.PRECISION) | searches.PRECISION,
    "Losses": of_products(products.LOSSES),
    "State": searches.STATE,
    "Eigenvalues and counts": searches.EIGENVALUES,
}


def verdict_on(name: str, judged: Callable[[str], Verdict]) -> Verdict:
    """Ask one library one question."""
    torch.manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations in the other libraries
            return judged(name)
    except NotOfferedError:
        return Verdict("not offered")
    except Exception as error:
        return judge_error(name, error)


def verdicts(only: str = "") -> dict[str, Rows]:
    """All questions to all libraries, by family."""
    found: dict[str, Rows] = {}
    for family, questions in FAMILIES.items():
        found[family] = {}
        for question, judged in questions.items():
            if only not in question:
                continue
            row = {name: verdict_on(name, judged) for name in LIBRARIES}
            found[family][question] = row
            for name, verdict in row.items():
                print(f"{question}: {name} {verdict.kind} {verdict.detail}", flush=True)
    return found


def format_table(found: dict[str, Rows]) -> list[str]:
    """A row for each question, under the name of its family, and the totals."""
    names = list(LIBRARIES)
    lines = [f"| question | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    totals: dict[str, dict[str, int]] = {name: dict.fromkeys(_KINDS, 0) for name in names}
    for family, rows in found.items():
        lines.append(f"| **{family}** |" + " |" * len(names))
        for question, row in rows.items():
            cells = []
            for name in names:
                verdict = row[name]
                totals[name][verdict.kind] += 1
                is_bad = verdict.kind in ("wrong", "crash")
                detail = f" {verdict.detail}" if verdict.kind in ("correct", "wrong") else ""
                cells.append((f"**{verdict.kind}**" if is_bad else verdict.kind) + detail.rstrip())
            lines.append(f"| {question} | {' | '.join(cells)} |")
    for kind in _KINDS:
        numbers = [totals[name][kind] for name in names]
        if any(numbers):
            lines.append(f"| **total {kind}** | {' | '.join(f'**{n}**' for n in numbers)} |")
    return lines


def shortened(message: str) -> str:
    """The first words, without what would end a literal."""
    return textwrap.shorten(message.replace("`", ""), 220, placeholder=" ...")


def format_messages(found: dict[str, Rows]) -> list[str]:
    """Every error message, shortened."""
    return [
        f"- {question}: {name}: `{shortened(verdict.detail)}`"
        for rows in found.values()
        for question, row in rows.items()
        for name, verdict in row.items()
        if verdict.kind in ("refused", "crash")
    ]


def format_report(found: dict[str, Rows], check: dict[str, tuple[int, list[float]]]) -> str:
    """Both tables, the error messages, and the versions."""
    compared_rows = [
        f"| {name} | {size:,} | {' | '.join(f'{error:.0e}' for error in errors)} |"
        for name, (size, errors) in check.items()
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in _PACKAGES)
    num_questions = sum(len(rows) for rows in found.values())
    return f"""# Silent errors: a comparison

{num_questions} questions in {len(found)} families. They are not a sample of everyday use: each
family was chosen because inputs of its kind are known to give wrong numbers in some library, this
one included, before they were tested for. Written by `benchmarks/wrong_answers.py`.

- **correct**: unless the question says otherwise, products of the Hessian with three vectors, in
  float64, for 23 or 24 samples, agree to {ALLOWED_ERROR:.0e} (relative to the largest entry) with
  loops of torch.autograd. Data are split into batches to save memory only: the right answer is
  that of one batch with all the data.
- **refused**: an error instead of a number, nan, or a report that the result has not converged.
  This is a good answer where the right one is not available, and it is not counted against any
  library.
- **wrong**: another number, without an error.
- **crash**: for hesspipe only, an error that it did not raise on purpose. For the other libraries
  every error counts as refused.
- **not offered**: the library has no such function.

{chr(10).join(format_table(found))}

Where a model is in training mode, the matrix of evaluation mode counts as correct. Where the loss,
the inputs or the parameters were changed after an operator was made, the matrix before the change
and the one after it both count as correct. Errors are printed relative to the largest entry.

Eigenvalues must be correct to {searches.ALLOWED_EIGENVALUE_ERROR:.0%} of the smallest requested
one, by the library's own solver with its defaults, or by ARPACK for curvlinops, which documents
it; only those reported as converged can be wrong. A number of eigenvalues is that of the density
with default settings (80 steps for curvlinops, which has no default), rounded and to
{searches.ALLOWED_ESTIMATE_ERROR:.0%}, or the stated interval, which must hold the exact number;
intervals are printed. The trace must be correct to {searches.ALLOWED_ESTIMATE_ERROR:.0%}. Numbers
and traces were tried with {searches.NUM_SEEDS} seeds, which all had to be right.

## Products compared with curvlinops

Batches of 8, 8 and 7; the largest difference over the largest entry, of products with 4 vectors.
Attention runs in the plain kernel, which was selected by hand for curvlinops. Central
differences of the gradient use no second derivative and are accurate to about 1e-8. curvlinops
takes the second derivative
forward over backward, which is wrong for nn.LayerNorm in this version of torch; see
[pytorch #196700](https://github.com/pytorch/pytorch/issues/196700).

| network | P | H: both | G: both | H: hesspipe and differences | H: curvlinops and differences |
|---|---:|---:|---:|---:|---:|
{chr(10).join(compared_rows)}

## Error messages

{chr(10).join(format_messages(found))}

Python {platform.python_version()}, torch {torch.__version__}; {packages}.
"""


def main(path_to_report: Path) -> None:
    """Run all comparisons and write the report."""
    torch.set_num_threads(1)
    path_to_report.write_text(format_report(verdicts(), cross_check()), encoding="utf-8")
    print(path_to_report.read_text(encoding="utf-8"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--only", help="print the verdicts on questions whose names contain this")
    arguments = parser.parse_args()
    if arguments.only is not None:
        verdicts(arguments.only)
    else:
        main(arguments.output)
