"""The rows of one source to examples: those that the task keeps, each checked. What is wrong is said, not raised."""

from typing import Any

from mptune.tasks.cells import CellError, label_key
from mptune.tasks.rows import NumberedRows
from mptune.tasks.task import Example, Task
from mptune.terminal import warn_once


def kept(task: Task, rows: NumberedRows, place: str, problems: list[str]) -> NumberedRows:
    """Return the rows whose columns have the values that ``where`` wants."""
    assert task.dataset is not None
    where, found = task.dataset.where, list[tuple[int, dict[str, Any]]]()
    for number, row in rows:
        try:
            if all(label_key(row.get(column), column) in values for column, values in where.items()):
                found.append((number, row))
        except CellError as error:
            problems.append(f"{place} row {number}: {error}")
    if not found and not problems:
        wanted = ", ".join(f"{column} is {' or '.join(values)}" for column, values in where.items())
        chosen = f" where {wanted}" if wanted and rows else ""
        problems.append(f"{place} has no rows{chosen}")
    return found


def rendered(task: Task, rows: NumberedRows, place: str, problems: list[str]) -> list[Example]:
    """Return the examples of labelled rows, each checked first."""
    assert task.dataset is not None
    examples = []
    passed = 0
    for number, row in rows:
        ready = None
        try:
            ready = task.prepared(row)
            if task.dataset.without_label == "skip" and task.verbalizer and task.is_unlabelled(ready):
                passed += 1
                continue
            # Public data have a few blank texts, which their users cannot mend; in a file of one's own it is a slip.
            if lacking := task.lacking(ready, blank=not task.dataset.hub):
                problems.append(f"{place} row {number}: {lacking}")
                continue
            if task.verbalizer and task.label_value(ready) not in task.verbalizer:
                problems.append(
                    f"{place} row {number}: the label {ready[task.label]!r} is not in the verbalizer "
                    f"({', '.join(task.verbalizer)})"
                )
                continue
            examples.append(task.render_prepared(ready, number))
        except CellError as error:
            problems.append(f"{place} row {number}: {error}")
        except LookupError as error:
            # Other rows of this input may have right answers; in public test sets some have none.
            if not task.gather or ready is None:
                problems.append(f"{place} row {number}: {error.args[0]} is missing or empty")
    if passed:
        warn_once(f"{task.name}: {place} has rows without a label, which are passed over: {passed}")
    return examples
