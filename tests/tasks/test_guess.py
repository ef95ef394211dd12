"""A labelled table says what task it is; what it leaves open is asked, and slips of the hand are told."""

import json

import pytest
from openpyxl import Workbook

from mptune.errors import ConfigError, DataError, UsageError
from mptune.tasks.data import load_data
from mptune.tasks.guess import guess_task, question, task_name
from mptune.tasks.registry import load_task

TEXTS = [f"a message about number {n}, with some words" for n in range(12)]


def table(tmp_path, labels, name="tickets.csv", columns=None, head="Message Body;Category"):
    """A file of texts, each with a label and what else stands in its row."""
    lines = [head]
    for n, label in enumerate(labels):
        more = "".join(f";{value}" for value in (columns[n] if columns else ()))
        lines.append(f"{TEXTS[n % len(TEXTS)]} {n};{label}{more}")
    (tmp_path / name).write_text("\n".join(lines) + "\n")
    return tmp_path / name


def test_the_longest_texts_are_read_and_the_column_that_is_called_so_has_the_labels(tmp_path):
    columns = [("open" if n % 2 else "shut", n, "2026-11-28") for n in range(12)]
    file = table(tmp_path, ["Order Return", "refund"] * 6, columns=columns, head="Message Body;Category;State;No;Date")
    guess = guess_task(file, "tickets")
    assert (guess.text, guess.label) == (("Message Body",), "Category")
    assert guess.task.template == "Which category is it: Order Return or refund? {Message Body}"
    assert guess.task.verbalizer == {"Order Return": "Order Return", "refund": "refund"}
    assert guess.task.metrics == ("accuracy", "f1_macro")
    assert guess.said == ()


def test_a_task_of_it_reads_the_file(tmp_path):
    file = table(tmp_path, ["yes", "no"] * 15)
    task = guess_task(file, "tickets", beside=tmp_path).task
    assert task.dataset.train == "tickets.csv"
    data = load_data(task.located(tmp_path), ["train", "validation", "test"])
    assert (len(data.train), len(data.validation), len(data.test)) == (20, 4, 6)
    assert data.train[0].input == f"Which category is it: no or yes? {TEXTS[0]} 0"


def test_two_columns_that_may_be_the_label_are_asked_for(tmp_path):
    columns = [("open" if n % 2 else "shut",) for n in range(12)]
    file = table(tmp_path, ["a", "b", "c"] * 4, columns=columns, head="Message Body;Kind;State")
    with pytest.raises(UsageError) as error:
        guess_task(file, "tickets")
    assert str(error.value) == (
        "tickets.csv has several columns that may be the label: Kind (3 values), State (2 values). "
        "Name it: --label COLUMN"
    )
    assert guess_task(file, "tickets", label="State").task.verbalizer == {"open": "open", "shut": "shut"}


def test_a_table_without_labels_or_without_texts_says_which_columns_it_has(tmp_path):
    (tmp_path / "a.csv").write_text("text,when\n" + "".join(f"some words {n},{n}\n" for n in range(9)))
    with pytest.raises(UsageError, match=r"no column of a\.csv looks like a label: .* one of text, when"):
        guess_task(tmp_path / "a.csv", "a")
    (tmp_path / "b.csv").write_text("n,label\n" + "".join(f"{n},{n % 2}\n" for n in range(9)))
    with pytest.raises(UsageError, match=r"no column of b\.csv looks like a text; it has n, label\. Name it: --text"):
        guess_task(tmp_path / "b.csv", "b")


def test_a_column_that_does_not_exist_is_told_with_the_nearest(tmp_path):
    file = table(tmp_path, ["a", "b"] * 6)
    with pytest.raises(UsageError, match=r"has no column 'Mesage'; it has Message Body, Category\. Did you mean 'Mess"):
        guess_task(file, "t", text=["Mesage"])
    with pytest.raises(UsageError, match="Did you mean 'Category'"):
        guess_task(file, "t", label="Categorie")


def test_several_columns_are_read_by_their_names(tmp_path):
    file = table(tmp_path, ["a", "b"] * 6, columns=[(f"about {n}",) for n in range(12)], head="Body;Category;Subject")
    task = guess_task(file, "t", text=["Subject", "Body"]).task
    assert task.template == "Which category is it: a or b? Subject: {Subject} Body: {Body}"


def test_spellings_that_differ_in_case_and_spaces_are_one_label(tmp_path):
    labels = ["Order Return"] * 8 + ["order return", "ORDER_RETURN", "refund", "refund"]
    guess = guess_task(table(tmp_path, labels), "t")
    assert guess.task.relabel == {"order return": "Order Return", "ORDER_RETURN": "Order Return"}
    assert list(guess.task.verbalizer) == ["Order Return", "refund"]
    assert guess.said[0] == "'order return' × 1 is read as 'Order Return'"


def test_a_rare_label_that_nearly_is_another_is_a_slip_and_said_to_be(tmp_path):
    guess = guess_task(table(tmp_path, ["Delivery"] * 10 + ["Delivry", "refund", "refund"]), "t")
    assert guess.task.relabel == {"Delivry": "Delivery"}
    assert guess.said == (
        "'Delivry' × 1 is read as 'Delivery', which it nearly is; if it is a label of its own, move it in the task's "
        "file from relabel: to verbalizer:",
    )


def test_labels_that_are_nearly_alike_and_both_common_are_asked_about_and_stay_apart(tmp_path):
    guess = guess_task(table(tmp_path, ["order returns"] * 8 + ["order return"] * 4), "t")
    assert guess.task.relabel == {}
    assert len(guess.task.verbalizer) == 2
    assert guess.said[0].startswith("'order return' × 4: did you mean 'order returns'? If so, in the task's file")


def test_labels_that_differ_in_a_number_are_different(tmp_path):
    guess = guess_task(table(tmp_path, ["level 1"] * 30 + ["level 2", "level 2"]), "t")
    assert (guess.task.relabel, guess.said) == ({}, ())


def test_rows_without_a_label_are_left_out_and_the_task_says_so(tmp_path):
    guess = guess_task(table(tmp_path, ["a", "b"] * 5 + ["", " "]), "t")
    assert guess.task.dataset.without_label == "skip"
    assert guess_task(table(tmp_path, ["a", "b"] * 5), "t").task.dataset.without_label == "refuse"


def test_words_have_spaces_for_underscores_unless_two_would_be_one(tmp_path):
    assert guess_task(table(tmp_path, ["card_fee", "top_up"] * 6), "t").task.label_words == ("card fee", "top up")
    (tmp_path / "two.json").write_text(
        json.dumps([{"text": f"some words {n}", "label": ("a_b", "a  b", "c")[n % 3]} for n in range(9)])
    )
    assert len(guess_task(tmp_path / "two.json", "t").task.verbalizer) == 2  # spellings of one label


def test_a_question_names_few_labels_and_no_braces_of_theirs(tmp_path):
    many = guess_task(table(tmp_path, [f"label {'abcdefghi'[n % 9]}" for n in range(36)]), "t").task
    assert many.template == "Which category is it? {Message Body}"
    braces = guess_task(table(tmp_path, ["{a}", "b"] * 6), "t").task
    assert braces.render({"Message Body": "x", "Category": "b"}).input == "Which category is it: b or {a}? x"


def test_a_column_that_no_template_can_name_is_told(tmp_path):
    file = table(tmp_path, ["a", "b"] * 6, head="te{x}t;Category")
    with pytest.raises(UsageError, match=r"a template cannot name the column 'te\{x\}t' of tickets\.csv; rename it"):
        guess_task(file, "t")


def test_a_name_that_no_task_may_have_is_told_in_a_line(tmp_path):
    with pytest.raises(ConfigError, match=r"the task of tickets\.csv: name: may not end in \.partial"):
        guess_task(table(tmp_path, ["a", "b"] * 6), "a.partial")


def test_one_label_alone_is_refused(tmp_path):
    with pytest.raises(
        DataError, match=r"column 'Category' has a single value, 'a', and a task tells two or more apart\. Add rows of"
    ):
        guess_task(table(tmp_path, ["a"] * 12), "t", label="Category")
    with pytest.raises(UsageError) as told:
        guess_task(table(tmp_path, ["a"] * 12), "t")
    assert str(told.value) == (
        "no column of tickets.csv looks like a label: a few values that many rows share. Category has a single value, "
        "'a'; add rows of another. Name it: --label COLUMN, one of Message Body, Category"
    )
    with pytest.raises(DataError, match="column 'Category' is empty in every row, and a label is wanted in some"):
        guess_task(table(tmp_path, [" "] * 12), "t", label="Category")


def test_too_few_rows_are_told_as_such(tmp_path):
    file = table(tmp_path, ["a", "b"])
    with pytest.raises(DataError, match=r"column 'Category' has 2 values on 2 rows, and more rows are wanted: several"):
        guess_task(file, "t", label="Category")
    with pytest.raises(
        UsageError, match=r"that many rows share\. It has 2 rows, and more are wanted\. Name it: --label"
    ):
        guess_task(file, "t")


def test_a_column_that_is_named_and_no_label_is_told_with_those_that_may_be(tmp_path):
    columns = [(f"T-{n}", "one") for n in range(30)]
    file = table(tmp_path, ["a", "b", "c"] * 10, columns=columns, head="Body;Category;Ticket No;Source")
    for label, why in (
        ("Ticket No", "has 30 values on 30 rows, which is no label: many rows share one."),
        ("Source", "has a single value, 'one', and a task tells two or more apart. Add rows of another."),
    ):
        with pytest.raises(DataError) as told:
            guess_task(file, "tickets", label=label)
        assert str(told.value) == (
            f"the data of task 'tickets' cannot be used: tickets.csv: column {label!r} {why} "
            "Columns that may be the label: Category (3 values). Name it: --label COLUMN"
        )


def test_of_few_rows_too_the_column_that_may_be_the_label_is_named(tmp_path):
    file = table(tmp_path, ["a", "b"] * 3, columns=[(n,) for n in range(6)], head="Body;Category;Ticket No")
    with pytest.raises(DataError, match=r"has 6 values on 6 rows, which is no label: .* Category \(2 values\)\. Name"):
        guess_task(file, "t", label="Ticket No")


def test_labels_that_are_numbers_are_told_to_mean_nothing(tmp_path):
    numbers = guess_task(table(tmp_path, ["1", "2.5", "-3"] * 4), "t")
    assert numbers.said == ("the labels are numbers; write under verbalizer: what they mean",)
    assert guess_task(table(tmp_path, ["1", "two"] * 6), "t").said == ()


@pytest.mark.parametrize(
    ("label", "asked"),
    [
        ("team", "Which team is it: a or b?"),
        ("Category:", "Which category is it: a or b?"),
        ("Handled By Team", "Handled By Team: a or b?"),
        ("is_spam", "is spam: a or b?"),
        ("{odd} name?", "{{odd}} name: a or b?"),
        ("??", "Which ?? is it: a or b?"),
    ],
)
def test_a_question_reads_as_english_for_any_column(label, asked):
    assert question(label, ["text"], {"0": "a", "1": "b"}) == f"{asked} {{text}}"


def test_a_table_that_is_taken_for_cp1252_says_so_in_its_task_and_once(tmp_path, caplog):
    file = table(tmp_path, ["gut", "schlecht"] * 15, head="Text für alle;Category")
    assert "encoding" not in guess_task(file, "t").task.dataset.model_dump(exclude_none=True)
    file.write_bytes(file.read_text().encode("cp1252"))
    task = guess_task(file, "t", beside=tmp_path).task
    assert task.dataset.encoding == "cp1252"
    load_data(task.located(tmp_path), ["train"])
    assert [said for said in caplog.messages if "cp1252" in said] == [
        "tickets.csv is read as cp1252; if letters are wrong, save it as UTF-8"
    ]


def workbook(path, **sheets):
    book = Workbook()
    book.remove(book.active)
    for title, lines in sheets.items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(line)
    book.save(path)
    return path


LABELLED = [["text", "team"], *[[f"a message about {n}", "ab"[n % 2]] for n in range(12)]]


def test_a_table_on_another_sheet_is_named_and_read_where_it_is_chosen(tmp_path):
    lines = [["What", "When"], ["a report of this year", "today"], ["and of the next one", "tomorrow"]]
    file = workbook(tmp_path / "t.xlsx", Cover=lines, Data=LABELLED)
    with pytest.raises(UsageError, match=r"one of What, When\. Other sheets have rows: Data; --sheet NAME reads one$"):
        guess_task(file, "t")
    with pytest.raises(
        UsageError, match=r"has no column 'team'; it has What, When\. Other sheets have rows: Data; --s"
    ):
        guess_task(file, "t", label="team")
    figures = workbook(
        tmp_path / "f.xlsx", Cover=[["n", "team"], *[[n, "ab"[n % 2]] for n in range(12)]], Data=LABELLED
    )
    with pytest.raises(
        UsageError, match=r"it has n, team\. Name it: --text COLUMN\. Other sheets have rows: Data; --sheet"
    ):
        guess_task(figures, "t")
    empty = workbook(tmp_path / "e.xlsx", Cover=[], Data=LABELLED)
    with pytest.raises(
        DataError, match=r"Cover, has no rows; Data has rows: to read it, move it .*--sheet NAME reads another"
    ):
        guess_task(empty, "t")
    for each in (file, empty):
        task = guess_task(each, "t", sheet="Data", beside=tmp_path).task
        assert (task.dataset.sheet, task.label) == ("Data", "team")
        assert len(load_data(task.located(tmp_path), ["train", "test"]).test) == 2


def test_a_sheet_is_of_workbooks(tmp_path):
    with pytest.raises(UsageError, match=r"--sheet is of xlsx files; tickets\.csv has no sheets"):
        guess_task(table(tmp_path, ["a", "b"] * 6), "t", sheet="Data")


@pytest.mark.parametrize(
    ("file", "name"),
    [("Tickets März.csv", "Tickets-Marz"), ("a.jsonl.gz", "a"), ("...csv", "mine"), ("x y_1.2.xlsx", "x-y_1.2")],
)
def test_a_task_has_its_files_name_in_plain_letters(tmp_path, file, name):
    assert task_name(tmp_path / file) == name


def test_the_command_writes_the_task_and_shows_what_a_model_reads(cli, tmp_path, monkeypatch):
    from support.models import make_backbone, saved

    saved(make_backbone("t5"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    table(tmp_path, ["Good"] * 10 + ["bad"] * 10 + ["good"])
    code, out, err = cli("init", "tickets.csv", "--backbone", tmp_path / "model")
    assert code == 0, err
    assert out.startswith("tickets.yaml: the text is Message Body, the label Category\n'good' × 1 is read as 'Good'\n")
    assert "Good\tGood\t" in out
    assert "tokens: Which category is it: Good or bad? a message about" in out
    assert err.endswith(
        "Look at tickets.yaml, change what is wrong, the question in template: before all;\n"
        "then: mptune adapt --task tickets.yaml --out prompts/tickets\n"
    )
    assert load_task(tmp_path / "tickets.yaml").relabel == {"good": "Good"}
    code, again, err = cli("tasks", "tickets.yaml", "--backbone", tmp_path / "model")
    assert (code, again[again.index("label\tword") :]) == (0, out[out.index("label\tword") :])
    code, _, err = cli("init", "tickets.csv")
    taken = "tickets.yaml is there already; remove it, or name another with --out\n"
    assert (code, err) == (2, f"mptune: {taken}")
    code, _, err = cli("init", "tickets.csv", "--label", "Categorie")
    assert code == 2
    assert err.endswith(f"Did you mean 'Category'?\n{taken}")


def test_a_table_whose_rows_are_wrong_leaves_no_task_so_that_the_same_command_may_be_given_again(
    cli, tmp_path, monkeypatch
):
    from support.models import make_backbone, saved

    saved(make_backbone("t5"), tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    file = table(tmp_path, ["Good", "bad"] * 10)
    whole = file.read_text()
    file.write_text(whole.replace(TEXTS[3] + " 3", ""))
    command = ("init", "tickets.csv", "--text", "Message Body", "--backbone", tmp_path / "model")
    code, out, err = cli(*command)
    assert (code, out) == (3, "")
    assert "tickets.csv row 5: Message Body is empty; fill it, or leave the row out" in err
    assert cli(*command[:-1], "./none")[0] == 3
    assert not (tmp_path / "tickets.yaml").exists()
    file.write_text(whole)
    code, _, err = cli(*command)
    assert code == 0, err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["none.csv"], 2, "none.csv cannot be read: No such file or directory"),
        (["."], 2, ""),
        (["rows.doc"], 2, ""),
    ],
)
def test_slips_are_told_in_a_line(cli, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.doc").write_text("x")
    found, _, err = cli("init", *arguments)
    assert "Traceback" not in err
    assert said in err
    assert found in (2, 3), err


def test_a_table_whose_first_row_is_a_row_is_asked_for_names(tmp_path):
    file = table(tmp_path, ["yes", "no"] * 15, head="a message;yes")
    with pytest.raises(UsageError) as told:
        guess_task(file, "tickets")
    assert str(told.value) == (
        "the first row of tickets.csv looks like a row and not like the names of columns: 'yes' stands below 'yes' 15 "
        "times. Write a first row with names, or, if they are right, say --label COLUMN"
    )
    assert guess_task(file, "tickets", label="yes").label == "yes"


def test_a_column_is_not_both_text_and_label(tmp_path):
    file = table(tmp_path, ["yes", "no"] * 15)
    with pytest.raises(UsageError, match=r"the column 'Category' of tickets\.csv cannot be both text and label"):
        guess_task(file, "tickets", text=["Category"], label="Category")


def test_a_column_of_its_own_value_in_nearly_every_row_is_no_label(tmp_path):
    file = table(tmp_path, [f"T-{n // 3}" if n < 9 else f"T-{n}" for n in range(30)])
    with pytest.raises(
        DataError, match=r"column 'Category' has 24 values on 30 rows, which is no label: many rows share"
    ):
        guess_task(file, "tickets", label="Category")
