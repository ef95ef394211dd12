"""The sections for somebody who must choose: which method for which task, and which classes it mistakes."""

from collections.abc import Sequence

from mptune.answers.classes import by_class
from mptune.comparison.report.advice import advice, stood_still
from mptune.comparison.report.layout import Block, Column, Entry, Grid, Named, Section
from mptune.comparison.report.phrases import listed, number, shots_text
from mptune.comparison.report.reading import MPT, Results

MOST = 16  # classes whose confusions are shown


def recommended(results: Results) -> Section | None:
    """Return which method to take for each task, and the methods whose training changed nothing."""
    blocks: list[Block] = []
    columns: tuple[Column, ...] = (("take", ("the best mean",)), ("not told apart from it", ("the better first",)))
    for shots in results.shots:
        rows: list[Named] = []
        for each in advice(results, shots):
            constant = "" if each.constant is None else f" (constant {number(each.constant)}: nothing is surely learnt)"
            texts = (f"{each.best}{constant}", "; ".join(map(str, each.level)) or "–")
            rows.append((each.task, tuple(Entry(text, kind="words long") for text in texts)))
        if rows:
            blocks.append(Grid(f"Method by task, {shots_text(shots)}", columns, (("", tuple(rows)),)))
        still = stood_still(results, shots).items()
        if still:
            title = f"Kept the start, {shots_text(shots)}: training did not help"
            named: list[Named] = [(method, (Entry(listed(tasks), kind="words long"),)) for method, tasks in still]
            blocks.append(Grid(title, (("on", ("in every run",)),), (("", tuple(named)),)))
    sentence = "Score ± half of its interval, and seconds of a run. What is not told apart may be taken as well."
    return Section("recommended", "Which method for which task", (sentence,), tuple(blocks)) if blocks else None


def per_class(results: Results) -> Section | None:
    """Return recall, precision and confusions of each task's labels; nothing where lines of results lack them."""
    blocks: list[Block] = []
    for shots in results.shots:
        ours = all(results.of(MPT, task, shots) for task in results.tasks)
        best = {} if ours else {each.task: each.best.method for each in advice(results, shots)}
        for task in results.tasks:
            method = MPT if results.of(MPT, task, shots) else best.get(task, "")
            counts, words = confusion(results, method, task, shots), _words(results, task)
            if counts and len(words) == len(counts):
                blocks.append(_grid(f"{task}: {method}, {shots_text(shots)}", words, counts))
    if not blocks:
        return None
    sentences = (
        "Test rows of each class by the label that they were given, all seeds together. Recall: of the rows of a "
        "class, how many were given its label; precision: of the rows that were given a label, how many have it.",
    )
    return Section("classes", "Scores per class", sentences, tuple(blocks))


def confusion(results: Results, method: str, task: str, shots: int | None) -> list[list[int]]:
    """Return test rows by class and answer, summed over seeds; the last column is text that is no label. [C, C + 1]"""
    counted = [line.confusion for line in results.of(method, task, shots)]
    if not counted or not all(counted) or len({(len(c), len(c[0])) for c in counted if c}) != 1:
        return []
    return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*(c for c in counted if c), strict=True)]


def _grid(caption: str, words: Sequence[str], counts: Sequence[Sequence[int]]) -> Grid:
    shown = [*words, "no label"] if len(words) <= MOST else []
    columns: list[Column] = [("recall", ("%",)), ("precision", ("%",)), ("rows", ()), *((w, ("given",)) for w in shown)]
    rows = []
    for each in by_class(words, counts):
        shares = ["–" if share is None else number(share) for share in (each.recall, each.precision)]
        cells = (*shares, f"{each.rows:,}", *map(str, each.given[: len(shown)]))
        rows.append((each.word, tuple(Entry(text) for text in cells)))
    return Grid(caption, tuple(columns), (("", tuple(rows)),))


def _words(results: Results, task: str) -> list[str]:
    tasks = results.recipe.get("tasks")
    fields = tasks.get(task) if isinstance(tasks, dict) else None
    words = fields.get("verbalizer") if isinstance(fields, dict) else None
    return [str(word) for word in words.values()] if isinstance(words, dict) else []
