"""Print where the time of `make paper` went, from the last lines of the logs of its jobs.

    python benchmarks/pipeline.py logs

Processor time is user and system time of a job, with the start of Python.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path

_USAGE = re.compile(
    r"took ([\d.]+) s of wall time, ([\d.]+) s of processor time(?:, (\d+) MiB of memory)?"
)


def main() -> None:
    """Print a row for each rule, the dearest first."""
    found = defaultdict(list)
    for path in Path(sys.argv[1]).glob("*/*.log"):
        for usage in _USAGE.findall(path.read_text(encoding="utf-8")):
            found[path.parent.name].append([float(number or 0) for number in usage])
    print("| rule | jobs | processor s | dearest, s | most memory, MiB |")
    print("|---|---:|---:|---:|---:|")
    rows = {rule: list(zip(*jobs, strict=True)) for rule, jobs in found.items()}
    for rule, (_, processor, memory) in sorted(rows.items(), key=lambda row: -sum(row[1][1])):
        print(
            f"| {rule} | {len(processor)} | {sum(processor):,.0f} | {max(processor):.0f} "
            f"| {max(memory):,.0f} |"
        )
    total = sum(sum(processor) for _, processor, _ in rows.values())
    print(f"| all | {sum(map(len, found.values()))} | {total:,.0f} | | |")


if __name__ == "__main__":
    main()
