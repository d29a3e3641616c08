"""Records of a monitor as eigenpairs, one result for each step."""

from __future__ import annotations

from hesspipe.tables.store import Result


def by_step(result: Result) -> list[Result]:
    """Split the table of a monitor into eigenpairs of each step; others are returned as they are.

    Steps whose record failed are left out.
    """
    if result.kind != "monitor":
        return [result]
    if result.table.empty:
        return []
    columns = ["end", "rank", "eigenvalue", "residual_norm", "status"]
    complete = result.table.groupby("step")["eigenvalue"].transform(lambda part: part.notna().all())
    return [
        Result(
            "eigenpairs",
            rows[columns].reset_index(drop=True),
            {**result.provenance, "step": int(str(step))},
        )
        for step, rows in result.table[complete].groupby("step")
    ]
