"""The sections of the page, in their order. Every number comes from `findings`, and so from a results file."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mptune.comparison.methods import METHODS
from mptune.comparison.report import charts, findings, means
from mptune.comparison.report.findings import Alarm, Gap
from mptune.comparison.report.layout import (
    Block,
    Column,
    Entry,
    Folded,
    Grid,
    Heading,
    Named,
    Picture,
    Pictures,
    Section,
)
from mptune.comparison.report.means import CONSTANT, ScoreCell, ScoreTable
from mptune.comparison.report.phrases import (
    OWN,
    capital,
    cosine,
    count_text,
    counted,
    ends_of,
    family,
    grouped,
    listed,
    number,
    shots_text,
    signed,
    spread,
)
from mptune.comparison.report.reading import MPT, Matrix, Results, SimilarTask


def scores(results: Results) -> Section:
    """Return methods by tasks, and MPT's difference from each method, for every number of shots."""
    sentences = [
        "Means over seeds ± half of the 95 % interval (Student's t); a method that uses no target example has one "
        "run, or one for each source training. "
        "Underlined is the best of a column, the teacher left out, which knows all training rows. † marks a score "
        "that is not surely above the constant predictor, which always says the commonest training label: its interval "
        "is not wholly above, nor is it further above than the drawing of the test rows explains. "
        "Such a score shows no learning."
    ]
    if CONSTANT not in results.methods:
        sentences.append("The results hold no constant predictor, so nothing is marked †.")
    blocks: list[Block] = []
    for shots in results.shots:
        if len(results.shots) > 1:
            blocks.append(Heading(capital(shots_text(shots))))
        blocks.append(_score_grid(means.score_table(results, shots), f"Scores, {shots_text(shots)}", parameters=True))
        balanced = means.balanced_table(results, shots)
        if balanced:
            blocks.append(_score_grid(balanced, f"The same answers by macro-F1, {shots_text(shots)}"))
        blocks += _differences(results, shots)
    return Section("scores", "Scores", tuple(sentences), tuple(blocks))


def _score_grid(table: ScoreTable, caption: str, *, parameters: bool = False) -> Grid:
    parameters = parameters and any(row.stored for row in table.rows)
    columns: list[Column] = [("mean", ("over tasks",)), *([("mean", ("of the unseen",))] if table.tells_unseen else [])]
    for task, metric, count, seen in zip(table.tasks, table.metrics, table.examples, table.seen, strict=True):
        below = (metric, f"{count:,} rows" if count else "", "seen by the backbone" if seen else "")
        columns.append((task, tuple(filter(None, below))))
    columns += [("trained", ("numbers",)), ("stored", ("per task",))] if parameters else []
    rows = []
    for row in table.rows:
        means = (row.mean, row.unseen) if table.tells_unseen else (row.mean,)
        cells = [_score_entry(cell) for cell in (*means, *row.cells)]
        cells += [Entry(count_text(row.trained)), Entry(count_text(row.stored))] if parameters else []
        rows.append((row.method, tuple(cells)))
    return Grid(caption, tuple(columns), grouped(rows))


def _score_entry(cell: ScoreCell) -> Entry:
    if cell.score is None:
        return Entry("–")
    mark, kind = "†" if cell.doubtful else "", "best" if cell.best else ""
    return Entry(number(cell.score.mean), spread(cell.score), mark, kind)


def _differences(results: Results, shots: int | None) -> list[Block]:
    gaps = findings.gaps(results, shots)
    if not gaps:
        return []
    order = [name for _, group in grouped((g.other, ()) for g in gaps) for name, _ in group]
    gaps.sort(key=lambda g: order.index(g.other))
    with_rows = any(g.over_rows for g in gaps)
    title = f"MPT against each method, {shots_text(shots)}"
    label = f"{title}: points with 95 % intervals. The table below has the numbers."
    axis = "MPT minus the method, points on the mean over tasks"
    # Over test rows first; without any interval, the difference alone.
    drawn = [g.intervals[::-1] or [g.over_seeds] for g in gaps]
    picture = charts.forest([g.other for g in gaps], drawn, label, axis)
    hollow = "Filled: over test rows; hollow: over seeds." if with_rows else "Intervals over seeds."
    caption = f"MPT minus each other method, {shots_text(shots)}. Right of zero MPT is better. {hollow}"
    return [Picture(picture, caption), _difference_grid(gaps, title, with_rows=with_rows)]


def _difference_grid(gaps: Sequence[Gap], title: str, *, with_rows: bool) -> Grid:
    columns: list[Column] = [("score", ("MPT minus it",)), ("95 % interval", ("over seeds",))]
    with_tasks = any(g.tells_of_tasks for g in gaps)
    columns += [("95 % interval", ("over tasks",))] if with_tasks else []
    columns += [("credit", ("MPT minus it",)), ("95 % interval", ("over test rows",))] if with_rows else []
    columns += [("tasks", ("MPT is above",)), ("finding", ())]
    rows = []
    for g in gaps:
        cells = [Entry(signed(g.mean)), _seeds_entry(g)]
        cells += [Entry(ends_of(g.over_tasks) if g.tells_of_tasks else "–")] if with_tasks else []
        cells += [Entry(signed(g.over_rows.mean) if g.over_rows else "–"), _rows_entry(g)] if with_rows else []
        cells.append(Entry(f"{g.tasks_ahead} of {len(g.tasks)}"))
        cells.append(Entry("MPT leads" if g.leads else "MPT trails" if g.trails else "open", kind="words"))
        rows.append((g.other, tuple(cells)))
    credit = (
        "Credit: what each test row earned, 0 to 100, mean over seeds; paired bootstrap, 10,000 resamples of the rows "
        "within each task."
    )
    over_tasks = "Over tasks each task's mean is one value: what to expect of other tasks like these."
    notes = (
        "Score: the mean over tasks, seed by seed; Student's t over seeds.",
        *((over_tasks,) if with_tasks else ()),
        *((credit,) if with_rows else ()),
        "MPT leads or trails on these tasks where every interval over seeds and test rows lies on one side of zero; "
        "else the question is open.",
    )
    return Grid(title, tuple(columns), grouped(rows), notes)


def _seeds_entry(gap: Gap) -> Entry:
    return Entry(ends_of(gap.over_seeds) if gap.over_seeds.count > 1 else "–")


def _rows_entry(gap: Gap) -> Entry:
    return Entry(ends_of(gap.over_rows) if gap.over_rows else "–")


def published_tables(results: Results, published: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the published tables of the groups that the run's tasks belong to, at full data and at its shots."""
    wanted = {"all", *(str(k) for k in results.shots)}
    tables = [t for t in published if t["shots"] in wanted and set(t["tasks"]) & set(results.tasks)]
    if not tables:
        return None
    grids = []
    for t in tables:
        more = [key for key in ("mean", "parameters") if any(key in row for row in t["rows"])]
        columns: list[Column] = [(name, ()) for name in t.get("columns", t["tasks"])]
        columns += [(key, ("per task",) if key == "parameters" else ()) for key in more]
        rows = tuple(
            (row["method"], tuple(Entry(text) for text in (*row["scores"], *(row.get(key, "–") for key in more))))
            for row in t["rows"]
        )
        data = "all training rows" if t["shots"] == "all" else f"{t['shots']} shots"
        notes = (f"Metrics: {t['metrics']}.", f"Source: {t['source']}.", f"Digits: {t['confidence'].rstrip('.')}.")
        caption = f"Published, not measured here: {t['title']}, {t['model']}, {data}"
        grids.append(Grid(caption, tuple(columns), (("", rows),), notes, "published"))
    sentences = (
        "What the papers report for these groups of tasks: another backbone, other splits, other budgets, and digits "
        "typed from notes. They say what to expect in kind; no number here can be set against one above.",
    )
    return Section("published", "Published, not measured here", sentences, tuple(grids))


def few_shot_curves(results: Results) -> Section | None:
    """Return scores by number of shots; nothing where there is one number only."""
    if len(results.shots) < 2:
        return None
    ticks = ["all" if k is None else str(k) for k in results.shots]
    tables = [means.score_table(results, k) for k in results.shots]
    panels: list[tuple[str, str | None]] = [("mean over tasks", None), *((task, task) for task in tables[0].tasks)]
    blocks = []
    for group, methods in _families(means.compared(results)):
        drawn = []
        for title, task in panels:
            series = [
                charts.Series(style, tuple(range(len(ticks))), tuple(table.score(method, task) for table in tables))
                for style, method in enumerate(methods)
            ]
            label = f"{group}: scores on {title} by shots per class. The score tables have the numbers."
            drawn.append((title, charts.curves([("score", series)], label, "shots per class", ticks)))
        caption = f"{group}: test scores by labelled examples per class; bands are 95 % intervals over seeds."
        blocks.append(Pictures(_legend(methods, "shots " + group), tuple(drawn), caption))
    return Section("shots", "Scores by number of shots", (), tuple(blocks))


def learning_curves(results: Results) -> Section:
    """Return validation scores and losses by step, a family of methods at a time."""
    title = "Learning curves"
    blocks: list[Block] = []
    for shots in results.shots:
        by_task = {task: {c.method: c for c in findings.curves(results, task, shots)} for task in results.tasks}
        trained = [m for m in means.compared(results) if any(m in curves for curves in by_task.values())]
        if trained and len(results.shots) > 1:
            blocks.append(Heading(capital(shots_text(shots))))
        for group, methods in _families(trained):
            named = f"{group}, {shots_text(shots)}"
            drawn = []
            for task, curves in by_task.items():
                ours = [(style, curves[m]) for style, m in enumerate(methods) if m in curves]
                panels = [
                    ("validation score", [charts.Series(style, c.steps, c.scores) for style, c in ours]),
                    ("validation loss", [charts.Series(style, c.steps, c.losses) for style, c in ours]),
                ]
                panels = [(name, series) for name, series in panels if any(any(one.y) for one in series)]
                if panels:
                    label = f"{named}: validation on {task} by step. The table below has the last step."
                    drawn.append((task, charts.curves(panels, label, "step")))
            caption = f"{named}: mean over seeds with its 95 % interval, on validation rows."
            numbers = _last_validations(by_task, methods, f"{named}: validation score at the last step")
            blocks.append(Pictures(_legend(methods, f"learning {group} {shots}"), tuple(drawn), caption, numbers))
    if not blocks:
        return Section("learning", title, ("The results hold no learning curves.",))
    return Section("learning", title, (), tuple(blocks))


def _last_validations(
    by_task: Mapping[str, Mapping[str, findings.Curve]], methods: Sequence[str], caption: str
) -> Grid:
    rows = []
    for method in methods:
        last = [curves[method].scores[-1] if method in curves else None for curves in by_task.values()]
        rows.append((method, tuple(_score_entry(ScoreCell(score)) for score in last)))
    return Grid(caption, tuple((task, ()) for task in by_task), (("", tuple(rows)),))


def similarity(results: Results) -> Section:
    """Return how alike the tasks' prompts and matrices are, and what each source's prompt gives each target."""
    sentences: list[str] = []
    blocks: list[Block] = []
    if results.similarity is None:
        sentences.append("There is no similarity.json, so nothing is said of the tasks' likeness.")
    else:
        matrices = {"prompts": results.similarity.prompts, "task matrices": results.similarity.matrices}
        sentences += [f"The similarities hold no {what}." for what, matrix in matrices.items() if matrix is None]
        cosines = {what: matrix for what, matrix in matrices.items() if matrix is not None}
        blocks += [_likeness(results.similarity.tasks, cosines)] if cosines else []
    sources, targets, gains = findings.gains(results)
    if sources and targets:
        label = "Gain of each target from each source task's own prompt. The table below has the numbers."
        svg = charts.heat(sources, targets, gains, label, signed)
        rows = tuple(_matrix_rows(sources, gains, signed))
        grid = Grid("Gain of each target from each source", tuple((t, ()) for t in targets), (("", rows),))
        caption = (
            "What each source task's own prompt (row), unadapted, gains each target (column) over the bare backbone, "
            "in points."
        )
        blocks.append(Pictures((), (("Gain from each source", svg),), caption, grid, "wide"))
    else:
        sentences.append("No source task's own prompt was scored on the targets, so no gain is shown.")
    title = "Which tasks are alike, and what each source gives"
    return Section("similarity", title, tuple(sentences), tuple(blocks))


def _likeness(tasks: Sequence[SimilarTask], cosines: Mapping[str, Matrix]) -> Pictures:
    """Return the cosines between tasks, a heat map for each kind."""
    known = [task.name for task in tasks]
    split = next((i for i, task in enumerate(tasks) if task.role == "target"), 0)
    drawn: list[tuple[str, str]] = []
    rows: list[Named] = []
    for what, matrix in cosines.items():
        label = f"Cosine similarity of {what}, task by task. The table below has the numbers."
        drawn.append((capital(what), charts.heat(known, known, matrix, label, cosine, split=split)))
        rows += _matrix_rows([f"{what}: {name}" for name in known], matrix, cosine)
    grid = Grid("Cosine similarity", tuple((name, ()) for name in known), (("", tuple(rows)),))
    caption = "Cosine similarity between tasks: of their prompts, and of their task matrices u vᵀ."
    caption += " Sources stand before targets." if split else ""
    return Pictures((), tuple(drawn), caption, grid, "wide")


def _matrix_rows(names: Sequence[str], matrix: Matrix, show: Callable[[float], str]) -> list[Named]:
    return [
        (name, tuple(Entry("–" if value is None else show(value)) for value in row))
        for name, row in zip(names, matrix, strict=True)
    ]


def alarms(results: Results) -> Section:
    """Return the tasks on which MPT falls below what it should exceed."""
    title = "Alarms: negative transfer"
    if MPT not in results.methods:
        return Section("alarms", title, ("The results hold no run of mpt, so there is nothing to raise an alarm for.",))
    suspects = findings.suspects()
    missing = listed([method for method in suspects if method not in results.methods])
    unchecked = [f"Not checked, for want of results: {missing}."] if missing else []
    raised = findings.alarms(results)
    checked = listed([method for method in suspects if method in results.methods])
    if not raised:
        none = f"None: on every task MPT is at or above {checked}." if checked else "Nothing could be checked."
        return Section("alarms", title, (none, *unchecked))
    certain = sum(alarm.certain for alarm in raised)
    count = f"Compared with {checked}, MPT falls below in {counted(len(raised), 'case')}, {certain} beyond chance."
    groups = []
    for shots in results.shots:
        rows = tuple((alarm.task, _alarm_cells(alarm)) for alarm in raised if alarm.shots == shots)
        if rows:
            groups.append((capital(shots_text(shots)) if len(results.shots) > 1 else "", rows))
    columns: tuple[Column, ...] = (
        ("MPT is", ()), ("score", ("MPT minus it",)), ("95 % interval", ("over seeds",)),
        ("95 % interval", ("over test rows",)), ("finding", ()),
    )  # fmt: skip
    notes = (
        "Beyond chance: every interval lies below zero. Over seeds by Student's t, over test rows by paired bootstrap.",
    )
    return Section("alarms", title, (count, *unchecked), (Grid("Alarms by task", columns, tuple(groups), notes),))


def _alarm_cells(alarm: Alarm) -> tuple[Entry, ...]:
    other = alarm.gap.other + (" (its own)" if alarm.gap.other == "teacher" else "")
    return (
        Entry(f"{'not above' if alarm.gap.mean >= 0 else 'below'} {other}", kind="words"),
        Entry(signed(alarm.gap.mean)),
        _seeds_entry(alarm.gap),
        _rows_entry(alarm.gap),
        Entry("beyond chance", kind="words alarm") if alarm.certain else Entry("may be chance", kind="words"),
    )


def made(results: Results) -> Section:
    """Return time, methods and settings."""
    rows = []
    for method in results.methods:
        seconds = [line.seconds for line in results.lines if line.method == method and line.seconds is not None]
        runs = sum(line.method == method for line in results.lines)
        times = [f"{sum(seconds) / len(seconds):,.1f}", f"{sum(seconds):,.0f}"] if seconds else ["–", "–"]
        rows.append((method, tuple(Entry(text) for text in (f"{runs:,}", *times))))
    columns: tuple[Column, ...] = (("runs", ()), ("seconds", ("mean of a run",)), ("seconds", ("all runs",)))
    blocks: list[Block] = [Grid("Time of each method", columns, grouped(rows))]
    described = [(m, (Entry(METHODS[m].description, kind="words"),)) for m in results.methods if m in METHODS]
    variants = results.recipe.get("variants")
    for name, fields in variants.items() if isinstance(variants, dict) else ():
        if name in results.methods:
            described.append((name, (Entry(json.dumps(fields, ensure_ascii=False), kind="words"),)))
    if described:
        blocks.append(Grid("The methods", (("what it is", ()),), grouped(described)))
    sentences: tuple[str, ...] = ()
    if results.recipe:
        blocks.append(Folded("Settings (recipe.json)", json.dumps(results.recipe, indent=2, ensure_ascii=False)))
    else:
        sentences = ("There is no recipe.json, so the settings are not known here.",)
    return Section("made", "How it was made", sentences, tuple(blocks))


def _families(methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the methods that learn from target examples, family by family, as many together as can be told apart."""
    known = sorted(methods, key=lambda m: list(METHODS).index(m) if m in METHODS else len(METHODS))
    families = []
    learning = dict.fromkeys(row.family for row in METHODS.values() if row.takes_examples)
    for title in (*learning, OWN):
        members = [m for m in known if family(m) == title]
        if title == OWN and members and MPT in known:
            members.insert(0, MPT)  # what the variants vary
        size = len(charts.SERIES)
        families += [(title, members[i : i + size]) for i in range(0, len(members), size)]
    return families


def _legend(methods: Sequence[str], whose: str) -> tuple[tuple[str, str], ...]:
    return tuple((charts.swatch(style, f"{whose} {name}"), name) for style, name in enumerate(methods))
