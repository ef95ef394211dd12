"""The findings as plain text: results.md, and the table on the terminal while a comparison goes on."""

from collections.abc import Sequence

from mptune.comparison.methods import METHODS
from mptune.comparison.report import findings, means
from mptune.comparison.report.advice import advice, stood_still
from mptune.comparison.report.means import CONSTANT, ZERO_SHOT, ScoreTable
from mptune.comparison.report.reading import Results, names
from mptune.comparison.results import BALANCED, FROM
from mptune.config import EMBEDDED_IS


def results_page(results: Results, notes: Sequence[str]) -> str:
    """Return results.md: per number of shots a table of methods by tasks, then paired differences.

    Every cell is the mean over seeds of the task's first metric on its test split, with its 95 % interval. A second
    table holds macro-F1 where that is not the first metric: a constant answer does not win it on unbalanced rows.
    Methods stand in the recipe's order, also those without results; source tasks' own prompts stand in the report.
    """
    page = [f"# Results: {results.name}", "", *(f"- {_titled(note)}" for note in notes), ""]
    for shots in results.shots:
        if shots != 0:
            page += ["## All examples" if shots is None else f"## {shots} shots per class", ""]
        table, balanced = means.score_table(results, shots), means.balanced_table(results, shots)
        page += _comparison(results, table, shots)
        if balanced and balanced.tasks == table.tasks:
            page += ["The same answers by macro-F1:", "", *_comparison(results, balanced, shots, BALANCED)]
        page += _advice(results, shots)
    page.append(
        "Intervals: 95 %, Student's t, over seeds: of a score, and of a difference of means over tasks, each seed with "
        "its own examples; over tasks, each task's mean one value: what to expect of other tasks like these. "
        "`constant` always says the commonest training label; `transfer` is the multitask prompt, unadapted."
    )
    return "\n".join(page) + "\n"


def standing_table(results: Results) -> list[list[str]]:
    """Return the results so far: the mean of each method on each task, and how many runs made it.

    Different numbers of shots have rows of their own.
    """
    rows = []
    for method, shots in dict.fromkeys((one.method, one.shots) for one in results.lines):
        if method.startswith(FROM):
            continue
        runs = [results.of(method, task, shots) for task in results.tasks]
        found = [means.mean_score(lines) for lines in runs]
        at = f", {'all' if shots is None else shots} shots" if len(results.shots) > 1 and shots != 0 else ""
        rows.append([method + at, str(sum(map(len, runs))), *(f"{mean.mean:.1f}" if mean else "" for mean in found)])
    return [["method", "runs", *results.tasks], *rows] if rows else []


def _comparison(results: Results, table: ScoreTable, shots: int | None, metric: str | None = None) -> list[str]:
    """Return the table of one number of shots and one metric, and the differences below it."""
    asked = [m for m in names(results.recipe.get("methods")) if m != "from-sources"] or means.compared(results)
    means_of = ["**mean**", *(["of the unseen"] if table.tells_unseen else [])]
    empty = [""] * len(means_of)
    rows = [
        ["method", *table.tasks, *means_of],
        ["*metric*", *table.metrics, *empty],
        ["*test rows*", *map(str, table.examples), *empty],
    ]
    if any(table.seen):
        rows.append(["*seen by the backbone*", *("yes" if seen else "no" for seen in table.seen), *empty])
    for method in asked:
        scores, mean = [table.score(method, task) for task in table.tasks], table.score(method)
        rows.append([method, *(str(score or "–") for score in scores), f"**{mean}**" if mean else "–"])
        if table.tells_unseen:
            rows[-1].append(str(table.unseen(method) or "–"))
    head, *body = ["| " + " | ".join(cells) + " |" for cells in rows]
    page = [head, "|---" * len(rows[0]) + "|", *body, ""]
    references = sorted((m for m, row in METHODS.items() if row.reference), key=lambda m: METHODS[m].reference)
    reference = next((m for m in references if m in asked and m in results.methods), "")
    others = [m for m in asked if m not in (reference, CONSTANT, ZERO_SHOT)]
    return [*page, *(line for m in others if (line := _difference(results, m, reference, shots, metric))), ""]


def _advice(results: Results, shots: int | None) -> list[str]:
    """Return which method to take for each task, and which stood still."""
    page = []
    if advised := advice(results, shots):
        page += ["Which method for which task: the best mean, and what the results do not tell from it.", ""]
        page += [*(f"- {each}" for each in advised), ""]
    if still := stood_still(results, shots):
        named = "; ".join(f"{method} on {', '.join(tasks)}" for method, tasks in still.items())
        page += [f"**Kept the start, training did not help:** {named}. Try another rate or more steps.", ""]
    return page


def _difference(results: Results, method: str, reference: str, shots: int | None, metric: str | None) -> str:
    """Return how a method differs from the reference on the mean over the tasks of both, seed by seed: a list item."""
    gap = findings.gap(results, method, reference, shots, metric=metric)
    if gap is None:
        return ""
    seeds, tasks = gap.over_seeds, len(results.tasks)
    spread = f" [{seeds.low:+.1f}, {seeds.high:+.1f}], {seeds.count} seeds" if seeds.count > 1 else ", one seed"
    shared = f", {len(gap.tasks)} of {tasks} tasks" if len(gap.tasks) < tasks else ""
    wide = f"; over tasks [{gap.over_tasks.low:+.1f}, {gap.over_tasks.high:+.1f}]" if gap.tells_of_tasks else ""
    new = findings.gap(results, method, reference, shots, means.unseen(results), metric)
    fresh = f"; of the {len(new.tasks)} unseen {new.mean:+.1f}" if new else ""
    return f"- {method} minus {reference}: {gap.mean:+.1f}{spread}{shared}{wide}{fresh}"


def _titled(note: str) -> str:
    return note.replace("Backbone: embedded", f"Backbone: embedded ({EMBEDDED_IS})")
