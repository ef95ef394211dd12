"""Results as Markdown: a pure function of the lines of results.jsonl."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mptune.embedded import TITLE
from mptune.results import FROM
from mptune.statistics import BySeed, InTurn, differences_by_seed, interval, means_by_seed

Lines = Sequence[Mapping[str, Any]]

BALANCED = "f1_macro"
REFERENCES = ("prompt-tuning", "mpt")  # what others are compared with, pair by pair: the first of these that was run


def results_table(name: str, notes: Sequence[str], lines: Lines, methods: Sequence[str]) -> str:
    """Return the page of a recipe's results: per number of shots a table of methods by tasks, then paired differences.

    Every cell is the mean over seeds of the task's first metric on its test split, with its 95 % interval. A second
    table holds macro-F1 where that is not the first metric: a constant answer does not win it on unbalanced rows.
    """
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    found = {line["shots"] for line in lines if line["shots"] != 0}
    shots = sorted(found, key=lambda k: math.inf if k is None else k) or [0]
    page = [f"# Results: {name}", "", *(f"- {_titled(note)}" for note in notes), ""]
    firsts, balanced = [_in(line) for line in lines], [_in(line, BALANCED) for line in lines]
    second = all(balanced) and firsts != balanced
    for k in shots:
        if k != 0:
            page += ["## All examples" if k is None else f"## {k} shots per class", ""]
        page += _comparison(firsts, methods, tasks, k)
        if second:
            page += ["The same answers by macro-F1:", "", *_comparison(balanced, methods, tasks, k)]
    page.append(
        "Intervals: 95 %, Student's t, over seeds: of a score, and of a difference of means over tasks, each seed with "
        "its own examples. "
        "`constant` always says the commonest training label; `transfer` is the multitask prompt, unadapted."
    )
    return "\n".join(page) + "\n"


def standing_table(lines: Lines) -> list[list[str]]:
    """Return the results so far: the mean of each method on each task, and how many runs made it.

    Different numbers of shots have rows of their own.
    """
    tasks = list(dict.fromkeys(line["task"] for line in lines))
    kinds = dict.fromkeys((line["method"], line["shots"]) for line in lines if not line["method"].startswith(FROM))
    several = len({shots for _, shots in kinds if shots != 0}) > 1
    rows = []
    for method, shots in kinds:
        own = [line for line in lines if (line["method"], line["shots"]) == (method, shots)]
        values = [[line["scores"][0]["value"] for line in own if line["task"] == task] for task in tasks]
        few = f", {'all' if shots is None else shots} shots" if several and shots != 0 else ""
        rows.append([method + few, str(len(own)), *(f"{sum(v) / len(v):.1f}" if v else "" for v in values)])
    return [["method", "runs", *tasks], *rows] if rows else []


def _in(line: Mapping[str, Any], metric: str | None = None) -> dict[str, Any]:
    """Return a line with one score, that of a metric or the first; nothing where it has no such score."""
    scores = [s for s in line["scores"] if metric in (None, s["metric"])]
    return {**line, "score": scores[0]} if scores else {}


def _comparison(lines: Lines, methods: Sequence[str], tasks: Sequence[str], shots: int | None) -> list[str]:
    """Return the table of one number of shots, and the differences below it."""
    scores = [next(line["score"] for line in lines if line["task"] == task) for task in tasks]
    rows = [
        ["*metric*", *(str(score["metric"]) for score in scores), ""],
        ["*test rows*", *(str(score["examples"]) for score in scores), ""],
        *([m, *(_cell(_values(lines, m, t, shots)) for t in tasks), _mean(lines, m, tasks, shots)] for m in methods),
    ]
    page = [_row(["method", *tasks, "**mean**"]), "|---" * (2 + len(tasks)) + "|", *map(_row, rows)]
    reference = next((m for m in REFERENCES if m in methods and any(line["method"] == m for line in lines)), "")
    return [*page, "", *(line for m in methods if (line := _difference(lines, m, reference, tasks, shots))), ""]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _values(lines: Lines, method: str, task: str, shots: int | None) -> BySeed:
    """Return seed to score; a method without target examples has the same values for every number of shots."""
    own = [line for line in lines if (line["method"], line["task"]) == (method, task) and line["shots"] in (0, shots)]
    found = {line["seed"]: line["score"]["value"] for line in own}
    return InTurn(found) if all(line["shots"] == 0 for line in own) else found


def _cell(values: BySeed) -> str:
    return str(interval(list(values.values()))) if values else "–"


def _mean(lines: Lines, method: str, tasks: Sequence[str], shots: int | None) -> str:
    """Return the mean over tasks, its interval over seeds."""
    means = means_by_seed([_values(lines, method, task, shots) for task in tasks])
    return f"**{_cell(means)}**" if means else "–"


def _difference(lines: Lines, method: str, reference: str, tasks: Sequence[str], shots: int | None) -> str:
    """Return how a method differs from the reference on the mean over the tasks of both, seed by seed: a list item."""
    if method in (reference, "constant", "zero-shot"):
        return ""
    each = [[_values(lines, m, task, shots) for m in (method, reference)] for task in tasks]
    per_task = [differences_by_seed(*both) for both in each if all(both)]
    means = means_by_seed(per_task)
    if not means:
        return ""
    found = interval(list(means.values()))
    spread = f" [{found.low:+.1f}, {found.high:+.1f}], {found.count} seeds" if found.count > 1 else ", one seed"
    some = f", {len(per_task)} of {len(tasks)} tasks" if len(per_task) < len(tasks) else ""
    return f"- {method} minus {reference}: {found.mean:+.1f}{spread}{some}"


def _titled(note: str) -> str:
    return note.replace("Backbone: embedded", f"Backbone: embedded ({TITLE})")
