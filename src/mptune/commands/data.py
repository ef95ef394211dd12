"""Tasks, and rows to answer: init, tasks, predict."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mptune.commands.options import BackboneOption, File, SetOption, Text, configured, load, names, option
from mptune.errors import MptuneError, UsageError
from mptune.terminal import at_home, say, table

if TYPE_CHECKING:
    from mptune import Task
    from mptune.answers.parts import Part
    from mptune.stages.check import TaskCheck


MOST_SHOWN = 400  # characters of a row's text


def init(
    data: Annotated[
        Path,
        typer.Argument(help="A table with labelled rows: csv, tsv, txt, xlsx, json, jsonl, parquet.", metavar="DATA"),
    ],
    text: Annotated[Text, option("The column to read; several, separated by commas.", "COLUMN")] = None,
    label: Annotated[Text, option("The column that holds the labels.", "COLUMN")] = None,
    sheet: Annotated[Text, option("Of an xlsx file, the sheet to read; the first without it.", "NAME")] = None,
    out: Annotated[File, option("The task's file; DATA's name with .yaml without it.", "FILE")] = None,
    backbone: BackboneOption = None,
) -> None:
    """Look at a table, write the task that it is, and show what a model would read."""
    from mptune.files import refuse_lost, write_file, yaml_text
    from mptune.tasks.guess import guess_task, task_name

    file = out or Path(f"{task_name(data)}.yaml")
    taken = f"{file} is there already; remove it, or name another with --out" if file.exists() else ""
    refuse_lost(file, "--out")
    try:
        guess = guess_task(data, task_name(file), names(text, "--text"), label, file.parent, sheet)
    except MptuneError as error:  # what else is wrong is not hidden by the file
        if taken:
            raise UsageError(f"{error}\n{taken}") from None
        raise
    if taken:
        raise UsageError(taken)
    # Checked first and written last, so that a row can be mended and the same command given again.
    seen = _checked(guess.task.located(file.parent), backbone)
    values = guess.task.model_dump(mode="json", exclude_defaults=True, exclude_none=True)
    write_file(file, yaml_text(values))
    say(f"{file}: the text is {', '.join(guess.text)}, the label {guess.label}")
    for each in guess.said:
        say(each)
    _show(seen)
    say(f"Look at {file}, change what is wrong, the question in template: before all;", err=True)
    say(f"then: mptune adapt --task {file} --out prompts/{file.stem}", err=True)


def _checked(task: "Task", backbone: str | None) -> "TaskCheck":
    """Return what there is to see of a task's rows; what is wrong with them is said before a model is loaded."""
    from mptune.tasks.data import TaskRows

    rows = TaskRows(task)
    rows.data("train")
    from mptune.stages.check import check

    return check(rows, load(backbone, {}))


def _show(seen: "TaskCheck") -> None:
    """Print what a task's rows are."""
    if seen.classes:
        table(["label", "word", *seen.splits], [[value, word, *counts] for value, word, counts in seen.classes])
    for example, tokens in seen.texts:
        text = example.input
        read = text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 80]} [...] {text[-80:]}"
        say(f"Row {example.row}, {tokens} tokens: {read} → {example.target}")
    say(f"The longest text has {seen.longest} tokens.")
    for doubt in seen.doubts:
        say(doubt)


def tasks(
    name: Annotated[Text, typer.Argument(help="Show one task in full: a name, NAME@paper, or a YAML file.")] = None,
    as_json: Annotated[bool, option("One JSON object per task.", name="--json")] = False,
    backbone: BackboneOption = None,
) -> None:
    """List the built-in tasks, or show one; of a YAML file its rows too, and what is doubtful of them."""
    from mptune.tasks.registry import builtin_tasks, get_task

    chosen = [get_task(name)] if name else list(builtin_tasks().values())
    if as_json:
        say("\n".join(task.model_dump_json(exclude_none=True) for task in chosen))
    elif name:
        table(["field", "value"], [item for item in chosen[0].model_dump(exclude_none=True).items() if item[1]])
        if chosen[0].dataset and not chosen[0].dataset.hub and name.endswith((".yaml", ".yml")):
            _show(_checked(chosen[0], backbone))
    else:
        table(
            ["task", "labels", "metric", "what it asks"],
            [[t.name, ", ".join(t.label_words) or "free text", t.metrics[0], t.description] for t in chosen],
        )
        say("A public data set under the paper's protocol is NAME@paper, wherever a task is named.", err=True)


def predict(
    prompt: Annotated[str, option("Prompt folder, folder of prompts, or hub repository.", "PROMPT", "--prompt")],
    rows: Annotated[
        File,
        typer.Argument(
            help="Rows: csv, tsv, xlsx, jsonl, json, parquet, .gz; a folder of such files, or a pattern in quotes, as "
            "'rows/*.parquet'; JSON lines from standard input without it.",
            metavar="ROWS",
            callback=at_home,
        ),
    ] = None,
    input_file: Annotated[File, option("The same as ROWS.", "FILE", "--input")] = None,
    output: Annotated[
        File,
        option(
            "Answers, gone on with after a kill: a table with all columns where it ends in .csv, .tsv, .xlsx or "
            ".parquet, JSON lines in .jsonl, .json or .ndjson; standard output without it. Never over what is there. "
            "Of several files of rows, a folder.",
            "FILE",
        ),
    ] = None,
    probabilities: Annotated[
        bool, option("A column of a table for each label word's probability.", name="--probabilities")
    ] = False,
    aside: Annotated[
        bool,
        option(
            "Rows that cannot be answered get an empty answer, and stand with the reason in OUTPUT.aside.jsonl; else "
            "none is answered.",
            name="--aside",
        ),
    ] = False,
    backbone: BackboneOption = None,
    settings: SetOption = None,
) -> None:
    """Answer rows: a table in, the table with answers out; or JSON lines."""
    from mptune import EvaluateConfig

    if rows is not None and input_file is not None:
        raise UsageError("predict wants ROWS or --input, which are the same; got both")
    source = rows if rows is not None else input_file
    config, changes = configured(EvaluateConfig, "evaluate", settings)
    # What is wrong is said before the libraries are loaded that compute.
    parts = _parts(source, output, prompt, probabilities=probabilities, aside=aside)
    from mptune import Predictor
    from mptune.answers.parts import answer_parts
    from mptune.answers.streaming import answer_file
    from mptune.prompts.prompt import load_prompts

    prompts = load_prompts(prompt)
    predictor = Predictor(load(backbone, changes, prompts[0], prompt), prompts, config)
    if parts:
        for part, answered in answer_parts(predictor, parts, probabilities=probabilities, aside=aside):
            say(f"{part.output}: {'there already' if answered is None else f'{answered} answers'}", err=True)
        return
    if source is None and sys.stdin.isatty():
        say("reading rows as JSON lines from the terminal; Ctrl-D ends them, and a file may be named instead", err=True)
    count = answer_file(predictor, source, output, probabilities=probabilities, aside=aside)
    if output is not None:
        say(f"{output}: {count} answers", err=True)


def _parts(
    source: Path | None, output: Path | None, prompt: str, *, probabilities: bool, aside: bool
) -> "Sequence[Part]":
    """Return the files of rows where there are several; what cannot be read, answered or written is raised."""
    from mptune.answers.parts import are_many, check_parts, parts_of
    from mptune.answers.sheets import is_table
    from mptune.answers.streaming import check_head, check_places
    from mptune.prompts.stored import prompt_folders, stored_prompt

    parts = parts_of(source, output) if source is not None and are_many(source) else []
    if probabilities and not (any(is_table(part.output) for part in parts) if parts else is_table(output)):
        raise UsageError("--probabilities wants a table as --output, .csv or .xlsx say; JSON lines have them anyway")
    if not parts:
        check_places(source, output, aside=aside)
    stored = [stored_prompt(place) for place in (prompt_folders(prompt) if Path(prompt).is_dir() else [prompt])]
    tasks = [task for each in stored for task in each.card.tasks]
    if parts:
        check_parts(parts, tasks)
    else:
        check_head(source, tasks)
    return parts
