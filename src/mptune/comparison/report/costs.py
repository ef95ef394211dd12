"""What scores cost: the sections that set them against stored parameters and against seconds."""

import statistics

from mptune.comparison.report import charts
from mptune.comparison.report.layout import Block, Picture, Section
from mptune.comparison.report.means import CONSTANT, ZERO_SHOT, score_table
from mptune.comparison.report.phrases import shots_text
from mptune.comparison.report.reading import MPT, Results

SHORTEST = 0.1  # seconds that a run is drawn with at least: lines have one decimal


def against_parameters(results: Results) -> Section:
    """Return mean scores against the parameters that a method stores per task."""
    title = "Scores against stored parameters"
    blocks: list[Block] = []
    for shots in results.shots:
        means = {row: row.mean.score for row in score_table(results, shots).rows if row.mean.score}
        points = [(row.method, row.stored[1], mean) for row, mean in means.items() if row.stored and row.stored[1]]
        if not points:
            continue
        lines = [(row.method, mean.mean) for row, mean in means.items() if row.method in (CONSTANT, ZERO_SHOT)]
        label = f"Mean score against parameters stored per task, {shots_text(shots)}. The score table has the numbers."
        caption = (
            f"Mean over tasks, {shots_text(shots)}, with its 95 % interval over seeds. Left is smaller, up is better."
        )
        axis = "parameters stored per task (log scale)"
        blocks.append(Picture(charts.scatter(points, lines, MPT, label, axis), caption))
    if not blocks:
        return Section("parameters", title, ("The results do not say how many parameters the methods store.",))
    return Section("parameters", title, (), tuple(blocks))


def against_seconds(results: Results) -> Section | None:
    """Return mean scores against the seconds that a run takes; None where the lines do not say."""
    blocks: list[Block] = []
    for shots in results.shots:
        table = score_table(results, shots)
        points = []
        for row in table.rows:
            spent = [line.seconds for task in table.tasks for line in results.of(row.method, task, shots)]
            known = [max(seconds, SHORTEST) for seconds in spent if seconds is not None]
            if known and row.mean.score and row.method != CONSTANT:
                points.append((row.method, statistics.median(known), row.mean.score))
        if not points:
            continue
        lines = [(row.method, row.mean.score.mean) for row in table.rows if row.method == CONSTANT and row.mean.score]
        label = f"Mean score against the seconds of a run, {shots_text(shots)}. The score table has the scores."
        caption = (
            f"Mean over tasks, {shots_text(shots)}, with its 95 % interval over seeds, against the median seconds of a "
            "run: training and scoring, without what other runs use too. Left is faster, up is better."
        )
        blocks.append(Picture(charts.scatter(points, lines, MPT, label, "seconds of a run (log scale)"), caption))
    return Section("seconds", "Scores against seconds", (), tuple(blocks)) if blocks else None
