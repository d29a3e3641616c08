"""Files that YAML would read in another way than they look are refused, with their line."""

import time

import pytest

from hesspipe.config.yaml_files import read_yaml
from hesspipe.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


def refusal(tmp_path, content):
    """The message, which must come soon."""
    path = tmp_path / "config.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    start = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert time.monotonic() - start < 2
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", ", line 3: the key 'a' is also in line 1"),
        ("a:\n  b: {c: 1, d: 2, c: 3}\n", ", line 2: the key 'c' is also in line 2"),
        ("a: 1\n'a': 3\n", ", line 2: the key 'a' is also in line 1"),
        ("- 1: {b: 2}\n  1: 3\n", ", line 2: the key '1' is also in line 1"),
        ("a: {<<: {b: 1}, b: 2, b: 3}\n", ", line 1: the key 'b' is also in line 1"),
        ("a: &a [1, *a]\n", ", line 1: the alias *a contains itself"),
        ("a: &a\n  b:\n    c: *a\n", ", line 3: the alias *a contains itself"),
        ("a: &a {<<: *a}\n", ", line 1: the alias *a contains itself"),
        (BOMB, ", line 6: there must be at most 500,000 values"),
        ("a: " + "[" * 3000 + "]" * 3000, ", line 1: there must be at most 50 levels"),
        ("a: " + "{b: " * 100_000, ", line 1: there must be at most 50 levels"),
        ("".join(f"{' ' * k}a:\n" for k in range(3000)), ", line 51: there must be at most 50"),
        ("a: 1:30:00\n", ", line 1: numbers must be decimal, got 1:30:00"),
        ("a: [1, 2,\n  1:30.5]\n", ", line 2: numbers must be decimal, got 1:30.5"),
        ("a: -2:03\n", ", line 1: numbers must be decimal, got -2:03"),
        ("a: 010\n", ", line 1: numbers must be decimal, got 010"),
        (
            "a: 0x1F\n",
            ", line 1: numbers must be decimal, got 0x1F, which YAML reads",
        ),
        ("a: -0b101\n", ", line 1: numbers must be decimal, got -0b101"),
        ("a: 1\nb: 2__0_\n", ", line 2: numbers must have _ between thousands only, got 2__0_"),
        ("a: 1_00.5\n", ", line 1: numbers must have _ between thousands only, got 1_00.5"),
        ("a: 1\nb: " + "9" * 5000, ", line 2: numbers must have at most 1000 digits, got 5000"),
        ("a: 0x" + "F" * 5000, ", line 1: numbers must have at most 1000 digits, got 5002"),
        ("a: 1\nb: [2026-13-45]\n", ", line 2: it is not valid YAML: month must be in 1..12"),
        ("a:\n  b: 1\n\tc: 2\n", ", line 3: it is indented with a tab"),
        (
            "a:\n  \tb: 1\n",
            ", line 2: it is indented with a tab, which YAML does not allow; use spaces",
        ),
        ("a: {\n\tb: 1,\n\tb: 2}\n", ", line 3: the key 'b' is also in line 2"),
        ("a: {\n\tb: @}\n", ", line 2: while scanning for the next token, found character that"),
        ("a: 1\nb: \x07\n", ", line 2: it is not valid YAML: unacceptable character #x0007"),
        ("a: {? [b] : 1}\n", ", line 1: while constructing a mapping, found unhashable key"),
        ("a: {<<: 3}\n", ", line 1: while constructing a mapping, expected a mapping"),
        ("a: {<<: {b: 1}, <<: {b: 2}}\n", ", line 1: the key '<<' is also in line 1"),
        ("a: &x 1\nb: {c: &x [*x]}\n", ", line 2: the alias *x contains itself"),
        ("a: ! 1\n", ", line 1: tags are not allowed, got '!'"),
        ("a: !<tag:yaml.org,2002:str> 1\n", ", line 1: tags are not allowed"),
        ('a: "\\ud800"\n', ", line 1: while parsing a quoted scalar"),
        ("a: 1\n__use_yte__: true\n?print(1): 2\n", " must not be a template, got the key __use"),
        ("a: !!python/object/apply:os.system [ls]\n", ", line 1: tags are not allowed"),
        ("a: !!binary aGVsbG8=\n", ", line 1: tags are not allowed"),
        ("a: !mine 1\n", ", line 1: tags are not allowed"),
        ("a: !!set {b}\n", ", line 1: tags are not allowed"),
        ("a: 1\nb: \u00e9t\u00e9\n".encode("latin-1"), ", line 2: the file must be UTF-8"),
        ("a: 1\n".encode("utf-16"), ", line 1: the file must be UTF-8"),
        ("\ufeff\ufeffa: 1\n", ", line 1: a byte-order mark may only begin"),
        ("a: 1\nb: 2\n\ufeffc: 3\n", ", line 3: a byte-order mark may only begin"),
        ("a: 1\nb: [\n", ", line 3: "),
        ("a: b: c\n", ", line 1: mapping values are not allowed"),
        ("a: *b\n", ", line 1: found undefined alias"),
        ("a: 1\n---\nb: 2\n", ", line 2: expected a single document"),
        ("a: 2026-13-45\n", " is not valid YAML: month must be in 1..12"),
        ("{[1, 2]: 3}\n", ", line 1: "),
        ("a: \x00\n", " is not valid YAML"),
        ("- 1\n", " must hold a mapping, got list"),
        ("", " must hold a mapping, got NoneType"),
        ("a: 1\n" + "#" * 9_000_000, " must have at most"),
    ],
)
def test_read_yaml_refuses_in_one_line(tmp_path, content, message):
    assert message in refusal(tmp_path, content)


def test_read_yaml_names_a_path_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"missing.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_yaml(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a: &a {b: 1}\nc: {<<: *a, d: 2}\n", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
        ("a: &a {b: 1}\nc: {<<: *a, b: 2}\n", {"a": {"b": 1}, "c": {"b": 2}}),
        ("a: '1:30:00'\nb: \"010\"\n", {"a": "1:30:00", "b": "010"}),
        ("a: [0, 0.5, 1e-3, 1_000, -0]\n", {"a": [0, 0.5, "1e-3", 1000, 0]}),
        ("\ufeffa: \u00e9t\u00e9\n", {"a": "\u00e9t\u00e9"}),
        ("a: &x 1\nb: [*x, *x]\n", {"a": 1, "b": [1, 1]}),
        ("a: module:function\nb: 12:ab\n", {"a": "module:function", "b": "12:ab"}),
        ("a: 1_000_000\nb: 1_000.5\nc: 1_2a\n", {"a": 1_000_000, "b": 1000.5, "c": "1_2a"}),
        ("a: 3" + "x" * 2000 + "\n", {"a": "3" + "x" * 2000}),
    ],
)
def test_read_yaml_reads_what_is_clear(tmp_path, content, expected):
    path = tmp_path / "config.yaml"
    path.write_text(content, encoding="utf-8")
    assert read_yaml(path) == expected


CUT = "a: 1\nb:\n  c: [1, {d: 'e'}]\n  # f\n  g: \"h\"\n  ij: >\n    k\nl: &m 2\nn: *m\n"


@pytest.mark.parametrize("end", range(1, len(CUT)))
def test_a_file_that_is_cut_off_is_read_or_refused_in_one_line(tmp_path, end):
    path = tmp_path / "config.yaml"
    path.write_text(CUT[:end], encoding="utf-8")
    message = f"{path}: "
    try:
        read_yaml(path)
    except ConfigError as error:
        message = str(error)
    assert message.startswith(str(path))
    assert "\n" not in message
