"""The commands that docs/cluster.md says a run on a cluster consists of."""

from __future__ import annotations

from small_project import REPOSITORY


def commands_of_page() -> list[str]:
    """Read the block that is marked for the tests."""
    page = (REPOSITORY / "docs/cluster.md").read_text()
    block = page.split("<!-- run by tests/cluster -->")[1].split("```")[1]
    return [line for line in block.splitlines()[1:] if line.strip()]
