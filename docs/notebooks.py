"""Notebooks as pages: their code runs when the documentation is built, without a Jupyter kernel."""

from __future__ import annotations

import base64
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NOTEBOOKS = {"own_network": "own_network.ipynb"}  # page and file below examples/
_EXAMPLES = Path(__file__).parents[1] / "examples"


def cells(path: Path) -> Iterator[tuple[str, str]]:
    """Iterate over the cells: "markdown" or "code", and the source."""
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        yield cell["cell_type"], "".join(cell["source"])


def run_code(source: str, names: dict[str, Any]) -> tuple[str, list[Any]]:
    """Run a cell, and return what it printed and the matplotlib figures that it drew."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(source, "notebook", "exec"), names)
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    pyplot.close("all")
    return printed.getvalue(), figures


def page_of(path: Path) -> str:
    """Run a notebook from the top, and write it with its outputs as Markdown."""
    names: dict[str, Any] = {}
    parts = []
    for kind, source in cells(path):
        if kind == "markdown":
            parts.append(source)
            continue
        printed, figures = run_code(source, names)
        parts.append(f"```python\n{source}\n```")
        parts += [f"```text\n{printed.rstrip()}\n```"] if printed else []
        parts += [_image(figure) for figure in figures]
    return "\n\n".join(parts) + "\n"


def _image(figure: Any) -> str:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    data = base64.b64encode(content.getvalue()).decode()
    return f'<img alt="figure" width="600" src="data:image/png;base64,{data}">'


def read_notebook(app: Any, page: str, source: list[str]) -> None:
    """Put a notebook into the page that stands for it; connected to Sphinx's `source-read`."""
    if page in NOTEBOOKS:
        source[0] = page_of(_EXAMPLES / NOTEBOOKS[page])
