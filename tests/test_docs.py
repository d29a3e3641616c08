"""The documentation builds without a warning, and its examples run."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import hesspipe

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted((REPOSITORY / "docs").glob("*.md"))
NEEDED = ["sphinx", "furo", "myst_parser"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_examples_of_a_page_run(page: Path) -> None:
    # The fences of code blocks end what an example prints, as an empty line would.
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, page.stem, str(page), 0)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0
    assert (results.attempted > 10) == (page.stem == "own_network")


def test_reference_names_everything_that_is_public() -> None:
    text = (REPOSITORY / "docs/reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto\w+:: hesspipe\.(\w+)$", text, flags=re.MULTILINE))
    assert named == set(hesspipe.__all__)


def test_entries_of_the_pipeline_page_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hesspipe.config.schema import validate_config

    text = (REPOSITORY / "docs/pipeline.md").read_text(encoding="utf-8")
    functions, stored, matrix_free = (
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)
    )
    (tmp_path / "my_data.py").write_text("def load(num_train): ...\n")
    (tmp_path / "my_network.py").write_text("def build(width): ...\n")
    for name in ("data", "state"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    functions["datasets"] |= stored["datasets"]
    functions["experiments"] |= stored["experiments"]
    functions["experiments"]["my_network"] |= matrix_free
    plan = validate_config(functions).experiments["my_network"]
    assert plan.matrix_free is not None
    assert plan.matrix_free.all_groups == ["network", "attention", "head"]


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NEEDED),
    reason="needs the docs extra: pip install '.[docs]'",
)
def test_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", str(tmp_path)],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    pages = {page.stem for page in tmp_path.glob("*.html")}
    assert {page.stem for page in PAGES} <= pages
    reference = (tmp_path / "reference.html").read_text(encoding="utf-8")
    for name in hesspipe.__all__:
        assert f'id="hesspipe.{name}"' in reference
