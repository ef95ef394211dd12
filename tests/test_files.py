"""Files are written whole or not at all, and JSON that no file could hold again is refused."""

import json

import pytest

from conftest import largest_file
from mptune.files import parsed, write_file


def test_what_cannot_be_written_leaves_what_was_there_and_nothing_else(tmp_path):
    write_file(tmp_path / "page.html", "before")
    with largest_file(100), pytest.raises(OSError, match="too large"):
        write_file(tmp_path / "page.html", "x" * 1000)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("page.html", "before")]


def test_text_is_written_in_utf_8_and_bytes_as_they_are(tmp_path):
    for content, stored in (("Å\n", b"\xc3\x85\n"), (b"\xff", b"\xff")):
        write_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == stored


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (r'{"a": "half an emoji \ud83d here"}', r"half a character, as \\ud83d alone"),
        (r'{"\uDE00": 1}', "half a character"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_what_no_file_could_hold_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parsed(text)


def test_whole_characters_pass_and_no_json_is_an_error_of_json():
    assert parsed(r'["\ud83d\ude00", "\\ud83d"]') == ["\U0001f600", r"\ud83d"]
    with pytest.raises(json.JSONDecodeError):
        parsed("{")
