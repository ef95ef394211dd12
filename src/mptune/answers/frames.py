"""Answers beside the rows that a program holds: a DataFrame or a data set in, one with two columns more out."""

from collections.abc import Sequence
from typing import Any

from mptune.answers.sheets import answer_columns
from mptune.tasks.memory import is_dataset, is_frame


def is_table_in_memory(rows: Any) -> bool:
    """Return whether answers go beside such rows, as columns."""
    return is_frame(rows) or is_dataset(rows)


def with_answers(
    rows: Any,
    answers: Sequence[str],
    confidences: Sequence[float | None],
    abstained: Sequence[bool | None] | None = None,
) -> Any:
    """Return a DataFrame or a data set with the columns ``answer`` and ``confidence`` behind its own.

    The names differ where it has such columns, as in the tables of `mptune predict`. The rows themselves stay as they
    are, with pandas' index.

    Args:
        confidences: the answers' probabilities; all None for free text.
        abstained: whether each answer is; no such column where None.
    """
    columns = list(map(str, rows.columns if is_frame(rows) else rows.column_names))
    names = answer_columns(columns, None, abstains=abstained is not None)
    values = [list(answers), list(confidences), *([] if abstained is None else [list(abstained)])]
    added = dict(zip(names, values, strict=True))
    if is_frame(rows):
        return rows.assign(**added)
    for name, column in added.items():
        rows = rows.add_column(name, column)
    return rows
