"""Rows to answers in a file: whatever stands there, whatever the rows come from, however often it is killed."""

import gzip
import io
import json
import os
import stat
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mptune.answers import streaming
from mptune.answers.prediction import Predictor
from mptune.answers.streaming import answer_file, check_head, check_places
from mptune.errors import DataError, MptuneError, UsageError
from mptune.prompts.card import Calibration
from mptune.tasks.task import Task
from support.prompts import random_prompt
from support.toys import make_task, toy_rows, write_rows

COUNT = 150


@pytest.fixture
def predictor(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "BATCHES", 1)  # portions of 32 rows
    return Predictor(backbone, [random_prompt(backbone, [make_task(tmp_path, "mood")])])


@pytest.fixture
def rows(tmp_path):
    return write_rows(tmp_path / "rows.jsonl", [{"text": r["text"]} for r in toy_rows("good", "bad", COUNT)])


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "a.jsonl"


@pytest.fixture
def whole(predictor, rows, tmp_path):
    """The answers of a call that nothing disturbed."""
    answer_file(predictor, rows, tmp_path / "whole.jsonl")
    return (tmp_path / "whole.jsonl").read_bytes()


def killed_after(portions, predictor, monkeypatch):
    """Let a predictor die behind so many portions."""
    predict, done = Predictor.predict, []

    def dying(self, some):
        if len(done) == portions:
            raise RuntimeError("killed")
        done.append(len(some))
        return predict(self, some)

    monkeypatch.setattr(Predictor, "predict", dying)
    return done


def test_answers_are_those_of_the_rows_in_order_and_nothing_else_stays(predictor, rows, whole, out):
    answer_file(predictor, rows, out)
    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["a.jsonl"]
    answers = [json.loads(line) for line in whole.splitlines()]
    every = predictor.predict([json.loads(line) for line in rows.read_text().splitlines()])
    assert [a["answer"] for a in answers] == [p.answer for p in every]


@pytest.mark.parametrize("damage", [b"", b'{"task": "mo', b"\0" * 40, b'{"task": "mood"}\n'])
def test_a_killed_call_goes_on_to_the_same_bytes(predictor, rows, whole, out, monkeypatch, damage):
    with monkeypatch.context() as patch:
        killed_after(2, predictor, patch)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, rows, out)
    (partial,) = out.parent.iterdir()
    assert not out.exists()
    assert partial.read_bytes().count(b"\n") == 64
    with partial.open("ab") as file:
        file.write(damage)
    done = killed_after(99, predictor, monkeypatch)
    answer_file(predictor, rows, out)
    assert sum(done) == COUNT - 64
    assert out.read_bytes() == whole
    assert [path.name for path in out.parent.iterdir()] == ["a.jsonl"]


def test_a_call_killed_before_its_last_name_asks_nothing_again(predictor, rows, whole, out, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(streaming, "settle", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            answer_file(predictor, rows, out)
    done = killed_after(1, predictor, monkeypatch)
    answer_file(predictor, rows, out)
    assert sum(done) == COUNT % 32
    assert out.read_bytes() == whole


def test_another_calibration_is_other_work(predictor, backbone, rows, whole, out, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(2, predictor, patch)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, rows, out)
    prompt = random_prompt(backbone, predictor.tasks)
    found = Calibration(temperature=3, threshold=0.7, precision=0.9, rows=20, split="test")
    prompt.card = prompt.card.model_copy(update={"calibration": {"mood": found}})
    done = killed_after(99, predictor, monkeypatch)
    answer_file(Predictor(backbone, [prompt]), rows, out)
    assert sum(done) == COUNT
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert all("abstained" in line for line in lines)
    assert [line["answer"] for line in lines] == [json.loads(line)["answer"] for line in whole.splitlines()]


def test_other_rows_are_other_work(predictor, rows, out, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(2, predictor, patch)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, rows, out)
    rows.write_text('{"text": "fine"}\n')
    answer_file(predictor, rows, out)
    assert out.read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(("rows_there", "held"), [(2, "2 rows"), (1, "1 row")])
def test_what_stands_in_the_outputs_place_is_never_replaced(predictor, rows, out, monkeypatch, rows_there, held):
    out.write_text('{"answer": "corrected by hand"}\n' * rows_there)
    before = out.read_bytes()
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("it answered"))
    told = rf"a\.jsonl is there already, with {held}; remove it, or name another with --output$"
    for call in (lambda: check_places(rows, out), lambda: answer_file(predictor, rows, out)):
        with pytest.raises(UsageError, match=told):
            call()
    assert out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["a.jsonl"]


def test_finished_answers_stay_and_what_is_no_rows_too(predictor, rows, whole, out):
    answer_file(predictor, rows, out)
    with pytest.raises(UsageError, match=rf"is there already, with {COUNT} rows; remove it"):
        answer_file(predictor, rows, out)
    assert out.read_bytes() == whole
    out.write_text("a letter")
    with pytest.raises(UsageError, match=r"a\.jsonl is there already; remove it"):
        check_places(rows, out)


def test_a_call_killed_on_its_way_into_a_file_that_cannot_be_replaced_goes_on(predictor, rows, whole, out, monkeypatch):
    out.touch()

    def half(partial, real):
        real.write_bytes(partial.read_bytes()[:100])
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(streaming, "_replace", half)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, rows, out)
    check_places(rows, out)
    answer_file(predictor, rows, out)
    assert out.read_bytes() == whole


@pytest.mark.parametrize("name", ["a.xls", "a.ods", "a.txt", "a.doc", "a", "a.jsonl.gz"])
def test_an_ending_that_is_not_written_is_refused_and_those_that_are_named(tmp_path, rows, name):
    with pytest.raises(
        UsageError,
        match=r"answers are written as a table \(\.csv \.tsv \.xlsx \.parquet\) or as JSON lines \(\.jsonl \.json "
        rf"\.ndjson\); got .*{name}, name it with one of these endings",
    ):
        check_places(rows, tmp_path / name)
    assert not (tmp_path / name).exists()


def test_json_lines_have_three_endings_and_pipes_and_devices_any(tmp_path, rows):
    os.mkfifo(tmp_path / "pipe.xls")
    for name in ("a.jsonl", "a.json", "a.NDJSON", "pipe.xls", "/dev/null"):
        check_places(rows, tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content"), [("r.jsonl", ""), ("r.csv", ""), ("r.csv", "No,text\n"), ("r.json", "[]")]
)
def test_a_file_without_rows_is_refused_before_a_model_is_loaded_and_an_empty_pipe_is_answered(
    predictor, out, tmp_path, name, content, monkeypatch
):
    (tmp_path / name).write_text(content)
    for call in (
        lambda: check_head(tmp_path / name, predictor.tasks),
        lambda: answer_file(predictor, tmp_path / name, out),
    ):
        with pytest.raises(DataError, match=rf"the rows of {name} cannot be answered: {name} has no rows$"):
            call()
    assert not list(out.parent.iterdir())
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert answer_file(predictor, None, out) == 0


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.csv", "No;Texts\n1;a\n", r"it has no column 'text' \(did you mean 'Texts'\?\); its columns are No, Texts$"),
        ("r.tsv", "No\tbody\n1\ta\n", r"it has no column 'text'; its columns are No, body$"),
    ],
)
def test_a_column_that_a_table_lacks_is_named_before_a_model_is_loaded(predictor, tmp_path, name, content, told):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=told):
        check_head(tmp_path / name, predictor.tasks)


def test_rows_that_the_head_cannot_judge_are_left_to_the_look_at_all(predictor, tmp_path):
    (tmp_path / "r.csv").write_text("No,text\n1\n2,a\n")  # a first row that is short
    check_head(tmp_path / "r.csv", predictor.tasks)
    (tmp_path / "r.csv").write_text("No,body\n1,a\n")
    prepared = predictor.tasks[0].model_copy(update={"prepare": "squad"})
    for tasks in ([prepared], [*predictor.tasks, prepared]):
        check_head(tmp_path / "r.csv", tasks)
    (tmp_path / "r.jsonl").write_text('{"body": "a"}\n')  # of lines, others may have the field
    check_head(tmp_path / "r.jsonl", predictor.tasks)
    check_head(None, predictor.tasks)


def test_a_second_call_into_one_file_is_refused_while_the_first_answers(predictor, rows, out, monkeypatch):
    predict, seen = Predictor.predict, []

    def again(self, some):
        monkeypatch.setattr(Predictor, "predict", predict)
        with pytest.raises(UsageError, match=r"another process is answering into .*a\.jsonl; wait for it"):
            answer_file(predictor, rows, out)
        seen.append(True)
        return predict(self, some)

    monkeypatch.setattr(Predictor, "predict", again)
    answer_file(predictor, rows, out)
    assert seen


def test_a_link_stays_one_and_its_target_gets_the_answers(predictor, rows, whole, out, tmp_path):
    for name in ("there.jsonl", "new.jsonl"):
        (tmp_path / "there.jsonl").write_text("")
        (tmp_path / "there.jsonl").chmod(0o640)
        out.unlink(missing_ok=True)
        out.symlink_to(tmp_path / name)
        answer_file(predictor, rows, out)
        assert out.is_symlink()
        assert (tmp_path / name).read_bytes() == whole
    assert stat.S_IMODE((tmp_path / "new.jsonl").stat().st_mode) == stat.S_IMODE(rows.stat().st_mode)


def test_a_pipe_takes_answers_as_they_come_and_stays_a_pipe(predictor, rows, whole, out):
    os.mkfifo(out)
    read = []
    reader = threading.Thread(target=lambda: read.append(out.read_bytes()))
    reader.start()
    answer_file(predictor, rows, out)
    reader.join()
    assert read == [whole]
    assert stat.S_ISFIFO(out.stat().st_mode)


def test_a_device_stays_a_device(predictor, rows, monkeypatch):
    from pathlib import Path

    monkeypatch.setattr(streaming, "settle", lambda *_: pytest.fail("a device was replaced"))
    answer_file(predictor, rows, Path("/dev/null"))
    with pytest.raises(OSError, match="No space left"):
        answer_file(predictor, rows, Path("/dev/full"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_file_that_cannot_be_replaced_is_written_into(predictor, rows, whole, out, monkeypatch):
    out.touch()
    number = out.stat().st_ino

    def busy(*_):
        raise OSError(16, "Device or resource busy")

    monkeypatch.setattr(streaming, "settle", busy)
    answer_file(predictor, rows, out)
    assert (out.read_bytes(), out.stat().st_ino) == (whole, number)
    assert [path.name for path in out.parent.iterdir()] == ["a.jsonl"]


def test_a_planted_link_in_place_of_unfinished_answers_is_not_followed(predictor, rows, out, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        killed_after(1, predictor, patch)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, rows, out)
    (partial,) = out.parent.iterdir()
    partial.unlink()
    (tmp_path / "victim").write_text("mine")
    partial.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic link"):
        answer_file(predictor, rows, out)
    assert (tmp_path / "victim").read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl", b'\xef\xbb\xbf{"text": "a"}\r\n\n{"text": "\xc3\xa9\xe2\x80\xa8"}\r\n'),
        ("r.jsonl", b'{"text": "a"}\r{"text": "\xc3\xa9\xe2\x80\xa8"}'),
        ("r.txt", b'{"text": "a"}\n{"text": "\xc3\xa9\xe2\x80\xa8"}'),
        ("r.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text": "\xc3\xa9\xe2\x80\xa8"}\n', mtime=0)),
        ("r.json", b'[{"text": "a"}, {"text": "\xc3\xa9\xe2\x80\xa8"}]'),
        ("r.json", b'{"text": "a"}\n{"text": "\xc3\xa9\xe2\x80\xa8"}\n'),
        ("r.csv", b'text\r\na\r\n"\xc3\xa9\xe2\x80\xa8"\r\n'),
    ],
)
def test_rows_are_read_in_every_format(predictor, out, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    answer_file(predictor, tmp_path / name, out)
    wanted = [p.as_dict() for p in predictor.predict([{"text": "a"}, {"text": "\u00e9\u2028"}])]
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [a["answer"] for a in found] == [a["answer"] for a in wanted]
    assert [a["probabilities"] for a in found] == [pytest.approx(a["probabilities"], abs=1e-6) for a in wanted]


def test_rows_are_read_from_parquet(predictor, rows, whole, out, tmp_path):
    from pyarrow import Table, parquet

    read = [json.loads(line) for line in rows.read_text().splitlines()]
    parquet.write_table(Table.from_pylist(read), tmp_path / "rows.parquet")
    answer_file(predictor, tmp_path / "rows.parquet", out)
    assert out.read_bytes() == whole


def test_every_row_of_a_file_is_checked_before_any_is_answered(predictor, rows, out, monkeypatch):
    with rows.open("a") as file:
        file.write('[1]\nno\n{"txt": "a"}\n')
    monkeypatch.setattr(Predictor, "predict", lambda *_: pytest.fail("it answered"))
    with pytest.raises(DataError) as error:
        answer_file(predictor, rows, out)
    assert error.value.problems == (
        "rows.jsonl row 151: wants {field: value}; got [1]",
        "rows.jsonl row 152 is no JSON: Expecting value, column 1",
        "row 153: no field 'text'; it has txt",
    )
    assert not list(out.parent.iterdir())


def test_places_are_checked_before_the_work(tmp_path, rows):
    (tmp_path / "closed").mkdir()
    for source, output, says in (
        (tmp_path / "none", None, "none cannot be read: No such file or directory"),
        (tmp_path, None, "cannot be read: Is a directory"),
        (tmp_path / "a\0b", None, "is no path"),
        (rows, tmp_path, "--output wants a file; .* is a folder"),
        (rows, tmp_path / "no" / "a.jsonl", "there is no folder .* for --output a.jsonl"),
        (rows, tmp_path / "a\0b", "is no path"),
    ):
        with pytest.raises(UsageError, match=says):
            check_places(source, output)
    check_places(rows, tmp_path / "a.jsonl")


def test_rows_are_not_replaced_by_their_answers(tmp_path, rows):
    (tmp_path / "link.jsonl").symlink_to(rows)
    (tmp_path / "hard.jsonl").hardlink_to(rows)
    for output in (rows, rows.parent / "." / rows.name, tmp_path / "link.jsonl", tmp_path / "hard.jsonl"):
        with pytest.raises(UsageError, match="holds the rows themselves, which answers would replace; choose another"):
            check_places(rows, output)


def test_an_output_that_cannot_be_written_is_said_before_the_work(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, how: how != os.W_OK)  # a test may run as root
    with pytest.raises(UsageError, match=r"a\.jsonl cannot be written; give --output a place that can be"):
        check_places(rows, tmp_path / "a.jsonl")


WORDS = st.lists(st.text(min_size=1).filter(str.strip), min_size=2, max_size=3, unique=True)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    words=WORDS,
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip), min_size=1, max_size=40),
)
def test_there_is_one_line_for_every_row_whatever_texts_and_label_words_are(backbone, tmp_path, words, texts):
    verbalizer = {str(number): word for number, word in enumerate(words)}
    try:
        task = Task(name="any", template="{text}", verbalizer=verbalizer)
        predictor = Predictor(backbone, [random_prompt(backbone, [task])])
        predictor.predict([{"text": "a"}])
    except MptuneError:  # a word that no tokenizer could read, or two that are one to it
        return
    rows = [{"text": text} for text in texts]
    (tmp_path / "answers.jsonl").unlink(missing_ok=True)
    answer_file(predictor, write_rows(tmp_path / "any.jsonl", rows), tmp_path / "answers.jsonl")
    lines = (tmp_path / "answers.jsonl").read_bytes().decode().split("\n")
    assert lines.pop() == ""
    found = [json.loads(line) for line in lines]
    wanted = [p.as_dict() for p in predictor.predict(rows)]
    assert [a["answer"] for a in found] == [a["answer"] for a in wanted]
    assert [list(a["probabilities"]) for a in found] == [words] * len(rows)


@pytest.fixture
def uneven(tmp_path):
    """Rows of which one lacks its text, one line is no row, and one is no JSON."""
    texts = [json.dumps({"text": r["text"]}) for r in toy_rows("good", "bad", 60)]
    lines = [*texts[:40], '{"txt": "slipped"}', "[1]", "{half", *texts[40:]]
    (tmp_path / "uneven.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path / "uneven.jsonl"


def test_rows_that_cannot_be_answered_stand_aside_with_the_reason_and_keep_their_place(predictor, uneven, out, caplog):
    assert answer_file(predictor, uneven, out, aside=True) == 61
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    assert [n for n, answer in enumerate(answers) if answer["answer"] is None] == [40]
    assert answers[40] == {"answer": None, "error": "row 41: no field 'text'; it has txt"}
    aside = [json.loads(line) for line in (out.parent / "a.jsonl.aside.jsonl").read_text().splitlines()]
    assert aside[0] == {"reason": "row 41: no field 'text'; it has txt", "row": {"txt": "slipped"}}
    assert [each["reason"][:19] for each in aside[1:]] == ["uneven.jsonl row 42", "uneven.jsonl row 43"]
    assert "3 rows of uneven.jsonl: no answer, and the reason in" in caplog.text


def test_a_table_has_an_empty_answer_where_a_row_stands_aside(predictor, tmp_path):
    (tmp_path / "r.csv").write_text("id,text\n1,the sky is red\n2,\n3,a cat sat\n")
    assert answer_file(predictor, tmp_path / "r.csv", tmp_path / "a.csv", aside=True) == 3
    lines = (tmp_path / "a.csv").read_text(encoding="utf-8-sig").splitlines()
    assert lines[2] == "2,,,"
    assert all(line.split(",")[2] for line in (lines[1], lines[3]))


def test_answers_with_rows_aside_go_on_after_a_kill(predictor, uneven, out, tmp_path, monkeypatch):
    answer_file(predictor, uneven, tmp_path / "whole.jsonl", aside=True)
    with monkeypatch.context() as patched:
        killed_after(1, predictor, patched)
        with pytest.raises(RuntimeError, match="killed"):
            answer_file(predictor, uneven, out, aside=True)
    assert not out.exists()
    answer_file(predictor, uneven, out, aside=True)
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    ending = streaming.ASIDE_ENDING
    assert out.with_name(out.name + ending).read_bytes() == (tmp_path / f"whole.jsonl{ending}").read_bytes()


def test_where_every_row_would_stand_aside_or_the_file_ends_too_early_nothing_is_answered(predictor, out, tmp_path):
    (tmp_path / "r.jsonl").write_text('{"txt": "a"}\n{"txt": "b"}\n')
    with pytest.raises(DataError, match="rows 1, 2: no field 'text'"):
        answer_file(predictor, tmp_path / "r.jsonl", out, aside=True)
    packed = gzip.compress(b'{"text": "the sky is red"}\n' * 5000)
    (tmp_path / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"cut\.jsonl\.gz cannot be read"):
        answer_file(predictor, tmp_path / "cut.jsonl.gz", out, aside=True)
    assert list(out.parent.iterdir()) == []


def test_rows_of_a_pipe_cannot_stand_aside(rows, out):
    for source, output in ((None, out), (rows, None)):
        with pytest.raises(UsageError, match="--aside wants rows in a file, and a file for their answers"):
            check_places(source, output, aside=True)
    out.with_name("a.jsonl.aside.jsonl").write_text('{"reason": "kept by hand"}\n')
    with pytest.raises(UsageError, match=r"a\.jsonl\.aside\.jsonl is there already, with 1 row"):
        check_places(rows, out, aside=True)
