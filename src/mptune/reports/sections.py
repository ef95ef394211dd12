"""The sections of the page, in their order. Every number comes from `findings`, and so from a results file."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mptune.reports import charts, findings
from mptune.reports.blocks import Block, Column, Entry, Folded, Grid, Heading, Picture, Pictures, Section
from mptune.reports.findings import CONSTANT, SUSPECTS, TEACHER, ZERO_SHOT, Alarm, Cell, Gap, Table
from mptune.reports.reading import MPT, Run
from mptune.reports.words import (
    METHODS,
    OWN,
    PROMPTS,
    WEIGHTS,
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
from mptune.statistics import Interval


def scores(run: Run) -> Section:
    """Return methods by tasks, and MPT's difference from each method, for every number of shots."""
    said = [
        "Means over seeds ± half of the 95 % interval (Student's t); a method that uses no target example has one "
        "run, or one for each source training. "
        "Underlined is the best of a column, the teacher left out, which knows all training rows. † marks a score "
        "whose interval is not wholly above the constant predictor, which always says the commonest training label: "
        "such a score shows no learning."
    ]
    if CONSTANT not in run.methods:
        said.append("The results hold no constant predictor, so nothing is marked †.")
    blocks: list[Block] = []
    for shots in run.shots:
        if len(run.shots) > 1:
            blocks.append(Heading(capital(shots_text(shots))))
        blocks.append(_score_grid(findings.score_table(run, shots), f"Scores, {shots_text(shots)}", parameters=True))
        balanced = findings.balanced_table(run, shots)
        if balanced:
            blocks.append(_score_grid(balanced, f"The same answers by macro-F1, {shots_text(shots)}"))
        blocks += _differences(run, shots)
    return Section("scores", "Scores", tuple(said), tuple(blocks))


def _score_grid(table: Table, caption: str, *, parameters: bool = False) -> Grid:
    parameters = parameters and any(row.stored for row in table.rows)
    columns: list[Column] = [("mean", ("over tasks",))]
    for task, metric, count in zip(table.tasks, table.metrics, table.examples, strict=True):
        columns.append((task, (metric, f"{count:,} rows") if count else (metric,)))
    columns += [("trained", ("numbers",)), ("stored", ("per task",))] if parameters else []
    rows = []
    for row in table.rows:
        cells = [_score_entry(cell) for cell in (row.mean, *row.cells)]
        cells += [Entry(count_text(row.trained)), Entry(count_text(row.stored))] if parameters else []
        rows.append((row.method, tuple(cells)))
    return Grid(caption, tuple(columns), grouped(rows))


def _score_entry(cell: Cell) -> Entry:
    if cell.score is None:
        return Entry("–")
    mark, kind = "†" if cell.doubtful else "", "best" if cell.best else ""
    return Entry(number(cell.score.mean), spread(cell.score), mark, kind)


def _differences(run: Run, shots: int | None) -> list[Block]:
    found = findings.gaps(run, shots)
    if not found:
        return []
    order = [name for _, group in grouped((g.other, ()) for g in found) for name, _ in group]
    found.sort(key=lambda g: order.index(g.other))
    with_rows = any(g.over_rows for g in found)
    title = f"MPT against each method, {shots_text(shots)}"
    label = f"{title}: points with 95 % intervals. The table below has the numbers."
    axis = "MPT minus the method, points on the mean over tasks"
    picture = charts.forest([g.other for g in found], [_drawn(g) for g in found], label, axis)
    hollow = "Filled: over test rows; hollow: over seeds." if with_rows else "Intervals over seeds."
    caption = f"MPT minus each other method, {shots_text(shots)}. Right of zero MPT is better. {hollow}"
    return [Picture(picture, caption), _difference_grid(run, found, shots, title, with_rows=with_rows)]


def _drawn(gap: Gap) -> list[Interval]:
    """Return the intervals that are drawn, that over test rows first; without any, the difference alone."""
    return gap.intervals[::-1] or [gap.over_seeds]


def _difference_grid(run: Run, found: Sequence[Gap], shots: int | None, title: str, *, with_rows: bool) -> Grid:
    columns: list[Column] = [("score", ("MPT minus it",)), ("95 % interval", ("over seeds",))]
    columns += [("credit", ("MPT minus it",)), ("95 % interval", ("over test rows",))] if with_rows else []
    columns += [("tasks", ("MPT is above",)), ("finding", ())]
    rows = []
    for g in found:
        cells = [Entry(signed(g.mean)), _seeds_entry(g)]
        cells += [Entry(signed(g.over_rows.mean) if g.over_rows else "–"), _rows_entry(g)] if with_rows else []
        cells.append(Entry(f"{findings.tasks_ahead(run, g, shots)} of {len(g.tasks)}"))
        cells.append(Entry("MPT leads" if g.leads else "MPT trails" if g.trails else "open", kind="words"))
        rows.append((g.other, tuple(cells)))
    credit = (
        "Credit: what each test row earned, 0 to 100, mean over seeds; paired bootstrap, 10,000 resamples of the rows "
        "within each task."
    )
    notes = (
        "Score: the mean over tasks, seed by seed; Student's t over seeds.",
        *((credit,) if with_rows else ()),
        "MPT leads or trails where every interval lies on one side of zero; else the question is open.",
    )
    return Grid(title, tuple(columns), grouped(rows), notes)


def _seeds_entry(gap: Gap) -> Entry:
    return Entry(ends_of(gap.over_seeds) if gap.over_seeds.count > 1 else "–")


def _rows_entry(gap: Gap) -> Entry:
    return Entry(ends_of(gap.over_rows) if gap.over_rows else "–")


def published_tables(run: Run, published: Sequence[Mapping[str, Any]]) -> Section | None:
    """Return the published tables of the groups that the run's tasks belong to, at full data and at its shots."""
    wanted = {"all", *(str(k) for k in run.shots)}
    tables = [t for t in published if t["shots"] in wanted and set(t["tasks"]) & set(run.tasks)]
    if not tables:
        return None
    grids = []
    for t in tables:
        columns: list[Column] = [(c, ()) for c in t.get("columns", t["tasks"])]
        with_mean = any("mean" in row for row in t["rows"])
        with_parameters = any("parameters" in row for row in t["rows"])
        columns += [("mean", ())] if with_mean else []
        columns += [("parameters", ("per task",))] if with_parameters else []
        rows = []
        for row in t["rows"]:
            texts = [*row["scores"], *([row.get("mean", "–")] if with_mean else [])]
            texts += [row.get("parameters", "–")] if with_parameters else []
            rows.append((row["method"], tuple(Entry(text) for text in texts)))
        data = "all training rows" if t["shots"] == "all" else f"{t['shots']} shots"
        notes = (f"Metrics: {t['metrics']}.", f"Source: {t['source']}.", f"Digits: {t['confidence'].rstrip('.')}.")
        caption = f"Published, not measured here: {t['title']}, {t['model']}, {data}"
        grids.append(Grid(caption, tuple(columns), (("", tuple(rows)),), notes, "published"))
    said = (
        "What the papers report for these groups of tasks: another backbone, other splits, other budgets, and digits "
        "typed from notes. They say what to expect in kind; no number here can be set against one above.",
    )
    return Section("published", "Published, not measured here", said, tuple(grids))


def against_parameters(run: Run) -> Section:
    """Return mean scores against the parameters that a method stores per task."""
    title = "Scores against stored parameters"
    blocks: list[Block] = []
    for shots in run.shots:
        means = {row: row.mean.score for row in findings.score_table(run, shots).rows if row.mean.score}
        points = [(row.method, row.stored[1], mean) for row, mean in means.items() if row.stored and row.stored[1]]
        if not points:
            continue
        lines = [(row.method, mean.mean) for row, mean in means.items() if row.method in (CONSTANT, ZERO_SHOT)]
        label = f"Mean score against parameters stored per task, {shots_text(shots)}. The score table has the numbers."
        caption = (
            f"Mean over tasks, {shots_text(shots)}, with its 95 % interval over seeds. Left is smaller, up is better."
        )
        blocks.append(Picture(charts.scatter(points, lines, MPT, label), caption))
    if not blocks:
        return Section("parameters", title, ("The results do not say how many parameters the methods store.",))
    return Section("parameters", title, (), tuple(blocks))


def few_shot_curves(run: Run) -> Section | None:
    """Return scores by number of shots; nothing where there is one number only."""
    if len(run.shots) < 2:
        return None
    ticks = ["all" if k is None else str(k) for k in run.shots]
    tables = [findings.score_table(run, k) for k in run.shots]
    blocks = []
    for group, methods in _families(findings.compared(run)):
        panels: list[tuple[str, Callable[[Table, str], Interval | None]]] = [("mean over tasks", _mean_of)]
        panels += [(task, _score_on(task)) for task in run.tasks]
        drawn = []
        for title, find in panels:
            series = [
                charts.Series(style, tuple(range(len(ticks))), tuple(find(table, method) for table in tables))
                for style, method in enumerate(methods)
            ]
            label = f"{group}: scores on {title} by shots per class. The score tables have the numbers."
            drawn.append((title, charts.curves([("score", series)], label, "shots per class", ticks)))
        caption = f"{group}: test scores by labelled examples per class; bands are 95 % intervals over seeds."
        blocks.append(Pictures(_legend(methods, "shots " + group), tuple(drawn), caption))
    return Section("shots", "Scores by number of shots", (), tuple(blocks))


def learning_curves(run: Run) -> Section:
    """Return validation scores and losses by step, a family of methods at a time."""
    title = "Learning curves"
    blocks: list[Block] = []
    for shots in run.shots:
        found = {task: {c.method: c for c in findings.curves(run, task, shots)} for task in run.tasks}
        trained = [m for m in findings.compared(run) if any(m in curves for curves in found.values())]
        if trained and len(run.shots) > 1:
            blocks.append(Heading(capital(shots_text(shots))))
        for group, methods in _families(trained):
            named = f"{group}, {shots_text(shots)}"
            drawn = []
            for task, curves in found.items():
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
            numbers = _last_validations(found, methods, f"{named}: validation score at the last step")
            blocks.append(Pictures(_legend(methods, f"learning {group} {shots}"), tuple(drawn), caption, numbers))
    if not blocks:
        return Section("learning", title, ("The results hold no learning curves.",))
    return Section("learning", title, (), tuple(blocks))


def _last_validations(found: Mapping[str, Mapping[str, findings.Curve]], methods: Sequence[str], caption: str) -> Grid:
    rows = []
    for method in methods:
        last = [curves[method].scores[-1] if method in curves else None for curves in found.values()]
        rows.append((method, tuple(_score_entry(Cell(i)) for i in last)))
    return Grid(caption, tuple((task, ()) for task in found), (("", tuple(rows)),))


def similarity(run: Run) -> Section:
    """Return how alike the tasks' prompts and matrices are, and what each source's prompt gives each target."""
    said: list[str] = []
    blocks: list[Block] = []
    if run.similarity:
        tasks = run.similarity.tasks
        known = [t.name for t in tasks]
        split = next((i for i, t in enumerate(tasks) if t.role == "target"), 0)
        drawn, numbers = [], []
        for what, matrix in (("prompts", run.similarity.prompts), ("task matrices", run.similarity.matrices)):
            if matrix is None:
                said.append(f"The similarities hold no {what}.")
                continue
            label = f"Cosine similarity of {what}, task by task. The table below has the numbers."
            svg = charts.heat(known, known, matrix, label, cosine, split=split)
            drawn.append((capital(what), svg))
            numbers += [
                (f"{what}: {name}", tuple(Entry("–" if v is None else cosine(v)) for v in row))
                for name, row in zip(known, matrix, strict=True)
            ]
        if drawn:
            grid = Grid("Cosine similarity", tuple((name, ()) for name in known), (("", tuple(numbers)),))
            caption = "Cosine similarity between tasks: of their prompts, and of their task matrices u vᵀ."
            caption += " Sources stand before targets." if split else ""
            blocks.append(Pictures((), tuple(drawn), caption, grid, "wide"))
    else:
        said.append("There is no similarity.json, so nothing is said of the tasks' likeness.")
    sources, targets, table = findings.gains(run)
    if sources and targets:
        label = "Gain of each target from each source task's own prompt. The table below has the numbers."
        svg = charts.heat(sources, targets, table, label, signed)
        rows = [
            (source, tuple(Entry("–" if v is None else signed(v)) for v in row))
            for source, row in zip(sources, table, strict=True)
        ]
        grid = Grid("Gain of each target from each source", tuple((t, ()) for t in targets), (("", tuple(rows)),))
        caption = (
            "What each source task's own prompt (row), unadapted, gains each target (column) over the bare backbone, "
            "in points."
        )
        blocks.append(Pictures((), (("Gain from each source", svg),), caption, grid, "wide"))
    else:
        said.append("No source task's own prompt was scored on the targets, so no gain is shown.")
    return Section("similarity", "Which tasks are alike, and what each source gives", tuple(said), tuple(blocks))


def alarms(run: Run) -> Section:
    """Return the tasks on which MPT falls below what it should exceed."""
    title = "Alarms: negative transfer"
    if MPT not in run.methods:
        return Section("alarms", title, ("The results hold no run of mpt, so there is nothing to raise an alarm for.",))
    missing = [m for m in (*SUSPECTS, CONSTANT) if m not in run.methods]
    said = [f"Not checked, for want of results: {listed(missing)}."] if missing else []
    found = findings.alarms(run)
    checked = listed([m for m in (*SUSPECTS, CONSTANT) if m in run.methods])
    if not found:
        said.insert(0, f"None: on every task MPT is at or above {checked}." if checked else "Nothing could be checked.")
        return Section("alarms", title, tuple(said))
    certain = sum(alarm.certain for alarm in found)
    said.insert(
        0, f"Compared with {checked}, MPT falls below in {counted(len(found), 'case')}, {certain} beyond chance."
    )
    groups = []
    for shots in run.shots:
        rows = tuple((alarm.task, _alarm_cells(alarm)) for alarm in found if alarm.shots == shots)
        if rows:
            groups.append((capital(shots_text(shots)) if len(run.shots) > 1 else "", rows))
    columns: tuple[Column, ...] = (
        ("MPT is", ()), ("score", ("MPT minus it",)), ("95 % interval", ("over seeds",)),
        ("95 % interval", ("over test rows",)), ("finding", ()),
    )  # fmt: skip
    notes = (
        "Beyond chance: every interval lies below zero. Over seeds by Student's t, over test rows by paired bootstrap.",
    )
    return Section("alarms", title, tuple(said), (Grid("Alarms by task", columns, tuple(groups), notes),))


def _alarm_cells(alarm: Alarm) -> tuple[Entry, ...]:
    other = alarm.gap.other + (" (its own)" if alarm.gap.other == TEACHER else "")
    return (
        Entry(f"{'not above' if alarm.gap.mean >= 0 else 'below'} {other}", kind="words"),
        Entry(signed(alarm.gap.mean)),
        _seeds_entry(alarm.gap),
        _rows_entry(alarm.gap),
        Entry("beyond chance", kind="words alarm") if alarm.certain else Entry("may be chance", kind="words"),
    )


def made(run: Run) -> Section:
    """Return time, methods and settings."""
    rows = []
    for method in run.methods:
        seconds = [line.seconds for line in run.lines if line.method == method and line.seconds is not None]
        runs = sum(line.method == method for line in run.lines)
        times = [f"{sum(seconds) / len(seconds):,.1f}", f"{sum(seconds):,.0f}"] if seconds else ["–", "–"]
        rows.append((method, tuple(Entry(text) for text in (f"{runs:,}", *times))))
    columns: tuple[Column, ...] = (("runs", ()), ("seconds", ("mean of a run",)), ("seconds", ("all runs",)))
    blocks: list[Block] = [Grid("Time of each method", columns, grouped(rows))]
    described = [(m, (Entry(METHODS[m][1], kind="words"),)) for m in run.methods if m in METHODS]
    variants = run.recipe.get("variants")
    for name, fields in variants.items() if isinstance(variants, dict) else ():
        if name in run.methods:
            described.append((name, (Entry(json.dumps(fields, ensure_ascii=False), kind="words"),)))
    if described:
        blocks.append(Grid("The methods", (("what it is", ()),), grouped(described)))
    said: tuple[str, ...] = ()
    if run.recipe:
        blocks.append(Folded("Settings (recipe.json)", json.dumps(run.recipe, indent=2, ensure_ascii=False)))
    else:
        said = ("There is no recipe.json, so the settings are not known here.",)
    return Section("made", "How it was made", said, tuple(blocks))


def _families(methods: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the methods that learn from target examples, family by family, as many together as can be told apart."""
    known = sorted(methods, key=lambda m: list(METHODS).index(m) if m in METHODS else len(METHODS))
    found = []
    for title in (PROMPTS, WEIGHTS, OWN):
        members = [m for m in known if family(m) == title]
        if title == OWN and members and MPT in known:
            members.insert(0, MPT)  # what the variants vary
        size = len(charts.SERIES)
        found += [(title, members[i : i + size]) for i in range(0, len(members), size)]
    return found


def _legend(methods: Sequence[str], whose: str) -> tuple[tuple[str, str], ...]:
    return tuple((charts.swatch(style, f"{whose} {name}"), name) for style, name in enumerate(methods))


def _mean_of(table: Table, method: str) -> Interval | None:
    return next((row.mean.score for row in table.rows if row.method == method), None)


def _score_on(task: str) -> Callable[[Table, str], Interval | None]:
    def find(table: Table, method: str) -> Interval | None:
        return next((row.cells[table.tasks.index(task)].score for row in table.rows if row.method == method), None)

    return find
