"""Comparisons: bench, report."""

from pathlib import Path
from typing import Annotated

import typer

from mptune.commands.options import File, SetOption, Text, names, option
from mptune.progress import board
from mptune.terminal import say, table


def bench(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file, or a task's.")],
    out: Annotated[File, option("In place of the recipe's folder.", "DIR")] = None,
    only: Annotated[Text, option("Only these methods and targets of the recipe.", "METHOD,TASK")] = None,
    plan: Annotated[
        bool, option("Say what it will take here, from a short measurement, and stop.", name="--plan")
    ] = False,
    settings: SetOption = None,
) -> None:
    """A whole comparison from one file: sources, methods, targets, seeds. What is finished is not done again.

    Of a task's file: which method to take for it, by three draws of eight labels a class.
    """
    from mptune.comparison.bench import run_recipe
    from mptune.comparison.loaded import Loaded
    from mptune.comparison.methods import sections
    from mptune.comparison.plan import planned
    from mptune.comparison.results import TABLE
    from mptune.config import parse_overrides

    loaded = Loaded.from_file(recipe, parse_overrides(settings or [], sections()))
    if plan:
        expected = planned(loaded, out, only=names(only, "--only"), say=lambda text: say(text, err=True))
        table(*expected.table())
        say(expected.summary())
        return
    with board(loaded.recipe.name) as shown:
        folder = run_recipe(loaded, out, only=names(only, "--only"), watch=shown.show)
    say((folder / TABLE).read_text(encoding="utf-8"))
    say(f"Written to {folder / TABLE}", err=True)


def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder with results.jsonl, as `bench` wrote it.", metavar="RUN_DIR")],
    out: Annotated[File, option("The page's file; report.html in the folder without it.", "FILE")] = None,
) -> None:
    """Write a run's results as one HTML page: verdict, scores, curves, similarities, alarms."""
    from mptune.comparison.report import write_report

    file = out or run_dir / "report.html"
    for headline in write_report(run_dir, file):
        say(headline)
    say(f"Written to {file}", err=True)
