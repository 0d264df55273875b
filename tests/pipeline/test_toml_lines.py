"""Lines of the parts of a TOML text, against tomllib and hand counting."""

from __future__ import annotations

import tomllib

import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from pipeline.toml_lines import lines_of

TEXT = '''\
# a comment with [brackets] and "quotes"
title = "a # b" # c
"quoted key" = 1
dotted . inner.'deep # key' = [ # comment ]
  "one", """two
  lines""",

  { x = 1, y = { z = [2, 3] } }, '\\', "\\"]",
]

[table]
text = """
[no.table]
no_key = "x" \\""" still"""""
raw = \'\'\'
[neither] \'\'\'
date = 1979-05-27 07:32:00 # at
  [table."sub table"]  # a ]
  key = {}
[[array.of]]
a = 1
[array.of.tables]
b = 2
[[array.of]]
a = []
'''


def test_lines_are_those_a_reader_counts():
    tomllib.loads(TEXT)
    lines = lines_of(TEXT)
    for path, line in {
        ("title",): 2,
        ("quoted key",): 3,
        ("dotted",): 4,
        ("dotted", "inner", "deep # key"): 4,
        ("dotted", "inner", "deep # key", 0): 5,
        ("dotted", "inner", "deep # key", 1): 5,
        ("dotted", "inner", "deep # key", 2): 8,
        ("dotted", "inner", "deep # key", 2, "y", "z", 1): 8,
        ("dotted", "inner", "deep # key", 4): 8,
        ("table",): 11,
        ("table", "text"): 12,
        ("table", "raw"): 15,
        ("table", "date"): 17,
        ("table", "sub table"): 18,
        ("table", "sub table", "key"): 19,
        ("array", "of", 0): 20,
        ("array", "of", 0, "tables", "b"): 23,
        ("array", "of", 1): 24,
        ("array", "of", 1, "a"): 25,
    }.items():
        assert lines[path] == line, path
    assert set(lines) >= set(paths_of(tomllib.loads(TEXT)))


def paths_of(value, path=()):
    if path:
        yield path
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    for key, inner in items:
        yield from paths_of(inner, (*path, key))


texts = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=12)
values = st.recursive(
    st.booleans() | st.integers() | st.floats() | texts | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(texts, values, max_size=4), st.booleans())
def test_every_part_of_a_text_has_a_line_on_which_its_key_stands(table, multiline):
    text = tomli_w.dumps(table, multiline_strings=multiline)
    parsed = tomllib.loads(text)
    found = lines_of(text)
    assert set(found) == set(paths_of(parsed))
    rows = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str) and path[-1].isalnum() and path[-1].isascii():
            assert path[-1] in rows[line - 1]


@given(st.integers(0, len(TEXT)), st.integers(0, 40))
def test_what_is_left_of_a_text_is_still_read_whole(start, length):
    text = TEXT[:start] + TEXT[start + length :]
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return
    assert set(lines_of(text)) >= set(paths_of(parsed))
