"""A folder's lines: read and checked one by one, added all or none."""

import json
from pathlib import Path

import pytest

from mptune.answers.metrics import Score
from mptune.comparison.results import Line, add_results, read_lines, read_results
from mptune.errors import ResultsError

RESULTS = Path(__file__).parents[2] / "results"
LEAST = {"method": "mpt", "task": "rte", "shots": 4, "seed": 0, "scores": [{"metric": "accuracy", "value": 61.5}]}
LINE = Line.model_validate(LEAST)


def of_seed(seed, **found):
    return Line.model_validate({**LEAST, "seed": seed, **found})


def test_lines_are_added_behind_whole_ones_and_in_the_place_of_a_cut_one(tmp_path):
    assert read_results(tmp_path) == []
    add_results(tmp_path, [LINE])
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"method": "mp')
    assert read_results(tmp_path) == [LINE]
    more = [of_seed(1, of_a_later_version=None), of_seed(2)]
    add_results(tmp_path, more)
    assert read_results(tmp_path) == [LINE, *more]


def test_a_whole_last_line_counts_and_stays_though_an_editor_took_its_end(tmp_path):
    (tmp_path / "results.jsonl").write_text(LINE.json_text())
    assert read_results(tmp_path) == [LINE]
    add_results(tmp_path, [of_seed(1)])
    assert read_results(tmp_path) == [LINE, of_seed(1)]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("{broken", "results.jsonl line 1 is not JSON"),
        ("5", "results.jsonl line 1: Input should be a valid dictionary"),
        ("null", "results.jsonl line 1: Input should be a valid dictionary"),
        ('{"a": "\\ud83d"}', "half a character"),
        (json.dumps({k: v for k, v in LEAST.items() if k != "scores"}), "results.jsonl line 1: scores: Field required"),
        (json.dumps(LEAST), "results.jsonl line 2 repeats the run of line 1; keep one of them"),
    ],
)
def test_a_damaged_line_before_the_last_is_said(tmp_path, damage, says):
    (tmp_path / "results.jsonl").write_text(damage + "\n" + json.dumps(LEAST) + "\n")
    with pytest.raises(ResultsError) as error:
        read_results(tmp_path)
    assert "cannot be added to; mend or remove the lines, whose runs are done again:" in str(error.value)
    assert says in str(error.value)


def test_bytes_that_are_no_text_are_said(tmp_path):
    (tmp_path / "results.jsonl").write_bytes(json.dumps(LEAST).encode() + b"\n\xff\xfe\n")
    with pytest.raises(ResultsError, match=r"results\.jsonl cannot be read"):
        read_results(tmp_path)


@pytest.mark.parametrize("file", sorted(RESULTS.rglob("results.jsonl")), ids=lambda file: file.parent.name)
def test_committed_lines_are_written_as_they_were_read(file):
    problems = []
    texts, lines = file.read_text(encoding="utf-8").splitlines(), read_lines(file, problems)
    assert problems == []
    for text, line in zip(texts, lines, strict=True):
        # Once 10240.0 was stored.
        assert line.json_text() in (text, text.replace(".0}", "}")) or "parameters" not in text
        assert json.loads(line.json_text()) == json.loads(text)


def test_a_line_is_written_in_the_order_of_its_fields_without_those_that_were_not_set():
    score = Score("rte", "test", "accuracy", 50.0, 4)
    line = Line(
        seed=0, shots=0, task="rte", method="constant", scores=(score,), credit=(1.0, 0.0, 0.3333, 1.0), answer=None
    )
    timed = line.model_copy(update={"seconds": 0.5, "commit": None})
    assert timed.json_text() == (
        '{"method": "constant", "task": "rte", "shots": 0, "seed": 0, "answer": null, "scores": [{"task": "rte", '
        '"split": "test", "metric": "accuracy", "value": 50.0, "examples": 4}], "credit": [1, 0, 0.3333, 1], '
        '"seconds": 0.5, "commit": null}'
    )


def test_what_a_score_leaves_out_is_that_of_its_line():
    assert LINE.scores == (Score("rte", "test", "accuracy", 61.5, 0),)


def test_what_a_method_found_on_its_way_is_kept_under_its_own_name(tmp_path):
    add_results(tmp_path, [of_seed(0, temperature=0.5)])
    assert '"temperature": 0.5' in (tmp_path / "results.jsonl").read_text()
    assert read_results(tmp_path)[0].temperature == 0.5
