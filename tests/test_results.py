"""A folder's lines: read and checked one by one, added all or none."""

import json

import pytest

from mptune.errors import ResultsError
from mptune.results import add_results, read_results

LINE = {"method": "mpt", "task": "rte", "shots": 4, "seed": 0, "scores": [{"metric": "accuracy", "value": 61.5}]}


def test_lines_are_added_behind_whole_ones_and_in_the_place_of_a_cut_one(tmp_path):
    assert read_results(tmp_path) == []
    add_results(tmp_path, [LINE])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"method": "mp')
    assert read_results(tmp_path) == [LINE]
    more = [{**LINE, "seed": 1, "of_a_later_version": None}, {**LINE, "seed": 2}]
    add_results(tmp_path, more)
    assert read_results(tmp_path) == [LINE, *more]


def test_a_whole_last_line_counts_and_stays_though_an_editor_took_its_end(tmp_path):
    (tmp_path / "results.jsonl").write_text(json.dumps(LINE))
    assert read_results(tmp_path) == [LINE]
    add_results(tmp_path, [{**LINE, "seed": 1}])
    assert read_results(tmp_path) == [LINE, {**LINE, "seed": 1}]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("{broken", "results.jsonl line 1 is not JSON"),
        ("5", "results.jsonl line 1: Input should be a valid dictionary"),
        ("null", "results.jsonl line 1: Input should be a valid dictionary"),
        ('{"a": "\\ud83d"}', "half a character"),
        (json.dumps({k: v for k, v in LINE.items() if k != "scores"}), "results.jsonl line 1: scores: Field required"),
        (json.dumps(LINE), "results.jsonl line 2 repeats the run of line 1; keep one of them"),
    ],
)
def test_a_damaged_line_before_the_last_is_said(tmp_path, damage, says):
    (tmp_path / "results.jsonl").write_text(damage + "\n" + json.dumps(LINE) + "\n")
    with pytest.raises(ResultsError) as error:
        read_results(tmp_path)
    assert "cannot be added to; mend or remove the lines, whose runs are done again:" in str(error.value)
    assert says in str(error.value)


def test_bytes_that_are_no_text_are_said(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(json.dumps(LINE).encode() + b"\n\xff\xfe\n")
    with pytest.raises(ResultsError, match=r"results\.jsonl cannot be read"):
        read_results(tmp_path)
