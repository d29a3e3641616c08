"""The names of the three matrices."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from hesspipe.curvature.matrix import Matrix


@pytest.mark.parametrize("name", ["hessian", "ggn", "residual"])
def test_matrix_is_its_name_in_paths_and_json(name: str) -> None:
    matrix = Matrix(name)
    assert matrix == name
    assert f"step3_{matrix}.parquet" == f"step3_{name}.parquet"
    assert json.dumps({matrix: matrix}) == json.dumps({name: name})


@pytest.mark.parametrize("name", ["fisher", "HESSIAN", "", None, 3])
def test_unknown_name_is_refused_with_the_known_ones(name: object) -> None:
    message = f"matrix must be one of 'hessian', 'ggn', 'residual', got {name!r}"
    with pytest.raises(ValueError, match=message):
        Matrix(name)


def test_weight_decay_is_part_of_the_hessian_and_the_ggn() -> None:
    assert [matrix.has_decay for matrix in Matrix] == [True, True, False]


def test_matrix_does_not_load_torch() -> None:
    code = "import hesspipe.curvature.matrix, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
