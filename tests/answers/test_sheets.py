"""A table in, the same table with answers out: every column, in the rows' order, as spreadsheets open it."""

import csv
import json

import pyarrow as arrow
import pytest
from openpyxl import load_workbook
from pyarrow import parquet

from mptune.answers import streaming
from mptune.answers.prediction import Predictor
from mptune.answers.sheets import refuse_too_many, write_table
from mptune.answers.streaming import answer_file, check_places
from mptune.errors import DataError, UsageError
from mptune.prompts.card import Calibration
from mptune.tasks.rows import unlabelled_rows
from support.prompts import random_prompt
from support.toys import make_task

ROWS = [{"No": "007", "text": "blue, quite\nblue", "answer": "old"}, {"No": "8", "text": "=red", "answer": ""}]


@pytest.fixture
def predictor(backbone, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(streaming, "BATCHES", 1)  # portions of 32 rows
    task = make_task(tmp_path_factory.mktemp("task"), "colour", "blue", "red")
    return Predictor(backbone, [random_prompt(backbone, [task])])


def semicolons(path, rows=ROWS, encoding="cp1252"):
    with path.open("w", encoding=encoding, newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter=";")
        table.writeheader()
        table.writerows(rows)
    return path


def read(file):
    problems = []
    rows = [row for _, row in unlabelled_rows(file, problems)]
    assert problems == []
    return rows


@pytest.mark.parametrize("ending", ["csv", "tsv", "xlsx", "parquet"])
def test_all_columns_stay_and_answer_and_confidence_stand_beside_them(predictor, tmp_path, ending):
    source, out = semicolons(tmp_path / "rows.csv"), tmp_path / f"answers.{ending}"
    answer_file(predictor, source, out)
    answers = [p.as_dict() for p in predictor.predict(ROWS)]
    written = read(out)
    assert list(written[0]) == ["No", "text", "answer", "answer (mptune)", "confidence"]
    for row, given, answer in zip(written, ROWS, answers, strict=True):
        assert {name: row[name] or "" for name in given} == given
        assert row["answer (mptune)"] == answer["answer"]
        assert float(row["confidence"]) == pytest.approx(answer["probabilities"][answer["answer"]], abs=5e-5)
    assert [path.name for path in tmp_path.iterdir() if path.name not in (source.name, out.name)] == []


@pytest.mark.parametrize("ending", ["csv", "xlsx", "parquet"])
def test_a_column_says_what_is_abstained_where_a_prompt_has_a_threshold(predictor, tmp_path, ending):
    task, out = predictor.tasks[0], tmp_path / f"answers.{ending}"
    prompt = random_prompt(predictor.backbone, [task])
    sure = sorted(p.confidence for p in predictor.predict(ROWS))
    found = Calibration(temperature=1, threshold=sure[1], precision=0.9, rows=20, split="test")
    prompt.card = prompt.card.model_copy(update={"calibration": {task.name: found}})
    answer_file(Predictor(predictor.backbone, [prompt]), semicolons(tmp_path / "rows.csv"), out, probabilities=True)
    written = read(out)
    assert list(written[0])[3:] == ["answer (mptune)", "confidence", "abstained", "P(no)", "P(yes)"]
    expected = [p.confidence < sure[1] for p in predictor.predict(ROWS)]
    assert sorted(expected) == [False, True]
    assert [str(row["abstained"]) for row in written] == list(map(str, expected))
    if ending == "parquet":
        assert parquet.read_schema(out).field("abstained").type == arrow.bool_()
    if ending == "xlsx":
        assert [row[5].value for row in load_workbook(out).active.iter_rows(min_row=2)] == expected


def test_tasks_without_a_threshold_leave_the_column_empty(tmp_path):
    ranked = {"task": "u", "answer": "no", "probabilities": {"no": 0.6}, "abstained": True}
    answered = [({"text": "x"}, {"task": "t", "answer": "some words"}), ({"text": "y"}, ranked)]
    write_table(tmp_path / "a.csv", "csv", answered, ["text"], None, None, abstains=True)
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines == ["text,answer,confidence,abstained", "x,some words,,", "y,no,0.6,True"]


def test_probabilities_have_a_column_for_each_label_word(predictor, tmp_path):
    source, out = semicolons(tmp_path / "rows.csv"), tmp_path / "answers.csv"
    answer_file(predictor, source, out, probabilities=True)
    (first, _) = read(out)
    assert list(first)[-2:] == ["P(no)", "P(yes)"]
    assert float(first["P(no)"]) + float(first["P(yes)"]) == pytest.approx(1, abs=2e-4)


def test_a_csv_file_keeps_its_delimiter_and_tells_spreadsheets_that_it_is_utf_8(predictor, tmp_path):
    source = semicolons(tmp_path / "rows.csv", [{"text": "blau – „schön“", "No": "1"}])
    answer_file(predictor, source, tmp_path / "answers.csv")
    content = (tmp_path / "answers.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbftext;No;answer;confidence\r\n")
    assert "blau – „schön“;1;" in content.decode("utf-8-sig")


def test_columns_of_parquet_keep_their_kinds(predictor, tmp_path):
    table = arrow.table({"text": ["blue", "red"], "n": [1, None], "at": [0.5, 1.5]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    answer_file(predictor, tmp_path / "rows.parquet", tmp_path / "answers.parquet")
    written = parquet.read_table(tmp_path / "answers.parquet")
    assert written.schema.field("n").type == arrow.int64()
    assert written.select(["text", "n", "at"]).to_pylist() == table.to_pylist()


@pytest.mark.parametrize("ending", ["csv", "parquet", "xlsx"])
def test_cells_stay_as_they_stand_and_no_column_is_lost_that_a_late_row_has(predictor, tmp_path, ending):
    rows = [{"text": f"blue {n}"} for n in range(1100)] + [{"text": "red", "late": "\u200fשלום \x1b[1m"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    answer_file(predictor, tmp_path / "rows.jsonl", tmp_path / f"answers.{ending}")
    written = read(tmp_path / f"answers.{ending}")
    assert len(written) == 1101
    held = "\ufffd" if ending == "xlsx" else "\x1b"  # which XML cannot hold
    assert written[-1]["late"] == f"\u200fשלום {held}[1m"


def test_nested_cells_stay_as_json(predictor, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "blue", "tags": ["a", "ü"]}\n{"text": "red"}\n')
    answer_file(predictor, tmp_path / "rows.jsonl", tmp_path / "answers.csv")
    assert [row["tags"] for row in read(tmp_path / "answers.csv")] == ['["a", "ü"]', ""]


def test_a_formula_stays_a_text(predictor, tmp_path):
    answer_file(predictor, semicolons(tmp_path / "rows.csv"), tmp_path / "answers.xlsx")
    cells = [row[1] for row in load_workbook(tmp_path / "answers.xlsx").active.iter_rows(min_row=2)]
    assert [(cell.data_type, cell.value) for cell in cells] == [("s", "blue, quite\nblue"), ("s", "=red")]


def test_what_was_answered_before_a_kill_is_not_answered_again(predictor, tmp_path, monkeypatch):
    source = semicolons(tmp_path / "rows.csv", [{"text": f"blue {n}", "No": str(n)} for n in range(70)])
    asked, ask = [], Predictor.predict

    def stopping(self, rows):
        asked.append(len(rows))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return ask(self, rows)

    monkeypatch.setattr(Predictor, "predict", stopping)
    with pytest.raises(KeyboardInterrupt):
        answer_file(predictor, source, tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()
    answer_file(predictor, source, tmp_path / "answers.csv")
    assert asked == [32, 32, 32, 6]
    assert [row["No"] for row in read(tmp_path / "answers.csv")] == [str(n) for n in range(70)]


def test_a_table_wants_its_rows_in_a_file_and_a_file_to_go_to(tmp_path):
    with pytest.raises(
        UsageError, match=r"answers\.csv is to be a table, which wants the rows in a file; name it, or JSON"
    ):
        check_places(None, tmp_path / "answers.csv")
    (tmp_path / "a.csv").write_text("text\n")
    (tmp_path / "there.csv").mkdir()
    with pytest.raises(UsageError, match=r"there\.csv is no file, and a table cannot go there"):
        check_places(tmp_path / "a.csv", tmp_path / "there.csv")


def test_more_rows_than_a_sheet_has_are_refused_before_the_work(tmp_path):
    refuse_too_many(tmp_path / "a.xlsx", 1_048_575)
    refuse_too_many(tmp_path / "a.csv", 10**9)
    with pytest.raises(DataError, match=r"a sheet has 1,048,576 rows, and the rows are 1,048,576; name a \.csv"):
        refuse_too_many(tmp_path / "a.xlsx", 1_048_576)


def test_free_text_has_no_confidence(tmp_path):
    answered = [({"text": "x"}, {"task": "t", "answer": "some words"})]
    write_table(tmp_path / "a.csv", "csv", answered, ["text"], None, None)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8-sig") == "text,answer,confidence\nx,some words,\n"


def test_rows_and_the_option_of_the_same_are_not_taken_both(cli, tmp_path):
    code, _, err = cli("predict", "rows.csv", "--input", "rows.csv", "--prompt", "x")
    assert (code, err) == (2, "mptune: predict wants ROWS or --input, which are the same; got both\n")
    code, _, err = cli("predict", "rows.csv", "--prompt", "x", "--probabilities")
    assert (code, "JSON lines have them anyway" in err) == (2, True)
