"""The README's first example: a spreadsheet's export to a trained prompt and a table of answers, by three commands."""

import csv
import random

import pytest

TEXTS = {
    "Order Return": ["I want to send the shoes back", "the jacket is too small, please take it back",
                     "how do I return the lamp?", "the colour is wrong, I would like to exchange it"],
    "Delivery": ["where is my parcel?", "the courier did not come", "my order has not arrived yet",
                 "the tracking number shows nothing"],
    "Invoice": ["the bill is wrong", "I was charged twice", "please send the invoice to my company",
                "the VAT is missing on the receipt"],
}  # fmt: skip


def export(path, labelled):
    """A table as a Western spreadsheet exports it: semicolons, cp1252, line breaks within cells, an empty last row."""
    draw, rows = random.Random(0), []
    for number in range(60):
        label = list(TEXTS)[number % 3]
        text = f"{draw.choice(TEXTS[label])}\n„Nr. {number}“ – thanks"
        slip = {6: "order return", 7: "Delivry"}.get(number, label)
        rows.append([str(1000 + number), text, *([slip] if labelled else []), "Jörg"])
    with path.open("w", encoding="cp1252", newline="") as file:
        table = csv.writer(file, delimiter=";")
        table.writerow(["Ticket No", " Message Body ", *(["Category"] if labelled else []), "Agent"])
        table.writerows([*rows, [""] * len(rows[0])])


@pytest.mark.embedded
def test_three_commands_lead_from_a_spreadsheet_to_a_table_of_answers(cli, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    export(tmp_path / "tickets.csv", labelled=True)
    export(tmp_path / "new.csv", labelled=False)
    code, out, err = cli("init", "tickets.csv")
    assert code == 0, err
    assert "'order return' × 1 is read as 'Order Return'" in out
    assert "'Delivry' × 1 is read as 'Delivery', which it nearly is" in out
    assert "tickets.csv is no UTF-8, and is read as cp1252" in caplog.text
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
