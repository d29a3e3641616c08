"""Errors, comparisons and decisions of several processes (gloo on the CPU)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import rank_cases
import torch
from process_groups import run_in_ranks
from small_project import REPOSITORY

from hesspipe.ranks.ranks import Ranks

SIZE = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module", params=[0, 2])
def failing(request: pytest.FixtureRequest, folder: Path) -> tuple[int, list[dict[str, Any]]]:
    rank = request.param
    return rank, run_in_ranks(rank_cases.failures, SIZE, folder / f"failing{rank}", rank)


@pytest.fixture(scope="module")
def exchanged(folder: Path) -> list[dict[str, Any]]:
    return run_in_ranks(rank_cases.exchanges, SIZE, folder / "exchanges")


@pytest.mark.parametrize("name", rank_cases.FAILURES)
def test_error_of_one_rank_is_raised_in_all_with_its_class_and_message(
    name: str, failing: tuple[int, list[dict[str, Any]]]
) -> None:
    rank, found = failing
    _, classes, message = rank_cases.FAILURES[name]
    others = [one[name] for number, one in enumerate(found) if number != rank]
    assert others[0] == others[1]
    assert set(classes) <= set(others[0][0])
    assert f"rank {rank} of {SIZE} (process " in others[0][1]
    assert message in others[0][1]
    assert "closed by peer" not in others[0][1]
    if name in ("interrupt", "exit"):
        assert found[rank][name][0][0] == {"interrupt": "KeyboardInterrupt"}.get(name, "SystemExit")
    else:
        assert found[rank][name] == others[0]


def test_agree_names_the_difference_with_values_and_ranks(exchanged: list[dict[str, Any]]) -> None:
    for one in exchanged:
        assert one["same"] == ([], "")
        assert one["default device"] == ([], "")
        assert "ValueError" in one["differs"][0]
        assert one["differs"][1] == (
            "seed must be the same in every process, got 0 in ranks 0, 1 and 1 in rank 2; steps "
            "must be the same in every process, got 0 in rank 0 and 1 in rank 1 and 2 in rank 2"
        )
        assert "a must be the same in every process, got nothing in rank 0" in one["missing"][1]


def test_other_calls_in_one_rank_are_named(exchanged: list[dict[str, Any]]) -> None:
    for one in exchanged:
        assert "got a in ranks 0, 2 and b in rank 1" in one["order"][1]
        assert "shape (2,) in rank 0" in one["shape"][1]
        assert "a decision of rank 0 in ranks 1, 2" in one["kind"][1]


def test_equal_errors_in_all_ranks_are_raised_as_they_are(exchanged: list[dict[str, Any]]) -> None:
    for one in exchanged:
        assert one["all"] == (one["all"][0], "the same")
        assert one["all"][0][0] == "ZeroDivisionError"
        assert "rank 0 of 3" in one["two"][1]
        assert "rank 2 of 3" in one["two"][1]
        assert "rank 1 of 3" not in one["two"][1]


def test_interrupt_while_waiting_is_raised_in_all(exchanged: list[dict[str, Any]]) -> None:
    assert [one["interrupted"][0][0] for one in exchanged] == [
        "KeyboardInterrupt", "KeyboardInterrupt", "RankError",
    ]  # fmt: skip
    assert all(one["after"] == 0 for one in exchanged)


def test_sums_and_decisions_have_equal_bits_in_all(exchanged: list[dict[str, Any]]) -> None:
    expected = torch.stack([one["numbers"] for one in exchanged]).sum(0)
    for one in exchanged:
        assert (one["total"] - expected).abs().max() <= 4e-15
        assert torch.equal(one["total"], exchanged[0]["total"])
        assert torch.equal(one["first"], exchanged[0]["numbers"])
        assert one["decision"] == {"stop": True, "size": 0.1}
    assert (exchanged[0]["only"] - expected).abs().max() <= 4e-15


@pytest.mark.parametrize("dying", [0, 1])
def test_killed_rank_is_named_within_seconds(dying: int, folder: Path) -> None:
    found = run_in_ranks(rank_cases.death, SIZE, folder / f"death{dying}", dying)
    assert found[dying] is None
    for one in found:
        if one is not None:
            classes, message = one["raised"]
            assert classes[0] == "LostRankError"
            assert f"rank {dying} of {SIZE} (process " in message
            assert "ended without a word" in message
            assert one["seconds"] < 30


def test_rank_that_does_not_come_is_given_up_after_the_timeout_of_the_group(folder: Path) -> None:
    own = folder / "silence"
    found = run_in_ranks(rank_cases.silence, SIZE, own, 1, str(own))
    for one in (found[0], found[2]):
        classes, message = one["raised"]
        assert classes[0] == "LostRankError"
        assert "another rank ended or does not answer (" in message
        assert "while this one waited for it (a product" in message
        assert one["seconds"] < 8


def test_exchange_that_ends_during_a_look_at_the_others_is_no_loss(folder: Path) -> None:
    found = run_in_ranks(rank_cases.late_exchanges, SIZE, folder / "late")
    assert [one["raised"] for one in found] == [([], "")] * SIZE


@pytest.mark.parametrize("group", [None, "WORLD"])
def test_ranks_refuses_what_is_no_group(group: Any) -> None:
    with pytest.raises(ValueError, match="process_group must be a group of torch"):
        Ranks(group)


def test_page_of_several_processes_runs_and_gives_what_one_process_gives(folder: Path) -> None:
    page = (REPOSITORY / "docs/several_processes.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    found = run_in_ranks(rank_cases.page, 2, folder / "page", blocks, str(folder))
    assert not found[0]["state"]  # removed, because the search has converged
    one = found[0].pop("whole")
    del found[1]["whole"]
    for name in ("pairs", "density", "curvature", "loss"):
        assert torch.equal(found[0][name], found[1][name])
        assert (found[0][name] - one[name]).abs().max() <= 1e-11 * one[name].abs().max(), name
