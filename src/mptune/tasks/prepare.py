"""Rows of odd data sets made plain: one small pure function each, named in a task's ``prepare``.

A function takes a row and returns it with fields changed or added; a field that it needs and does not find is a
KeyError with the field's name. Right answers and labels may be absent: a row that is to be answered has none yet.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from mptune.tasks.cells import is_missing, text_cell

Row = Mapping[str, Any]

_WORD = re.compile(r"\S+")
_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z])")
_FACT = re.compile(r"\s*([^,\[\]]+)\[([^\]]*)\]")
# The categories of WebNLG 2017's training rows; its test rows have five more.
_SEEN = (
    "Airport", "Astronaut", "Building", "City", "ComicsCharacter", "Food", "Monument", "SportsTeam", "University",
    "WrittenWork",
)  # fmt: skip


def mark_spans(row: Row) -> Row:
    """WSC: ``text`` with its first span between stars and its second between hashes, wherever each stands."""
    text = _text(row, "text")
    marks = []
    for number, sign in ((1, "*"), (2, "#")):
        start, end = _span(text, row, number)
        marks += [(start, end - start, f"{sign} "), (end, start - end, f" {sign}")]
    # From the end, so that earlier places stay where they are; of two spans one may begin or end within the other.
    for place, _, mark in sorted(marks, key=lambda m: (-m[0], m[1])):
        text = text[:place] + mark + text[place:]
    return {**row, "text": text}


def _span(text: str, row: Row, number: int) -> tuple[int, int]:
    """Return where a span begins and ends: at the word whose number the row gives, perhaps within it (him of him,).

    A few rows give the number of a neighbour; there the nearest word that begins with the span is taken.
    """
    words = list(_WORD.finditer(text))
    index = int(row[f"span{number}_index"])
    if not 0 <= index < len(words):
        raise KeyError(f"span{number}_index {index} (the text has {len(words)} words)")
    span = re.compile(r"\s+".join(map(re.escape, _text(row, f"span{number}_text").split())), re.IGNORECASE)
    fitting = [(abs(i - index), match) for i, word in enumerate(words) if (match := span.match(text, word.start()))]
    return min(fitting, key=lambda f: f[0])[1].span() if fitting else words[index].span()


def strip_markup(row: Row) -> Row:
    """MultiRC: ``paragraph`` without ``<br>`` and ``<b>``."""
    text = re.sub(r"</?b>", "", _text(row, "paragraph").replace("<br>", " "))
    return {**row, "paragraph": " ".join(text.split())}


def pad_punctuation(row: Row) -> Row:
    """SQuAD and MRQA as T5 was trained on them: a space on either side of every sign, in question, text and answers."""
    fields = [field for field in ("question", "context", "answers") if field in row]
    return {**row, **{field: _spaced(row[field], field) for field in fields}}


def _spaced(value: Any, field: str) -> Any:
    if isinstance(value, Mapping):
        return {**value, "text": _spaced(value["text"], field)}
    if isinstance(value, list | tuple):
        return [_spaced(v, field) for v in value]
    if is_missing(value):
        return None
    letters = text_cell(value, field)
    kept = (c if c in "_ " or unicodedata.category(c)[0] in "LMNZC" else f" {c} " for c in letters)
    return " ".join("".join(kept).split())


def join_entities(row: Row) -> Row:
    """ReCoRD: ``entities`` in one line, and ``passage`` whose highlights are sentences."""
    ended = re.sub(r"([.?!\"'])\s*\n@highlight\n", r"\1 ", _text(row, "passage"))
    passage = ended.replace("\n@highlight\n", ". ")
    return {**row, "passage": " ".join(passage.split()), "entities": ", ".join(dict.fromkeys(row["entities"]))}


def round_similarity(row: Row) -> Row:
    """STS-B: ``rounded``, the label in steps of 0.2, as one of the 26 texts 0.0 to 5.0."""
    return {**row, "rounded": f"{round(float(row['label']) * 5) / 5:.1f}"} if row.get("label") is not None else row


def write_triples(row: Row) -> Row:
    """WebNLG: ``triples`` in one line, and ``categories``: whether training rows have this row's category."""
    (triples, *_) = row["modified_triple_sets"]["mtriple_set"]
    facts = " && ".join(" | ".join(_plain(part) for part in triple.split(" | ")) for triple in triples)
    return {**row, "triples": facts, "categories": "seen" if row.get("category") in _SEEN else "unseen"}


def write_facts(row: Row) -> Row:
    """E2E: ``facts``, the meaning representation in one line: ``name: Rye Mill, family friendly: no``."""
    facts = _FACT.findall(_text(row, "meaning_representation"))
    return {**row, "facts": ", ".join(f"{_HUMP.sub(' ', name.strip()).lower()}: {value}" for name, value in facts)}


def _text(row: Row, field: str) -> str:
    return text_cell(row[field], field)


def _plain(name: str) -> str:
    """Return a name of DBpedia as people write it: Rye_Mill, "Rye Mill" and ryeMill."""
    name = name.strip().strip('"').replace("_", " ")
    return name if " " in name else _HUMP.sub(" ", name).lower() if name[:1].islower() else name


PREPARE: dict[str, Callable[[Row], Row]] = {
    function.__name__: function
    for function in (
        mark_spans,
        strip_markup,
        pad_punctuation,
        join_entities,
        round_similarity,
        write_triples,
        write_facts,
    )
}
