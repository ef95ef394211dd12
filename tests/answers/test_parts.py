"""Many files of rows to a folder of answers: in order, each once, gone on with after a kill."""

import csv
import gzip
import json

import pytest

from mptune.answers.parts import LEDGER, Part, answer_parts, are_many, check_parts, parts_of
from mptune.answers.prediction import Predictor
from mptune.errors import DataError, UsageError
from support.prompts import random_prompt
from support.toys import make_task, toy_rows, write_rows


@pytest.fixture
def predictor(backbone, tmp_path):
    return Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")])])


@pytest.fixture
def rows(tmp_path):
    """A folder with three files of five, six and seven rows, and what is none of them."""
    folder = tmp_path / "rows"
    folder.mkdir()
    texts = [{"text": r["text"]} for r in toy_rows("good", "bad", 18)]
    write_rows(folder / "b.jsonl", texts[:5])
    with (folder / "a.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["text", "id"])
        table.writeheader()
        table.writerows({**row, "id": n} for n, row in enumerate(texts[5:11]))
    with gzip.open(folder / "c.json.gz", "wt") as file:
        json.dump(texts[11:], file)
    (folder / "notes.md").write_text("not rows")
    (folder / ".hidden.jsonl").write_text("{}")
    return folder


def answered(predictor, parts, **how):
    return [(part.source.name, count) for part, count in answer_parts(predictor, parts, **how)]


def test_a_folder_and_a_pattern_name_many_files_and_a_file_does_not(rows, tmp_path):
    assert are_many(rows)
    assert are_many(rows / "*.jsonl")
    assert not are_many(rows / "b.jsonl")
    assert not are_many(tmp_path / "nowhere.jsonl")
    odd = write_rows(tmp_path / "a[1].jsonl", [{"text": "x"}])
    assert not are_many(odd)  # a file may be called like a pattern


def test_each_file_has_one_of_answers_and_tables_stay_tables(rows, tmp_path):
    parts = parts_of(rows, tmp_path / "out")
    assert [(p.source.name, p.output.name) for p in parts] == [
        ("a.csv", "a.csv"), ("b.jsonl", "b.jsonl"), ("c.json.gz", "c.jsonl")
    ]  # fmt: skip
    assert parts_of(rows / "b*", tmp_path / "out") == [Part(rows / "b.jsonl", tmp_path / "out" / "b.jsonl")]


@pytest.mark.parametrize("named", [None, "out.jsonl", "out.csv", "file"])
def test_answers_to_several_files_want_a_folder(named, rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="several files of rows want a folder for their answers as --output; got "):
        parts_of(rows, named and tmp_path / named)


def test_where_no_rows_are_it_is_said(rows, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"the folder .*empty has no file of rows; wanted are \.jsonl, \.json, \.csv"):
        parts_of(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match=r"\*\.parquet names no file of rows"):
        parts_of(rows / "*.parquet", tmp_path / "out")


def test_two_files_may_not_share_one_of_answers_and_rows_are_never_written_over(rows, tmp_path):
    write_rows(rows / "c.jsonl", [{"text": "x"}])
    with pytest.raises(UsageError, match=r"answers to .*c\.json\.gz and .*c\.jsonl would both be .*; rename one"):
        parts_of(rows, tmp_path / "out")
    (rows / "c.jsonl").unlink()
    with pytest.raises(UsageError, match="is the folder of the rows themselves; choose another --output"):
        parts_of(rows, rows)
    with pytest.raises(UsageError, match="is the folder of the rows themselves"):
        parts_of(rows / "*.csv", tmp_path / "rows")


def test_answers_are_those_of_each_file_and_a_second_call_answers_nothing(predictor, rows, tmp_path, monkeypatch):
    parts = parts_of(rows, tmp_path / "out")
    assert answered(predictor, parts) == [("a.csv", 6), ("b.jsonl", 5), ("c.json.gz", 7)]
    for part, count in zip(parts[1:], (5, 7), strict=True):
        lines = [json.loads(line) for line in part.output.read_text().splitlines()]
        unpacked = gzip.decompress(part.source.read_bytes()) if part.source.suffix == ".gz" else b""
        texts = json.loads(unpacked) if unpacked else [json.loads(line) for line in part.source.open()]
        assert len(lines) == count
        assert [line["answer"] for line in lines] == [p.answer for p in predictor.predict(texts)]
    table = list(csv.DictReader((tmp_path / "out" / "a.csv").open(encoding="utf-8-sig")))
    assert [row["id"] for row in table] == list("012345")
    before = {part.output: part.output.read_bytes() for part in parts}
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("answered twice"))
    assert answered(predictor, parts) == [("a.csv", None), ("b.jsonl", None), ("c.json.gz", None)]
    assert {part.output: part.output.read_bytes() for part in parts} == before


def test_what_was_killed_goes_on_with_the_part_that_is_not_there(predictor, rows, tmp_path, monkeypatch):
    parts, predict = parts_of(rows, tmp_path / "out"), Predictor.predict

    def dying(self, some):
        if len(some) == 5:
            raise RuntimeError("killed")
        return predict(self, some)

    monkeypatch.setattr(Predictor, "predict", dying)
    with pytest.raises(RuntimeError, match="killed"):
        answered(predictor, parts)
    ledger = tmp_path / "out" / LEDGER
    first = next(line for line in ledger.read_text().splitlines() if line)
    ledger.write_text(f'{first}\n{{"part": "b.js')  # half a line, as a power failure leaves it
    monkeypatch.setattr(Predictor, "predict", predict)
    assert answered(predictor, parts) == [("a.csv", None), ("b.jsonl", 5), ("c.json.gz", 7)]
    assert answered(predictor, parts) == [("a.csv", None), ("b.jsonl", None), ("c.json.gz", None)]


def test_answers_of_other_work_are_not_taken_for_this(predictor, backbone, rows, tmp_path):
    parts = parts_of(rows, tmp_path / "out")
    answered(predictor, parts)
    other = Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")], seed=5)])
    with pytest.raises(UsageError, match=r"a\.csv is there already, with 6 rows; remove it, or name another"):
        answered(other, parts)
    write_rows(rows / "b.jsonl", [{"text": "the sky is red"}])
    with pytest.raises(UsageError, match=r"b\.jsonl is there already"):
        answered(predictor, parts)


def test_where_no_folder_can_be_made_it_is_said_before_the_work(predictor, rows, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file/out cannot be made or written; give --output a place that can be"):
        check_parts(parts_of(rows, tmp_path / "file" / "out"), predictor.tasks)
    check_parts(parts_of(rows, tmp_path / "new" / "out"), predictor.tasks)
    assert not (tmp_path / "new").exists()


def test_a_table_without_the_tasks_column_is_said_before_anything_is_answered(predictor, rows, tmp_path):
    (rows / "z.csv").write_text("remark\nfine\n")
    with pytest.raises(DataError, match="it has no column 'text'"):
        check_parts(parts_of(rows, tmp_path / "out"), predictor.tasks)


def test_rows_that_cannot_be_answered_stand_aside_part_by_part(predictor, rows, tmp_path):
    with (rows / "b.jsonl").open("a") as file:
        file.write('{"txt": "no text"}\n')
    parts = parts_of(rows, tmp_path / "out")
    with pytest.raises(DataError, match="row 6: no field 'text'"):
        answered(predictor, parts)
    assert answered(predictor, parts, aside=True) == [("a.csv", None), ("b.jsonl", 6), ("c.json.gz", 7)]
    assert answered(predictor, parts, aside=True) == [("a.csv", None), ("b.jsonl", None), ("c.json.gz", None)]
    with pytest.raises(UsageError, match=r"b\.jsonl is there already"):  # it lacks an answer, which nobody allowed now
        answered(predictor, parts)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.aside.jsonl")) == ["b.jsonl.aside.jsonl"]
    assert [part.source.name for part in parts_of(tmp_path / "out", tmp_path / "again")] == [
        "a.csv",
        "b.jsonl",
        "c.jsonl",
    ]
