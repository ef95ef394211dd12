"""Files are written whole or not at all, and JSON that no file could hold again is refused."""

import contextlib
import json
import os
import stat
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mptune.errors import ConfigError, UsageError
from mptune.files import (
    append_line,
    beside,
    is_scratch,
    json_lines,
    json_object,
    open_new,
    parsed,
    read_yaml,
    refuse_existing,
    refuse_lost,
    write_file,
    write_folder,
)
from support.toys import largest_file


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
        ('{"a": [{"b": 1, "b": 2}]}', "'b' stands twice, with 1 and 2; one would hide the other"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 4_301 + "]", "a number has 4,301 digits, and may have 4,300"),
    ],
)
def test_what_no_file_could_hold_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        parsed(text)


@pytest.mark.parametrize("text", ["NaN", "[-Infinity]", '{"a": 1e999}', "-1" + "0" * 400 + ".5"])
def test_a_number_that_is_not_finite_is_refused_where_it_is_to_be(text):
    parsed(text)
    with pytest.raises(ValueError, match="is no finite number"):
        parsed(text, finite=True)
    assert parsed("[1, -2.5e-3]", finite=True) == [1, -0.0025]


def test_a_key_that_stands_twice_among_many_is_found_at_once():
    text = "{" + "".join(f'"{number}": {number}, ' for number in range(100_000)) + '"9": 0, "9": 1}'
    began = time.perf_counter()
    with pytest.raises(ValueError, match="'9' stands twice, with 9 and 0; one would hide the other"):
        parsed(text)
    assert time.perf_counter() - began < 5  # each key compared with those before it would take minutes


def test_whole_characters_pass_and_no_json_is_an_error_of_json():
    assert parsed(r'["\ud83d\ude00", "\\ud83d"]') == ["\U0001f600", r"\ud83d"]
    with pytest.raises(json.JSONDecodeError):
        parsed("{")


def test_lines_of_json_keep_their_numbers_and_what_is_wrong_with_them():
    text = '{"a": 1}\n\n  \n[2\n"\u2028"\n"\\ud83d"\n3'
    lines = list(json_lines(text))
    assert [line.number for line in lines] == [1, 4, 5, 6, 7]
    assert [line.value for line in lines] == [{"a": 1}, None, "\u2028", None, 3]  # a separator within a text is text
    assert [type(line.error) for line in lines if line.error] == [json.JSONDecodeError, ValueError]
    assert lines[1].text == "[2"


@pytest.mark.parametrize(
    ("content", "values"),
    [('{"a": 1}', {"a": 1}), ("[1]", None), ("{", None), ("", None), ("[" * 100_000, None), (b"\xff", None)],
)
def test_a_json_object_or_nothing(tmp_path, content, values):
    write_file(tmp_path / "file", content)
    assert json_object(tmp_path / "file") == values


def test_a_folder_is_whole_or_not_there_and_readable_by_others(tmp_path):
    write_folder(tmp_path / "new" / "whole", lambda folder: write_file(folder / "a", "1"))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["whole"]
    assert (tmp_path / "new" / "whole").stat().st_mode & 0o777 == 0o755

    def break_off(folder):
        write_file(folder / "a", "1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "new" / "half", break_off)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["whole"]


def test_what_stands_already_and_what_has_no_folder_is_refused(tmp_path):
    refuse_existing(tmp_path / "new")
    refuse_lost(tmp_path / "a.jsonl", "--output")
    with pytest.raises(UsageError, match="exists already; remove it or choose another name"):
        refuse_existing(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*no for --output a\.jsonl; make it first"):
        refuse_lost(tmp_path / "no" / "a.jsonl", "--output")


def test_a_path_in_a_file_is_relative_to_it_or_absolute_or_from_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/of/mine")
    names = {"a/b": tmp_path / "a/b", "../b": tmp_path / "../b", "/a": Path("/a"), "~/a": Path("/home/of/mine/a")}
    assert {name: beside(tmp_path, name) for name in names} == names


def test_no_name_that_was_planted_is_followed(tmp_path):
    """By somebody else who may write into the folder, and knows how files were called while they were written."""
    (tmp_path / "victim").write_text("mine")
    for name in (".file.part", "file", ".folder", "log"):
        (tmp_path / name).symlink_to(tmp_path / "victim")
    write_file(tmp_path / "file", "new")
    assert not (tmp_path / "file").is_symlink()
    assert (tmp_path / "file").read_text() == "new"
    for write in (lambda: append_line(tmp_path / "log", "{}"), lambda: open_new(tmp_path / "log")):
        with pytest.raises(OSError, match=r"symbolic link|File exists"):
            write()
    assert (tmp_path / "victim").read_text() == "mine"


def test_names_of_what_is_being_written_cannot_be_foreseen(tmp_path, monkeypatch):
    names, real = [], Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, place: names.append(self) or real(self, place))
    for _ in range(3):
        write_file(tmp_path / "file", "new")
    assert len(set(names)) == 3
    assert all(is_scratch(name) for name in names)


def test_contents_and_names_are_on_the_disk_before_and_after_a_rename(tmp_path, monkeypatch):
    done, sync, replace = [], os.fsync, Path.replace

    def synced(number):
        done.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")
        sync(number)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, place: done.append("rename") or replace(self, place))
    write_file(tmp_path / "file", "new")
    assert done == ["file", "rename", "folder"]


def test_a_file_that_is_written_again_keeps_its_permissions_and_a_new_one_has_the_usual(tmp_path):
    (tmp_path / "usual").touch()
    write_file(tmp_path / "file", "1")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "usual").stat().st_mode
    (tmp_path / "file").chmod(0o640)
    write_file(tmp_path / "file", "2")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_new_folder_goes_where_a_link_leads(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "new")
    assert refuse_existing(tmp_path / "link") == tmp_path / "disk" / "new"
    write_folder(tmp_path / "link", lambda folder: write_file(folder / "a", "1"))
    assert (tmp_path / "disk" / "new" / "a").read_text() == "1"
    assert (tmp_path / "link").is_symlink()


def test_a_lock_follows_no_planted_link(tmp_path):
    (tmp_path / "victim").write_text("mine")
    (tmp_path / "lock").symlink_to(tmp_path / "victim")
    with contextlib.suppress(OSError), FileLock(tmp_path / "lock", timeout=0):
        pass
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "is not valid YAML: nested too deeply"),
        ("".join(f"{' ' * n}a:\n" for n in range(600)), "is not valid YAML: nested too deeply"),
        ("a: &a " + "x" * 1000 + "\n" + "".join(
            f"{k}: &{k} [{', '.join(['*' + j] * 9)}]\n" for j, k in zip("abcdef", "bcdefg", strict=True)
        ), "is not valid YAML: its anchors unfold to more than 300,000 values; write them out"),
        ("a: &a [*a]", "its anchors unfold to more than"),
        ("a: " + "x" * 400_000, "is not valid YAML: it has 400,003 characters, and may have 300,000"),
        ("a: \0", "is not valid YAML: "),
    ],
    ids=["deep", "deep by lines", "unfolding", "without end", "large", "no text"],
)  # fmt: skip
def test_yaml_that_would_take_long_is_refused_at_once(tmp_path, text, says):
    (tmp_path / "a.yaml").write_text(text)
    started = time.monotonic()
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "a.yaml")
    assert time.monotonic() - started < 2
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_anchors_that_stay_small_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("a: &a [x, y]\nb: *a\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": ["x", "y"], "b": ["x", "y"]}


def test_a_path_that_no_file_system_has_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read .*embedded null byte"):
        read_yaml(tmp_path / "a\0b")
