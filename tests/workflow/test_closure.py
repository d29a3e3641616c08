"""The closure of a script contains every module that it runs, and no others."""

import subprocess
import sys
from pathlib import Path

import pytest

from hesspipe.workflow.closure import code_closure, user_code

REPOSITORY = Path(__file__).parents[2]
TREE = {
    "hesspipe/__init__.py": "from hesspipe import lazy\n",
    "hesspipe/__init__.pyi": "from .lazy import spectrum as spectrum\n",
    "hesspipe/lazy.py": "",
    "hesspipe/laws/__init__.py": "import lazy_loader\n",
    "hesspipe/laws/__init__.pyi": "from .edge import Edge as Edge\n",
    "hesspipe/laws/edge.py": "from hesspipe import files\n",
    "hesspipe/files.py": "import os\n",
    "hesspipe/models.py": "from hesspipe.files import digest, write\n",
    "hesspipe/training.py": "import torch\nimport hesspipe.models as models\n",
    "hesspipe/inner.py": "def run():\n    from hesspipe.files import digest\n",
    "hesspipe/hinted.py": "if TYPE_CHECKING:\n    from hesspipe import models\n",
    "hesspipe/hen.py": "from hesspipe.egg import lay\n",
    "hesspipe/egg.py": "from hesspipe.hen import hatch\n",
    "hesspipe/figures/__init__.py": "from hesspipe import training\n",
    "hesspipe/figures/style.py": "from hesspipe.files import write\n",
    "other/__init__.py": "",
    "other/models.py": "from hesspipe import hen\n",
}
# The lines of a script, and the modules they import; hesspipe/__init__.py is always one.
CLOSURES = {
    "": [],
    "import os, json\nfrom pathlib import Path": [],
    "from hesspipe.files import digest": ["files"],
    "import hesspipe.files": ["files"],
    "import hesspipe.files as anything": ["files"],
    "from hesspipe import files": ["files"],
    "from hesspipe import files as f, inner": ["files", "inner"],
    "import json, hesspipe.files": ["files"],
    "from hesspipe.training import train": ["files", "models", "training"],
    "def main():\n    from hesspipe.models import mlp": ["files", "models"],
    "if True:\n    import hesspipe.files": ["files"],
    "try:\n    import hesspipe.files\nexcept ImportError:\n    pass": ["files"],
    "from hesspipe.inner import run": ["files", "inner"],
    "from hesspipe.hinted import T": ["files", "hinted", "models"],
    "from hesspipe.hen import hatch": ["egg", "hen"],
    "from hesspipe.figures import style": [
        "figures/__init__",
        "figures/style",
        "files",
        "models",
        "training",
    ],
    "import hesspipe.figures.style": [
        "figures/__init__",
        "figures/style",
        "files",
        "models",
        "training",
    ],
    "from hesspipe.laws.edge import Edge": ["files", "laws/__init__", "laws/edge"],
    "from hesspipe.laws import edge": ["files", "laws/__init__", "laws/edge"],
    "from other.models import mlp\nimport hesspipe_files, files": [],
    "text = 'from hesspipe.files import digest'  # import hesspipe.files": [],
}


@pytest.fixture
def tree(tmp_path):
    for name, text in TREE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "scripts").mkdir()
    return tmp_path


@pytest.mark.parametrize(("source", "modules"), CLOSURES.items())
def test_code_closure_follows_every_import_and_nothing_else(tree, source, modules):
    (tree / "scripts" / "run.py").write_text(source)
    expected = ["__init__", *modules] if modules else []
    assert code_closure("scripts/run.py", tree) == [
        "scripts/run.py",
        *(f"hesspipe/{name}.py" for name in expected),
    ]


def test_code_closure_reads_the_current_folder_if_none_is_given(tree, monkeypatch):
    (tree / "scripts" / "run.py").write_text("import hesspipe.models")
    monkeypatch.chdir(tree)
    expected = ["__init__.py", "files.py", "models.py"]
    assert code_closure("scripts/run.py")[1:] == [f"hesspipe/{name}" for name in expected]


@pytest.mark.parametrize(
    "source",
    [
        "import hesspipe",
        "from hesspipe import spectrum",
        "from . import files",
        "import hesspipe.laws",
        "import hesspipe.laws as laws",
        "from hesspipe.laws import Edge",
        "from hesspipe.laws import edge, Edge",
        "from hesspipe.laws import *",
    ],
)
def test_code_closure_refuses_an_import_that_does_not_name_its_module(tree, source):
    (tree / "scripts" / "run.py").write_text(f"import os\n{source}\n")
    with pytest.raises(ValueError, match=r"scripts/run.py, line 2: write '.*' as 'from hesspipe"):
        code_closure("scripts/run.py", tree)


def test_code_closure_adds_modules_that_are_imported_by_name(tree):
    (tree / "scripts" / "run.py").write_text("import os\n")
    closure = code_closure("scripts/run.py", tree, ["hesspipe.figures.style"])
    expected = ["__init__", "figures/__init__", "figures/style", "files", "models", "training"]
    assert closure[1:] == [f"hesspipe/{name}.py" for name in expected]


def test_code_closure_leaves_out_what_starts_and_records_jobs(tree):
    (tree / "hesspipe/workflow").mkdir()
    (tree / "hesspipe/workflow/__init__.py").write_text("")
    (tree / "hesspipe/workflow/jobs.py").write_text("from hesspipe.training import x\n")
    source = "from hesspipe.files import f\nfrom hesspipe.workflow.jobs import job\n"
    (tree / "scripts" / "run.py").write_text(source)
    expected = ["scripts/run.py", "hesspipe/__init__.py", "hesspipe/files.py"]
    assert code_closure("scripts/run.py", tree) == expected


def test_code_closure_counts_what_draws_for_figures_only(tree):
    (tree / "hesspipe/plots").mkdir()
    (tree / "hesspipe/plots/lines.py").write_text("from hesspipe import egg\n")
    (tree / "hesspipe/spectra.py").write_text("def plot():\n    from hesspipe.plots import lines\n")
    (tree / "scripts" / "run.py").write_text("from hesspipe import spectra\n")
    assert "hesspipe/plots/lines.py" not in code_closure("scripts/run.py", tree)
    (tree / "hesspipe/figures/drawn.py").write_text("from hesspipe.plots import lines\n")
    found = code_closure("scripts/run.py", tree, ["hesspipe.figures.drawn"])
    assert {"hesspipe/plots/lines.py", "hesspipe/egg.py"} <= set(found)


def test_code_closure_executes_nothing(tree):
    (tree / "hesspipe" / "files.py").write_text("raise SystemExit('executed')\n")
    (tree / "scripts" / "run.py").write_text("import hesspipe.files\nraise SystemExit('executed')")
    assert "hesspipe/files.py" in code_closure("scripts/run.py", tree)


SCRIPTS = sorted(path.stem for path in (REPOSITORY / "scripts").glob("*.py"))


@pytest.mark.parametrize(
    ("script", "kind", "runs", "does_not_run"),
    [
        (
            "render_figure",
            "figures.endpoints",
            ["figures/endpoints", "tables/store"],
            ["curvature/linear", "networks/training", "figures/gaps"],
        ),
        (
            "render_figure",
            "figures.gaps",
            ["figures/gaps", "tables/store"],
            ["figures/endpoints", "outliers", "curvature/spectra"],
        ),
        (
            "render_table",
            "tables.inertia",
            ["tables/inertia", "tables/store", "tables/formats"],
            ["tables/sharpness", "outliers", "networks/training"],
        ),
        (
            "train",
            None,
            ["experiments/training", "networks/training", "networks/architectures", "data/dataset"],
            ["curvature/linear", "curvature/spectra", "outliers"],
        ),
        (
            "extract_spectrum",
            None,
            ["curvature/linear", "curvature/spectra", "curvature/dense", "networks/architectures"],
            ["outliers", "claims/check", "networks/training"],
        ),
        (
            "count_outliers",
            None,
            ["outliers", "experiments/outliers"],
            ["curvature/linear", "networks/training", "claims/check"],
        ),
        (
            "check_claims",
            None,
            ["claims/check"],
            ["outliers", "experiments/outliers", "networks/training"],
        ),
        (
            "make_dataset",
            None,
            ["data/dataset", "data/mnist", "seeding"],
            ["networks/architectures", "networks/training", "tables/store"],
        ),
    ],
)
def test_code_closure_of_a_script_stops_at_what_it_runs(script, kind, runs, does_not_run):
    modules = [f"hesspipe.{kind}"] if kind else []
    closure = code_closure(f"scripts/{script}.py", REPOSITORY, modules)
    assert [
        name for name in does_not_run if not (REPOSITORY / f"hesspipe/{name}.py").exists()
    ] == []
    assert [name for name in runs if f"hesspipe/{name}.py" not in closure] == []
    assert [name for name in does_not_run if f"hesspipe/{name}.py" in closure] == []


@pytest.mark.parametrize("script", SCRIPTS)
def test_code_closure_leaves_out_how_the_configuration_is_checked(script):
    # The workflow checks config.yaml; no result depends on how its messages are worded.
    closure = code_closure(f"scripts/{script}.py", REPOSITORY)
    # Claims look results up by their keys; user files are read as they are checked.
    used = {f"hesspipe/config/{name}.py" for name in ("__init__", "results", "user_files")}
    assert {path for path in closure if path.startswith("hesspipe/config/")} <= used


def test_no_product_and_no_reading_of_the_rules_loads_torch():
    kinds = [
        f"hesspipe.{package}.{path.stem}"
        for package in ("figures", "tables", "claims")
        for path in (REPOSITORY / "hesspipe" / package).glob("[a-z]*.py")
    ]
    modules = [*kinds, "hesspipe.workflow.project", "hesspipe.workflow.adopt"]
    code = f"import {', '.join(modules)}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


OWN = {
    "nets/__init__.py": "",
    "nets/build.py": "import torch\nfrom .blocks import Block\nfrom ..single import x\n",
    "nets/blocks.py": "from . import constants\nfrom nets.deep.inner import y\n",
    "nets/constants.py": "",
    "nets/deep/__init__.py": "",
    "nets/deep/inner.py": "from ..constants import z\n",
    "nets/unused.py": "",
    "single.py": "def late():\n    import late_module\n",
    "late_module.py": "import nets.build\n",
    "other.py": "",
}
# What runs whenever nets.blocks is imported.
NETS = ["nets/__init__.py", "nets/blocks.py", "nets/constants.py", "nets/deep/__init__.py"]


@pytest.fixture
def own(tmp_path):
    for name, text in OWN.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["other:f"], ["other.py"]),
        (["torch.nn:CrossEntropyLoss", "absent:f"], []),
        (
            ["nets.deep.inner:y"],
            [
                "nets/__init__.py",
                "nets/constants.py",
                "nets/deep/__init__.py",
                "nets/deep/inner.py",
            ],
        ),
        (["nets.blocks:Block"], [*NETS, "nets/deep/inner.py"]),
        (
            ["single:late", "nets.build:f"],
            ["late_module.py", *NETS, "nets/build.py", "nets/deep/inner.py", "single.py"],
        ),
    ],
)
def test_user_code_follows_what_lies_beside_a_function(own, names, files):
    assert user_code(names, own) == sorted(files)


def test_user_code_executes_nothing(own):
    (own / "other.py").write_text("raise SystemExit('executed')\n")
    assert user_code(["other:f"], own) == ["other.py"]
