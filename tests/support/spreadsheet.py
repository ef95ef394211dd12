"""A table as people have it."""

import csv
import random

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
