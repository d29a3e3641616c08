"""What DVC says about the files decides whether Snakemake may take them as they are."""

import json

import pytest

from hesspipe.workflow.adopt import differences

# Each a line that DVC 3 printed for a pipeline of two stages after one change.
HARMLESS = {
    "nothing changed": "{}",
    "an output is not pulled": '{"one": [{"changed outs": {"one.txt": "deleted"}}]}',
    "an input is not pulled": (
        '{"one": [{"changed outs": {"one.txt": "deleted"}}],'
        ' "two": [{"changed deps": {"one.txt": "deleted"}},'
        ' {"changed outs": {"two.txt": "deleted"}}]}'
    ),
    "the cache is empty": (
        '{"one": [{"changed outs": {"one.txt": "not in cache"}}],'
        ' "two": [{"changed outs": {"two.txt": "not in cache"}}]}'
    ),
}
HARMFUL = {
    "an edited output": (
        '{"two": [{"changed outs": {"two.txt": "modified"}}]}',
        ["two: two.txt is modified"],
    ),
    "an edited module": (
        '{"one": [{"changed deps": {"code.py": "modified"}}]}',
        ["one: code.py is modified"],
    ),
    "an edited parameter": (
        '{"one": [{"changed deps": {"config.yaml": {"a": "modified"}}}]}',
        ["one: a is modified"],
    ),
    "a new parameter": (
        '{"one": [{"changed deps": {"config.yaml": {"b.c": "new"}}}]}',
        ["one: b.c is new"],
    ),
    "a deleted module": (
        '{"one": [{"changed deps": {"code.py": "deleted"}}]}',
        ["one: code.py is deleted"],
    ),
    "a deleted parameter": (
        '{"one": [{"changed deps": {"config.yaml": {"a": "deleted"}}}]}',
        ["one: a is deleted"],
    ),
    "another command": (
        '{"two": [{"changed outs": {"two.txt": "not in cache"}}, "changed command"]}',
        ["two: changed command"],
    ),
    "a stage that always runs": ('{"two": ["always changed"]}', ["two: always changed"]),
    "a stage that never ran": (
        '{"one": [{"changed deps": {"code.py": "modified", "config.yaml": "new"}},'
        ' {"changed outs": {"one.txt": "deleted"}}]}',
        ["one: code.py is modified", "one: config.yaml is new"],
    ),
    "harmful among harmless": (
        '{"one": [{"changed deps": {"lib.py": "modified",'
        ' "config.yaml": {"a": "modified", "d": "modified"}}},'
        ' {"changed outs": {"one.txt": "deleted"}}],'
        ' "two": [{"changed deps": {"one.txt": "deleted"}},'
        ' {"changed outs": {"two.txt": "modified"}}, "changed command"]}',
        [
            "one: lib.py is modified",
            "one: a is modified",
            "one: d is modified",
            "two: two.txt is modified",
            "two: changed command",
        ],
    ),
}


@pytest.mark.parametrize("status", HARMLESS.values(), ids=HARMLESS)
def test_differences_finds_nothing_in_absent_files(status):
    assert differences(json.loads(status)) == []


@pytest.mark.parametrize(("status", "expected"), HARMFUL.values(), ids=HARMFUL)
def test_differences_names_the_stage_and_what_differs(status, expected):
    assert differences(json.loads(status)) == expected


@pytest.mark.parametrize("word", ["modified", "new", "something DVC may say one day"])
@pytest.mark.parametrize("place", ["changed outs", "changed deps"])
def test_differences_takes_an_unknown_word_for_harm(place, word):
    assert differences({"one": [{place: {"file": word}}]}) == [f"one: file is {word}"]
