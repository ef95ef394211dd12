"""A table that somebody labelled to the task that it is: which column is the text, which the label, and what it asks.

Nothing is guessed that the table leaves open: what two columns could be is asked.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mptune.errors import DataError, UsageError
from mptune.tasks.cells import CellError, column_name, is_missing, label_key
from mptune.tasks.rows import unlabelled_rows
from mptune.tasks.task import Task
from mptune.tasks.templates import is_field, plain

# What columns of labels are called, in the languages of most tables that are met; folded as `_folded` does.
LABELS = frozenset((
    "label", "labels", "class", "category", "topic", "intent", "sentiment", "tag", "type", "queue", "kategorie",
    "klasse", "thema", "catégorie", "categoría", "categoria", "clase", "classe",
))  # fmt: skip
MOST_CLASSES = 200
LONGEST_LABEL = 60  # characters, in the mean of a column
NAMED_CLASSES = 8  # that a question names
SLIPS = 10  # a spelling that is met so many times less often than one nearly like it is a slip of the hand
ALIKE = 0.85  # from which likeness on two spellings are held against each other


@dataclass(frozen=True)
class Table:
    """Rows to make sense of, and how they are spoken of."""

    rows: Sequence[Mapping[str, Any]]
    place: str
    naming: str  # how a person names a column, with {} for what it is to be

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in their order."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def name_it(self, what: str) -> str:
        """Return how a column is named, for a message."""
        return f"Name it: {self.naming.format(what)}"


@dataclass(frozen=True)
class Guess:
    """A task that a table seems to be, and what to say of how it was taken."""

    task: Task
    text: tuple[str, ...]
    label: str
    said: tuple[str, ...]


def guess_task(
    file: Path, name: str, text: Sequence[str] = (), label: str | None = None, beside: Path | None = None
) -> Guess:
    """Return the task of a file of labelled rows, with all its splits taken from that file.

    Args:
        file: csv, tsv, xlsx, json, jsonl or parquet.
        name: of the task.
        text: the columns that are read; the one with the longest texts without any.
        label: the column that holds the labels; the one that can be no other without it.
        beside: the folder to which the file's path is written relative.

    Raises:
        UsageError: there is no such file or column, or several columns could be the label.
        DataError: rows that cannot be read, or that have fewer than two labels.
        ConfigError: a name that no task may have.
    """
    table = _table(file, name)
    return guess_rows(table, name, text, label, {"train": _relative(file, beside), "split": "held-out"})


def text_task(file: Path, name: str, text: Sequence[str] = (), words: Sequence[str] = ()) -> Task:
    """Return a task that nobody labels: the texts of a file's rows, and what is answered to them.

    Args:
        text: the columns that are read; the one with the longest texts without any.
        words: label words, one of which is the answer; free text without any.

    Raises:
        UsageError, DataError: as `guess_task`.
        ConfigError: one label word, or two of the same.
    """
    table = _table(file, name)
    texts = tuple(_known(column_name(t), table) for t in text) or (_text_column(table.columns, None, table),)
    # A model that was shown examples, and never a conversation, goes on with the next one behind its answer.
    answers: dict[str, Any] = {"target": "{answer}", "metrics": ("exact_match", "rouge_l"), "stop": "\n\n"}
    if words:
        answers = {"verbalizer": {word: word for word in words}, "metrics": ("accuracy", "f1_macro")}
        if len(answers["verbalizer"]) < len(words):
            raise UsageError(f"label words differ from each other; got {', '.join(words)}")
    return Task.read({"name": name, "template": _texts(texts), **answers}, f"the task of {file.name}")


def _table(file: Path, name: str) -> Table:
    problems: list[str] = []
    rows = [row for _, row in unlabelled_rows(file, problems)]
    if problems:
        raise DataError(name, problems)
    return Table(rows, file.name, "--{} COLUMN")


def guess_rows(table: Table, name: str, text: Sequence[str], label: str | None, dataset: Mapping[str, Any]) -> Guess:
    """As `guess_task`, of rows that have been read.

    Args:
        dataset: where the rows are, as a task's file says it.
    """
    if not table.rows:
        raise DataError(name, [f"{table.place} has no rows"])
    columns = table.columns
    chosen = _known(column_name(label), table) if label else _label_column(columns, text, table)
    texts = tuple(_known(column_name(t), table) for t in text) or (_text_column(columns, chosen, table),)
    if chosen in texts:
        raise UsageError(f"the column {chosen!r} of {table.place} cannot be both text and label; name two columns")
    if strange := [column for column in texts if not is_field(column)]:
        raise UsageError(
            f"a template cannot name the column {strange[0]!r} of {table.place}; rename it, without braces"
        )
    values = _values(chosen, table)
    counts = Counter(value for value in values if value)
    if chosen in counts and label is None:
        raise UsageError(
            f"the first row of {table.place} looks like a row and not like the names of columns: {chosen!r} stands "
            f"below {chosen!r} {counts[chosen]} times. Write a first row with names, or, if they are right, say "
            f"{table.naming.format('label')}"
        )
    if len(counts) < 2:
        raise DataError(
            name, [f"{table.place}: column {chosen!r} has {len(counts)} label; a task tells two or more apart"]
        )
    if len(counts) > MOST_CLASSES or 2 * len(counts) > counts.total():
        raise DataError(
            name,
            [f"{table.place}: column {chosen!r} has {len(counts)} values on {counts.total()} rows, which is no label: "
             f"many rows share one. {table.name_it('label')}"],
        )  # fmt: skip
    relabel, said = _spellings(counts)
    kept = sorted(value for value in counts if value not in relabel)
    words = label_words(kept)
    fields = {
        "name": name,
        "dataset": {**dataset, "without_label": "refuse" if all(values) else "skip"},
        "template": question(chosen, texts, words),
        "verbalizer": words,
        "relabel": relabel,
        "label": chosen,
        "metrics": ("accuracy", "f1_macro"),
    }
    task = Task.read(fields, f"the task of {table.place}")
    return Guess(task, texts, chosen, tuple(said))


def task_name(file: Path) -> str:
    """Return a task's name for a file: its own, without endings and with plain letters."""
    stem = file.name.removesuffix(".gz").rpartition(".")[0] or file.name
    stem = "".join(c for c in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(c))
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", stem).strip("-._") or "mine"


def _label_column(columns: Sequence[str], text: Sequence[str], table: Table) -> str:
    others = [column for column in columns if column not in text]
    may = [column for column in others if _may_be_label([row.get(column) for row in table.rows])]
    named = [column for column in may if _folded(column) in LABELS]
    if len(named) == 1:
        return named[0]
    if len(may) == 1:
        return may[0]
    if not may:
        raise UsageError(
            f"no column of {table.place} looks like a label: a few values that many rows share. "
            f"{table.name_it('label')}, one of {', '.join(columns)}"
        )
    shown = ", ".join(f"{c} ({len(set(_values(c, table)) - {''})} values)" for c in named or may)
    raise UsageError(f"{table.place} has several columns that may be the label: {shown}. {table.name_it('label')}")


def _may_be_label(cells: Sequence[Any]) -> bool:
    """Return whether a column has a few short values, most of which many rows share."""
    try:
        values = [key for c in cells if (key := label_key(c).strip())]
    except CellError:
        return False
    classes = len(set(values))
    return 2 <= classes <= min(MOST_CLASSES, len(values) / 2) and sum(map(len, values)) / len(values) <= LONGEST_LABEL


def _text_column(columns: Sequence[str], label: str | None, table: Table) -> str:
    """Return the column with the longest texts."""
    lengths = {column: _length([row.get(column) for row in table.rows]) for column in columns if column != label}
    best = max(lengths, key=lambda column: lengths[column], default="")
    if not best or not lengths[best]:
        raise UsageError(
            f"no column of {table.place} looks like a text; it has {', '.join(columns)}. {table.name_it('text')}"
        )
    return best


def _length(cells: Iterable[Any]) -> float:
    """Return the mean characters of a column's texts; numbers are none."""
    given = [c for c in cells if not is_missing(c)]
    texts = [c for c in given if isinstance(c, str) and not re.fullmatch(r"[\d.,:\s/-]*", c)]
    return sum(map(len, texts)) / len(given) if given else 0


def _known(column: str, table: Table) -> str:
    columns = table.columns
    if column not in columns:
        near = difflib.get_close_matches(column, columns, 1, 0.6)
        raise UsageError(
            f"{table.place} has no column {column!r}; it has {', '.join(columns)}."
            + (f" Did you mean {near[0]!r}?" if near else "")
        )
    return column


def _values(column: str, table: Table) -> list[str]:
    """Return each row's label value; none where it is empty."""
    try:
        return [value if (value := label_key(row.get(column), column)).strip() else "" for row in table.rows]
    except CellError as error:
        raise DataError(table.place, [str(error)]) from None


def _spellings(counts: Counter[str]) -> tuple[dict[str, str], list[str]]:
    """Return the label values that are another one, misspelt, and what to say of those and of what may be."""
    of_fold: dict[str, list[str]] = {}
    for value, _ in counts.most_common():
        of_fold.setdefault(_folded(value), []).append(value)
    relabel = {other: first for first, *others in of_fold.values() for other in others}
    said = [f"{other!r} × {counts[other]} is read as {first!r}" for other, first in relabel.items()]
    firsts = {fold: values[0] for fold, values in of_fold.items()}
    for fold, value in firsts.items():
        near = difflib.get_close_matches(fold, [other for other in firsts if other != fold], 1, ALIKE)
        if not near or _number_apart(fold, near[0]) or counts[value] >= counts[meant := firsts[near[0]]]:
            continue
        if counts[value] * SLIPS <= counts[meant]:
            relabel[value] = meant
            said.append(
                f"{value!r} × {counts[value]} is read as {meant!r}, which it nearly is; if it is a label of its own, "
                "move it in the task's file from relabel: to verbalizer:"
            )
        else:
            said.append(
                f"{value!r} × {counts[value]}: did you mean {meant!r}? If so, in the task's file, take it out of "
                f"verbalizer: and write relabel: {{{value}: {meant}}}"
            )
    return {value: relabel.get(meant, meant) for value, meant in relabel.items()}, said


def _number_apart(one: str, other: str) -> bool:
    """Return whether two spellings differ in their numbers, as level 1 and level 2 do."""
    return re.findall(r"\d+", one) != re.findall(r"\d+", other)


def label_words(values: Sequence[str]) -> dict[str, str]:
    """Return label value to label word: with spaces for underscores, as long as that tells all of them apart."""
    words = {value: re.sub(r"[_\s]+", " ", value).strip() for value in values}
    return words if len(set(words.values())) == len(words) else {value: value for value in values}


def question(label: str, texts: Sequence[str], words: Mapping[str, str]) -> str:
    """Return the template that asks for a label: it names the words where they are few, and ends with the texts."""
    asked = plain(re.sub(r"[_\s]+", " ", label).strip().lower())
    listed = [plain(word) for word in words.values()]
    named = f": {', '.join(listed[:-1])} or {listed[-1]}" if len(listed) <= NAMED_CLASSES else ""
    return f"Which {asked} is it{named}? {_texts(texts)}"


def _texts(columns: Sequence[str]) -> str:
    """Return the template of some columns: alone, or each behind its name."""
    return f"{{{columns[0]}}}" if len(columns) == 1 else " ".join(f"{plain(c)}: {{{c}}}" for c in columns)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[_\s]+", " ", text.casefold()).split())


def _relative(file: Path, beside: Path | None) -> str:
    there, folder = file.absolute(), (beside or Path()).absolute()
    return str(there.relative_to(folder)) if there.is_relative_to(folder) else str(there)
