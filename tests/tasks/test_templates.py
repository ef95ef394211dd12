"""A template is text with fields, and nothing else: whatever is written, words and fields come back as they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mptune.tasks.templates import fields, is_field, pieces, plain

WORDS = st.text(st.characters(codec="utf-8"), max_size=12)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="{}[]:!."), min_size=1, max_size=8).filter(
    lambda name: name.strip() and not name[-1].isspace()
)


@given(st.lists(st.tuples(WORDS, NAMES), max_size=4), WORDS)
def test_what_was_written_is_what_is_read(parts, last):
    template = "".join(f"{plain(words)}{{{name}}}" for words, name in parts) + plain(last)
    assert list(pieces(template)) == [*parts, (last, None)]
    assert fields(template) == [name for _, name in parts]
    assert all(is_field(name) for _, name in parts)


@pytest.mark.parametrize("template", ["{", "}", "a {b", "a} b", "{{{", "{a{b}}", "{{a}"])
def test_a_brace_alone_is_none(template):
    with pytest.raises(ValueError, match="stands alone"):
        list(pieces(template))


@pytest.mark.parametrize(
    "name", ["text", "a b", "a: b", "50 %", "No.", "a.b", "answers[text][0]", "Urgent! (y/n)", "x!y"]
)
def test_names_are_columns_with_or_without_keys(name):
    assert is_field(name)


@pytest.mark.parametrize(
    "name", ["", " ", "a[]", "a[b", "a[b].c", "a.__class__", "a!r", "a!s:>3", "a:>10", "a:3", "text:", "[a]", "a[b]c"]
)
def test_formats_attributes_and_halves_of_keys_are_none(name):
    assert not is_field(name)
