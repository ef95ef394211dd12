"""Tables as spreadsheets write them are read as they are meant, with the rows' numbers that a spreadsheet shows."""

import codecs
import gzip

import pytest
from openpyxl import Workbook, load_workbook

from mptune.errors import ConfigError, DataError
from mptune.tasks.data import load_data
from mptune.tasks.rows import unlabelled_rows
from mptune.tasks.tables import delimiter_of, encoding_of, first_delimiter, write_sheet
from support.rows import mood, problems

TEXT = "Müller schrieb: „zu spät“ – schade"


def read(file):
    """The rows of a file with their numbers, and what is wrong with it."""
    problems: list[str] = []
    return list(unlabelled_rows(file, problems)), problems


def sheet(path, *rows, more=0):
    book = Workbook()
    for row in rows:
        book.active.append(row)
    for number in range(more):
        other = book.create_sheet(f"more {number}")
        for cells in (["text", "label"], ["z", "bad"]):
            other.append(cells)
    book.save(path)
    return path


@pytest.mark.parametrize(
    ("encoding", "mark", "found"),
    [
        ("utf-8", b"", "utf-8"),
        ("utf-8", codecs.BOM_UTF8, "utf-8-sig"),
        ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16"),
        ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16"),
        ("utf-16-le", b"", "utf-16-le"),
        ("utf-16-be", b"", "utf-16-be"),
        ("cp1252", b"", "cp1252"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_an_encoding_is_found_by_looking(tmp_path, encoding, mark, found, compressed):
    content = mark + f"text;label\r\n{TEXT};good\r\n".encode(encoding)
    file = tmp_path / ("a.csv.gz" if compressed else "a.csv")
    file.write_bytes(gzip.compress(content) if compressed else content)
    assert encoding_of(file) == found
    assert read(file) == ([(2, {"text": TEXT, "label": "good"})], [])


def test_what_is_taken_for_cp1252_is_said_with_what_to_do(tmp_path, caplog):
    (tmp_path / "old.csv").write_bytes(f"text,label\n{TEXT},good\n".encode("cp1252"))
    read(tmp_path / "old.csv")
    assert caplog.messages == ["old.csv is read as cp1252; if letters are wrong, save it as UTF-8"]
    assert len("mptune: tickets" + caplog.messages[0].removeprefix("old")) < 80  # one line of a narrow terminal


def test_a_mark_goes_before_the_encoding_that_is_named_and_utf_8_without_one_is_told(tmp_path, caplog):
    """As where a table was saved anew, and the task's file says how it was before."""
    for number, written in enumerate(("utf-8-sig", "utf-16", "cp1252", "ascii", "utf-8")):
        text = "plain" if written == "ascii" else "zu spät"
        (tmp_path / f"{number}.csv").write_bytes(f"text,label\n{text},bad\n".encode(written))
        read_as = load_data(mood(train=tmp_path / f"{number}.csv", encoding="cp1252"), ["train"]).train[0].input
        assert (read_as == f"mood: {text}") == (written != "utf-8")
    assert caplog.messages == [
        "4.csv is UTF-8, but its task says encoding: cp1252; take that line out if letters are wrong"
    ]


def test_a_broken_letter_far_behind_is_no_utf_8(tmp_path):
    (tmp_path / "long.csv").write_bytes(b"text\n" + b"a" * 200_000 + b"\xe4\n")
    assert encoding_of(tmp_path / "long.csv") == "cp1252"


def test_an_encoding_and_a_delimiter_that_are_named_are_taken(tmp_path, caplog):
    file = tmp_path / "rows.csv"
    file.write_bytes("text|label\nгород; село|good\n".encode("cp1251"))
    task = mood(train=file, encoding="cp1251", delimiter="|")
    assert load_data(task, ["train"]).train[0].input == "mood: город; село"
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb\n1\t2\n", "\t"),
        ("a|b\nx;y|z\n", "|"),
        ('a;b\n"x;y";z\n', ";"),
        ("text\nwell, well\n", ","),
        ("a,b;c\n1,2;3\n", ","),
        ("a;b,c;d\n1;2;3\n", ";"),
        ('"a, b";c\n1;2\n', ";"),
        ("a;b\n1;2\n3;4;5\n6;7\n", ";"),
        ("", ","),
    ],
)
def test_the_delimiter_is_what_gives_header_and_rows_as_many_cells(text, delimiter):
    assert delimiter_of(text.splitlines(keepends=True)) == delimiter


def test_a_spreadsheets_own_way_to_name_the_delimiter_is_taken_and_counted_as_a_row(tmp_path):
    (tmp_path / "a.csv").write_text("sep=|\ntext|label\na,b|good\n")
    assert read(tmp_path / "a.csv") == ([(3, {"text": "a,b", "label": "good"})], [])
    assert first_delimiter(tmp_path / "a.csv") == "|"


def test_tabs_divide_a_tsv_file_whatever_else_it_holds(tmp_path):
    (tmp_path / "a.tsv").write_text("text\tlabel;x\na,b;c\tgood\n")
    assert read(tmp_path / "a.tsv") == ([(2, {"text": "a,b;c", "label;x": "good"})], [])


def test_rows_are_counted_as_a_spreadsheet_shows_them_and_empty_ones_are_passed_over_with_a_line(tmp_path, caplog):
    (tmp_path / "a.csv").write_text('text;label\n"two\nlines";good\n\n;;\n  ; \nx;bad\n;\n')
    rows, wrong = read(tmp_path / "a.csv")
    assert (rows, wrong) == ([(2, {"text": "two\nlines", "label": "good"}), (6, {"text": "x", "label": "bad"})], [])
    assert "a.csv: 4 rows, the first 3 without anything in it, passed over" in caplog.text


def test_columns_without_a_name_may_be_empty_and_nothing_else(tmp_path):
    (tmp_path / "a.csv").write_text("text;label;;\nx;good;;\ny;bad;;note\nz;good;;;more\n")
    rows, wrong = read(tmp_path / "a.csv")
    assert rows == [(2, {"text": "x", "label": "good"})]
    assert wrong == [
        "a.csv row 3 has a cell in a column without a name; quote a text that has the delimiter in it",
        "a.csv row 4 has more cells than the header; quote a text that has the delimiter in it",
    ]


def test_names_of_columns_lose_spaces_around_them_and_are_one_however_their_letters_were_typed(tmp_path):
    (tmp_path / "a.csv").write_text(" Message Body ,label\nx,good\n")
    assert read(tmp_path / "a.csv")[0] == [(2, {"Message Body": "x", "label": "good"})]
    (tmp_path / "b.jsonl").write_text('{"u\u0308ber": "x", "label": "gut\u0308"}\n')
    task = mood(template="{\u00fcber}", verbalizer={"gut\u0308": "yes", "bad": "no"}, train=tmp_path / "b.jsonl")
    assert load_data(task, ["train"]).train[0].input == "x"


@pytest.mark.parametrize(
    "name", ["Message Body", "review-text", "टिप्पणी", "Ref. no", "#", "a/b", "Betreff: neu", "Urgent! (y/n)"]
)
def test_a_template_names_columns_as_they_stand(tmp_path, name):
    (tmp_path / "a.csv").write_text(f"{name},label\nx,good\n", encoding="utf-8")
    task = mood(template=f"say: {{{name}}}", train=tmp_path / "a.csv")
    assert load_data(task, ["train"]).train[0].input == "say: x"


def test_a_sheet_is_read_with_its_rows_numbers(tmp_path, caplog):
    file = sheet(tmp_path / "a.xlsx", [], ["text", " label "], ["x", 1], [], [7.0, True], ["y", None], more=2)
    rows, wrong = read(file)
    assert wrong == []
    assert rows == [(3, {"text": "x", "label": 1}), (5, {"text": 7, "label": True}), (6, {"text": "y", "label": None})]
    assert (
        "a.xlsx: the first sheet, Sheet, is read; more 0, more 1 have rows: to read one, move it to the front, or save "
        "it as a file of its own"
    ) in caplog.messages
    assert "row 4 without anything in it" in caplog.text


def test_a_first_sheet_without_rows_names_those_that_have_some(tmp_path):
    for rows in ([], [["Report"]]):
        assert read(sheet(tmp_path / "a.xlsx", *rows, more=1)) == (
            [],
            [
                "a.xlsx: its first sheet, Sheet, has no rows; more 0 has rows: to read it, move it to the front, or "
                "save it as a file of its own"
            ],
        )


def test_a_sheet_of_a_title_alone_is_not_spoken_of(tmp_path, caplog):
    workbook = load_workbook(sheet(tmp_path / "a.xlsx", ["text", "label"], ["x", "good"]))
    workbook.create_sheet("Notes").append(["Remarks"])
    workbook.save(tmp_path / "a.xlsx")
    assert read(tmp_path / "a.xlsx") == ([(2, {"text": "x", "label": "good"})], [])
    assert caplog.messages == []


def test_a_sheet_that_is_named_is_read_and_one_that_is_not_there_is_told(tmp_path, caplog):
    file = sheet(tmp_path / "a.xlsx", ["Report"], more=2)
    assert load_data(mood(train=file, sheet="more 1"), ["train"]).train[0].input == "mood: z"
    assert caplog.messages == []
    assert problems(mood(train=file, sheet="mor 1"), code=2) == [
        "a.xlsx has no sheet 'mor 1'; it has Sheet, more 0, more 1. Did you mean more 1?"
    ]


def test_a_column_that_stands_twice_is_refused_in_a_sheet_too(tmp_path):
    file = sheet(tmp_path / "a.xlsx", ["text", "label", "text"], ["x", "good", "y"])
    assert problems(mood(train=file)) == ["a.xlsx: its header has 'text' twice; one would hide the other"]


def test_what_is_no_sheet_is_told_and_no_traceback(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04 half a zip")
    assert problems(mood(train=tmp_path / "a.xlsx")) == [
        "a.xlsx (train) cannot be read as xlsx: it is no XLSX file (File is not a zip file)"
    ]


def test_a_formula_that_a_row_holds_is_written_as_a_text(tmp_path, caplog):
    write_sheet(tmp_path / "a.xlsx", ["text"], [["=1+1"], ["x" * 40_000], [0.5]])
    written = [row[0] for row in load_workbook(tmp_path / "a.xlsx").active.iter_rows()]
    assert [(cell.data_type, str(cell.value)[:4]) for cell in written] == [
        ("s", "text"),
        ("s", "=1+1"),
        ("s", "xxxx"),
        ("n", "0.5"),
    ]
    assert "an XLSX cell holds 32,767 characters" in caplog.text


def test_an_encoding_that_nobody_knows_is_refused():
    with pytest.raises(ConfigError, match="is no encoding that Python knows, as utf-8 or cp1252; got 'utf-9'"):
        mood(train="a.csv", encoding="utf-9")


# -- rows held out, rows without labels, spellings --------------------------------------------------------------------


def table(tmp_path, counts, name="all.csv", extra=()):
    lines = [f"{label} number {n},{label}" for label, count in counts.items() for n in range(count)]
    (tmp_path / name).write_text("\n".join(["text,label", *lines, *extra]) + "\n")
    return tmp_path / name


def by_label(examples):
    return {label: sum(e.label == label for e in examples) for label in ("good", "bad")}


def test_of_one_file_a_fifth_of_every_class_is_tested_and_a_tenth_validates(tmp_path, caplog):
    task = mood(train=table(tmp_path, {"good": 100, "bad": 20}), split="held-out")
    data = load_data(task, ["train", "validation", "test"])
    assert by_label(data.test) == {"good": 20, "bad": 4}
    assert by_label(data.validation) == {"good": 10, "bad": 2}
    assert by_label(data.train) == {"good": 70, "bad": 14}
    assert len({e.row for e in data.train + data.validation + data.test}) == 120
    assert "84 rows are to train on; held out of every class, 24 to test and 12 to validate" in caplog.text


@pytest.mark.parametrize("asked", [["train"], ["test"], ["train", "validation"], ["validation", "test"]])
def test_what_is_held_out_is_the_same_whatever_is_asked_for(tmp_path, asked):
    task = mood(train=table(tmp_path, {"good": 30, "bad": 30}), split="held-out")
    whole, part = load_data(task, ["train", "validation", "test"]), load_data(task, asked)
    for split in asked:
        assert getattr(part, split) == getattr(whole, split)


def test_a_text_that_stands_several_times_is_on_one_side_and_a_class_of_two_stays_to_train_on(tmp_path):
    file = table(tmp_path, {"good": 20, "bad": 2}, extra=["good number 3,good", "GOOD number 3,good"] * 5)
    data = load_data(mood(train=file, split="held-out"), ["train", "validation", "test"])
    sides = [{e.input.lower() for e in split} for split in (data.train, data.validation, data.test)]
    assert all(not (a & b) for a, b in ((sides[0], sides[1]), (sides[0], sides[2]), (sides[1], sides[2])))
    assert by_label(data.train)["bad"] == 2


def test_labels_of_which_no_row_is_held_out_are_told_with_their_rows(tmp_path, caplog):
    words = {label: label for label in "abcdefgh"}
    counts = {"a": 30, "b": 1, "c": 2, "d": 3}
    held = mood(words, train=table(tmp_path, counts), split="held-out")
    load_data(held, ["train"])
    assert caplog.messages[1:] == [
        "mood: b has 1 row, c has 2 rows: they are neither tested nor validated",
        "mood: d has 3 rows: it is not validated",
    ]
    caplog.clear()
    own = mood(words, train=table(tmp_path, {"a": 30, **dict.fromkeys("bcdefgh", 1)}))
    load_data(own, ["train"])
    assert caplog.messages == []  # nothing is held out
    load_data(own, ["train", "validation"])
    (said,) = caplog.messages
    assert said.endswith(" has 1 row and 1 labels more: they are not validated") or said.endswith(
        "they are not validated"
    )


def test_held_out_wants_no_other_split(tmp_path):
    with pytest.raises(ConfigError, match="split: held-out takes all rows from train, and wants no validation and no"):
        mood(train="a.csv", test="b.csv", split="held-out")


def test_rows_without_a_label_are_passed_over_where_the_task_says_so(tmp_path, caplog):
    file = table(tmp_path, {"good": 1, "bad": 1}, extra=["open,", "open too,  "])
    assert problems(mood(train=file))[0] == "all.csv row 4: label is empty; fill it, or leave the row out"
    assert len(load_data(mood(train=file, without_label="skip"), ["train"]).train) == 2
    assert "all.csv has rows without a label, which are passed over: 2" in caplog.text
    with pytest.raises(
        DataError,
        match=r"rows 2, 3: no txt, which template: of the task names .did you mean text[?].; it has text, label",
    ):  # a row that lacks more is none of these
        load_data(mood(train=file, template="{txt}", without_label="skip"), ["train"])


def test_another_spelling_of_a_label_is_that_label(tmp_path):
    file = table(tmp_path, {"good": 1}, extra=["x,Good ", "y,goood"])
    task = mood(train=file, relabel={"Good ": "good", "goood": "good"})
    assert [(e.label, e.target) for e in load_data(task, ["train"]).train] == [("good", "yes")] * 3


@pytest.mark.parametrize(
    ("relabel", "said"),
    [({"x": "best"}, "relabel leads to what is no label of the verbalizer: x as best"),
     ({"good": "bad"}, "relabel replaces labels of the verbalizer: good")],
)  # fmt: skip
def test_a_spelling_leads_to_a_label_and_is_none_itself(relabel, said):
    with pytest.raises(ConfigError, match=said):
        mood(relabel=relabel, train="a.csv")


@pytest.mark.parametrize("name", ["tickets.csv", "tickets.tsv"])
def test_a_workbook_by_another_name_is_called_what_it_is(tmp_path, caplog, name):
    workbook = Workbook()
    workbook.active.append(["text", "label"])
    workbook.save(tmp_path / "tickets.xlsx")
    (tmp_path / "tickets.xlsx").rename(tmp_path / name)
    problems = []
    assert list(unlabelled_rows(tmp_path / name, problems)) == []
    assert problems == [f"{name} cannot be read: it is an Excel workbook by what it holds, and no text; name it .xlsx"]
    assert "cp1252" not in caplog.text
