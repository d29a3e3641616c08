"""The documentation builds without a warning, its examples run, and the modules it names exist."""

from __future__ import annotations

import doctest
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import save_file

import hesspipe
from hesspipe.config.expansion import expand
from hesspipe.config.yaml_files import read_yaml

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(DOCS.glob("*.md"))
TEXTS = [*PAGES, REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md"]
CONFIGURATIONS = [
    "config.yaml",
    "examples/transformer/config.yaml",
    "examples/first_steps/config.yaml",
]
NEEDED = ["sphinx", "furo", "myst_parser"]
MY_NETWORK = """
from torch import nn

def build(width):
    block = nn.ModuleDict({"attention": nn.ModuleDict({"values": nn.Linear(width, width)})})
    return nn.ModuleDict({"block": block, "head": nn.Linear(width, 2)})
"""


def rows_of(text: str) -> list[list[str]]:
    """Cells of all rows of Markdown tables, without headers."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines]
    return [row for row in rows if row[0] not in ("figure", "table", "kind", "quantity", "stage")]


def section(page: str, heading: str) -> str:
    """Text below one heading of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    return text.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # a name in a module that is no package
        return False


def entries(section: str) -> dict[str, str]:
    """The kind of each figure or table of the paper and of the example, by name."""
    found: dict[str, str] = {}
    for path in CONFIGURATIONS:
        config = expand(read_yaml(REPOSITORY / path), (REPOSITORY / path).parent).raw
        found |= {name: entry["kind"] for name, entry in config.get(section, {}).items()}
    return found


# The examples of zoo.md need other packages, and run in tests/zoo.
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "zoo"], ids=lambda page: page.stem
)
def test_examples_of_a_page_run(page: Path) -> None:
    # The fences of code blocks end what an example prints, as an empty line would.
    text = re.sub(r"^```.*$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    test = doctest.DocTestParser().get_doctest(text, {}, page.stem, str(page), 0)
    results = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test)
    assert results.failed == 0
    assert (results.attempted > 10) == (page.stem in ("monitoring", "your_network"))


def test_readme_is_one_page_and_its_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    assert {"Snakemake", "workflow"} <= set(text.split())  # for the Snakemake workflow catalog
    (example,) = re.findall(r"^```python\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(example, names)
    signs, num_outliers = capsys.readouterr().out.splitlines()
    spectrum = names["spectrum"]
    assert isinstance(spectrum, hesspipe.Spectrum)
    assert sum(map(int, signs.split())) == len(spectrum.eigenvalues) == 723
    assert 0 <= int(num_outliers) < 120
    largest = names["pairs"].eigenvalues[-1]  # type: ignore[attr-defined]  # exec'd above
    assert float(largest) == pytest.approx(float(spectrum.eigenvalues[-1]), rel=1e-6)


def test_reference_names_everything_that_is_public() -> None:
    text = (DOCS / "reference.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\.\. auto(?!module)\w+:: hesspipe\.(\w+)$", text, flags=re.MULTILINE))
    assert named == set(hesspipe.__all__)


@pytest.mark.parametrize("page", TEXTS, ids=lambda page: page.stem)
def test_every_module_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in set(re.findall(r"`(hesspipe(?:\.\w+)+)`", text)):
        module, _, attribute = name.rpartition(".")
        assert is_module(name) or hasattr(importlib.import_module(module), attribute), name
    for target in re.findall(r"\]\(((?!http)[^)#]+)\)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("kind", ["figures", "tables"])
def test_pipeline_page_lists_every_figure_and_table_with_its_module(kind: str) -> None:
    listed = {}
    for names, its_kind, rule, module, _ in rows_of(section("pipeline.md", kind.capitalize())):
        assert quoted(module) == [f"hesspipe.{kind}.{quoted(its_kind)[0]}"]
        assert is_module(*quoted(module))
        assert quoted(rule) == [{"figures": "render_figure", "tables": "render_table"}[kind]]
        listed |= dict.fromkeys(quoted(names), *quoted(its_kind))
    assert listed == entries(kind)


def test_pipeline_page_lists_every_stage_with_its_folders() -> None:
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    folders = {}
    for name, stage in stages.items():
        outputs = [
            next(iter(out))
            for out in [*stage["outs"], *stage.get("metrics", [])]
            if isinstance(out, dict)
        ]
        folders[name] = {path for path in outputs if not path.startswith("results/origins")}
    del folders["sources"]
    listed = {
        quoted(name)[0]: set(quoted(paths))
        for name, paths in rows_of(section("pipeline.md", "Snakemake and DVC"))
    }
    assert listed == folders


def test_pipeline_page_lists_every_kind_of_result_with_rules_and_modules() -> None:
    from hesspipe.config.results import ResultKind

    rules = "".join(path.read_text(encoding="utf-8") for path in REPOSITORY.glob("rules/*.smk"))
    listed = []
    for kinds, its_rules, modules, methods in rows_of(section("pipeline.md", "Results")):
        listed += quoted(kinds)
        for rule in quoted(its_rules):
            pattern = re.escape(rule).replace("<schedule>", "{schedule}")
            assert re.search(rf"^ *rule {pattern}:|\"{pattern}\"", rules, re.MULTILINE), rule
        for module in [*quoted(modules), *quoted(methods)]:
            assert is_module(module), module
    assert sorted(listed) == sorted(ResultKind)


def test_formulas_page_names_a_module_for_every_formula() -> None:
    rows = rows_of((DOCS / "formulas.md").read_text(encoding="utf-8"))
    assert len(rows) >= 15  # as many as the paper has
    for quantity, _, module in rows:
        assert quantity
        assert len(quoted(module)) == 1
        assert is_module(*quoted(module)), module


def test_entries_of_your_experiment_are_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hesspipe.config.loading import validate_config

    text = (DOCS / "your_experiment.md").read_text(encoding="utf-8")
    functions, stored, matrix_free, outputs, many = (
        yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.S | re.M)
    )
    (tmp_path / "my_data.py").write_text("def load(num_train): ...\n")
    (tmp_path / "my_network.py").write_text(MY_NETWORK)
    for name in ("data", "state"):
        save_file({"head.weight": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    monkeypatch.chdir(tmp_path)
    functions["datasets"] |= stored["datasets"]
    functions["experiments"] |= stored["experiments"]
    functions["experiments"]["my_network"] |= matrix_free
    functions["figures"] |= outputs["figures"]
    functions["tables"] = outputs["tables"] | many.pop("tables")
    functions["experiments"] |= many.pop("experiments")
    config = validate_config(functions | many)
    assert {"my_steps01_width32", "my_steps03_width64"} < set(config.experiments)
    plan = config.experiments["my_network"]
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
