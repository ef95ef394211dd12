"""A table that somebody labelled to the task that it is: which column is the text, which the label, and what it asks.

Nothing is guessed that the table leaves open: what two columns could be is asked.
"""

import difflib
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mptune.errors import DataError, UsageError
from mptune.tasks.cells import CellError, column_name, is_missing, label_key, meant
from mptune.tasks.rows import found_reading, unlabelled_rows
from mptune.tasks.tables import ELSEWHERE, other_sheets
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
NAMED_COLUMNS = 3  # that a message speaks of
FEW_ROWS = 20  # below which more are wanted before a column is said to be no label
NUMBER = re.compile(r"-?\d+([.,]\d+)?")
SLIPS = 10  # a spelling that is met so many times less often than one nearly like it is a slip of the hand
ALIKE = 0.85  # from which likeness on two spellings are held against each other


@dataclass(frozen=True)
class Table:
    """Rows to make sense of, and how they are spoken of."""

    rows: Sequence[Mapping[str, Any]]
    place: str
    naming: str  # how a person names a column, with {} for what it is to be
    held: bool = False  # by a program, which has no task's file
    elsewhere: str = ""  # behind a message: where other rows of its file are, and how they are read

    @property
    def columns(self) -> list[str]:
        """The names of all columns, in their order."""
        return list(dict.fromkeys(column for row in self.rows for column in row))

    def name_it(self, what: str) -> str:
        """Return how a column is named, for the end of a message."""
        return f"Name it: {self.naming.format(what)}"

    def may_be_labels(self, but: Collection[str] = ()) -> list[str]:
        """Return the columns, but for some, that have a few short values which many rows share."""
        return [c for c in self.columns if c not in but and _may_be_label([row.get(c) for row in self.rows])]

    def counted(self, columns: Sequence[str]) -> str:
        """Return columns with how many values they have, for a message."""
        return ", ".join(f"{column} ({len(set(_values(column, self)) - {''})} values)" for column in columns)


@dataclass(frozen=True)
class Guess:
    """A task that a table seems to be, and what to say of how it was taken."""

    task: Task
    text: tuple[str, ...]
    label: str
    said: tuple[str, ...]


def guess_task(
    file: Path,
    name: str,
    text: Sequence[str] = (),
    label: str | None = None,
    beside: Path | None = None,
    sheet: str | None = None,
) -> Guess:
    """Return the task of a file of labelled rows, with all its splits taken from that file.

    Args:
        file: csv, tsv, txt, xlsx, json, jsonl or parquet.
        name: of the task.
        text: the columns that are read; the one with the longest texts without any.
        label: the column that holds the labels; the one that can be no other without it.
        beside: the folder to which the file's path is written relative.
        sheet: of an xlsx file; the first where None.

    Raises:
        UsageError: there is no such file or column, or several columns could be the label.
        DataError: rows that cannot be read, or that have fewer than two labels.
        ConfigError: a name that no task may have.
    """
    if sheet is not None and not file.name.lower().endswith(".xlsx"):
        raise UsageError(f"--sheet is of xlsx files; {file.name} has no sheets")
    table = _table(file, name, sheet, "; --sheet NAME reads another")
    if sheet is None and (others := other_sheets(file)):
        table = replace(table, elsewhere=f". Other sheets have rows: {', '.join(others)}; --sheet NAME reads one")
    # What was found by looking is written down, so that it is said once.
    dataset = {"train": _relative(file, beside), "split": "held-out", **found_reading(file, sheet)}
    return guess_rows(table, name, text, label, dataset)


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


def _table(file: Path, name: str, sheet: str | None = None, hint: str = "") -> Table:
    """Return a file's table.

    Args:
        hint: how another sheet is named, behind a message that there is one.
    """
    problems: list[str] = []
    rows = [row for _, row in unlabelled_rows(file, problems, sheet)]
    problems = [f"{each}{hint}" if each.endswith(ELSEWHERE) else each for each in problems]
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
    if why := _no_label(chosen, counts, table, [chosen, *texts]):
        raise DataError(name, [f"{table.place}: column {chosen!r} {why}{table.elsewhere}"])
    relabel, said = _spellings(counts, table)
    kept = sorted(value for value in counts if value not in relabel)
    if all(map(NUMBER.fullmatch, kept)):
        how = "pass task= a Task whose verbalizer says" if table.held else "write under verbalizer:"
        said.append(f"the labels are numbers; {how} what they mean")
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


def _no_label(chosen: str, counts: Counter[str], table: Table, taken: Sequence[str]) -> str | None:
    """Return why the values of a column are no labels, and what to do; None where they are.

    Args:
        counts: the rows of each value.
        taken: the columns that are not spoken of as the label.
    """
    others = table.may_be_labels(taken)
    other = f" Columns that may be the label: {table.counted(others)}. {table.name_it('label')}" if others else ""
    if not counts:
        return f"is empty in every row, and a label is wanted in some. Fill it.{other}"
    if len(counts) == 1:
        (value,) = counts
        return f"has a single value, {value!r}, and a task tells two or more apart. Add rows of another.{other}"
    if len(counts) <= MOST_CLASSES and 2 * len(counts) <= counts.total():
        return None
    has = f"has {len(counts)} values on {counts.total()} rows"
    if counts.total() < FEW_ROWS and not others:
        return f"{has}, and more rows are wanted: several of every label. Add some"
    return f"{has}, which is no label: many rows share one.{other or ' No other column looks like one'}"


def _label_column(columns: Sequence[str], text: Sequence[str], table: Table) -> str:
    may = table.may_be_labels(text)
    named = [column for column in may if _folded(column) in LABELS]
    if len(named) == 1:
        return named[0]
    if len(may) == 1:
        return may[0]
    if may:
        raise UsageError(
            f"{table.place} has several columns that may be the label: {table.counted(named or may)}. "
            f"{table.name_it('label')}"
        )
    single = [f"{c} has a single value, {values.pop()!r}; add rows of another. " for c in columns
              if c not in text and len(table.rows) > 1 and len(values := _distinct(c, table)) == 1]  # fmt: skip
    few = f"It has {len(table.rows)} rows, and more are wanted. " if len(table.rows) < FEW_ROWS and not single else ""
    raise UsageError(
        f"no column of {table.place} looks like a label: a few values that many rows share. "
        f"{''.join(single[:NAMED_COLUMNS])}{few}{table.name_it('label')}, one of {', '.join(columns)}{table.elsewhere}"
    )


def _distinct(column: str, table: Table) -> set[str]:
    """Return a column's label values; none where a cell is neither text nor a number."""
    try:
        return {key for row in table.rows if (key := label_key(row.get(column)).strip())}
    except CellError:
        return set()


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
            f"{table.elsewhere}"
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
        near = meant(column, tuple(columns))
        raise UsageError(
            f"{table.place} has no column {column!r}; it has {', '.join(columns)}"
            + (f". Did you mean {near!r}?" if near else table.elsewhere)
        )
    return column


def _values(column: str, table: Table) -> list[str]:
    """Return each row's label value; none where it is empty."""
    try:
        return [value if (value := label_key(row.get(column), column)).strip() else "" for row in table.rows]
    except CellError as error:
        raise DataError(table.place, [str(error)]) from None


def _spellings(counts: Counter[str], table: Table) -> tuple[dict[str, str], list[str]]:
    """Return the label values that are another one, misspelt, and what to say of those and of what may be."""
    own = (
        "pass task= a Task with it in its verbalizer"
        if table.held
        else "move it in the task's file from relabel: to verbalizer:"
    )
    of_fold: dict[str, list[str]] = {}
    for value, _ in counts.most_common():
        of_fold.setdefault(_folded(value), []).append(value)
    relabel = {other: first for first, *others in of_fold.values() for other in others}
    said = [f"{other!r} × {counts[other]} is read as {first!r}" for other, first in relabel.items()]
    firsts = {fold: values[0] for fold, values in of_fold.items()}
    for fold, value in firsts.items():
        near = difflib.get_close_matches(fold, [other for other in firsts if other != fold], 1, ALIKE)
        if not near or _number_apart(fold, near[0]) or counts[value] >= counts[other := firsts[near[0]]]:
            continue
        if counts[value] * SLIPS <= counts[other]:
            relabel[value] = other
            said.append(
                f"{value!r} × {counts[value]} is read as {other!r}, which it nearly is; if it is a label of its own, "
                f"{own}"
            )
        else:
            file = f"in the task's file, take it out of verbalizer: and write relabel: {{{value}: {other}}}"
            said.append(
                f"{value!r} × {counts[value]}: did you mean {other!r}? If so, "
                f"{'correct it in the rows' if table.held else file}"
            )
    return {value: relabel.get(other, other) for value, other in relabel.items()}, said


def _number_apart(one: str, other: str) -> bool:
    """Return whether two spellings differ in their numbers, as level 1 and level 2 do."""
    return re.findall(r"\d+", one) != re.findall(r"\d+", other)


def label_words(values: Sequence[str]) -> dict[str, str]:
    """Return label value to label word: with spaces for underscores, as long as that tells all of them apart."""
    words = {value: re.sub(r"[_\s]+", " ", value).strip() for value in values}
    return words if len(set(words.values())) == len(words) else {value: value for value in values}


def question(label: str, texts: Sequence[str], words: Mapping[str, str]) -> str:
    """Return the template that asks for a label: it names the words where they are few, and ends with the texts.

    Of a name of several words, as ``Handled By Team``, no sentence is made: it would often be no English.
    """
    asked = plain(re.sub(r"[_\s]+", " ", label).strip().rstrip("?!:.") or label)
    listed = [plain(word) for word in words.values()]
    named = f": {', '.join(listed[:-1])} or {listed[-1]}" if len(listed) <= NAMED_CLASSES else ""
    return f"{asked if ' ' in asked else f'Which {asked.lower()} is it'}{named}? {_texts(texts)}"


def _texts(columns: Sequence[str]) -> str:
    """Return the template of some columns: alone, or each behind its name."""
    return f"{{{columns[0]}}}" if len(columns) == 1 else " ".join(f"{plain(c)}: {{{c}}}" for c in columns)


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[_\s]+", " ", text.casefold()).split())


def _relative(file: Path, beside: Path | None) -> str:
    there, folder = file.absolute(), (beside or Path()).absolute()
    return str(there.relative_to(folder)) if there.is_relative_to(folder) else str(there)
