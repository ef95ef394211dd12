"""The README's first example: a spreadsheet's export to a trained prompt and a table of answers, by three commands."""

import csv

import pytest

from support.spreadsheet import TEXTS, export


@pytest.mark.embedded
def test_three_commands_lead_from_a_spreadsheet_to_a_table_of_answers(cli, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "tickets.csv", labelled=True)
    export(tmp_path / "new.csv", labelled=False)
    code, out, err = cli("init", "tickets.csv")
    assert code == 0, err
    assert "'order return' × 1 is read as 'Order Return'" in out
    assert "'Delivry' × 1 is read as 'Delivery', which it nearly is" in out
    assert "tickets.csv is read as cp1252; if letters are wrong, save it as UTF-8" in caplog.text
    code, out, err = cli("adapt", "--task", "tickets.yaml", "--out", "prompts/tickets", "--set", "adapt.steps=30")
    assert code == 0, err
    code, _, err = cli("predict", "new.csv", "--prompt", "prompts/tickets", "--output", "answers.csv")
    assert code == 0, err
    with (tmp_path / "answers.csv").open(encoding="utf-8-sig", newline="") as file:
        answers = list(csv.DictReader(file, delimiter=";"))
    assert list(answers[0]) == ["Ticket No", "Message Body", "Agent", "answer", "confidence"]
    assert [row["Ticket No"] for row in answers] == [str(1000 + number) for number in range(60)]
    assert answers[0]["Message Body"].endswith("\n„Nr. 0“ – thanks")
    right = sum(row["answer"] == list(TEXTS)[n % 3] for n, row in enumerate(answers))
    assert right >= 50
    assert all(0 < float(row["confidence"]) <= 1 for row in answers)
