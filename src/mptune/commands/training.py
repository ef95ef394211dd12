"""The three stages and their scores: teach, distill, adapt, evaluate."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

from mptune.commands.instruction import distill_written, written_instruction
from mptune.commands.options import (
    BackboneOption,
    DataOption,
    File,
    Number,
    Rate,
    SeedOption,
    SetOption,
    ShotsOption,
    StepsOption,
    Text,
    TrackersOption,
    configured,
    load,
    named_tasks,
    names,
    open_prompt,
    option,
    rate,
    say_saved,
)
from mptune.errors import UsageError, one_of
from mptune.progress import trainings
from mptune.terminal import say, say_json, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mptune import AdaptConfig, Backbone, MultitaskPrompt, Score, TaskRows
    from mptune.answers.classes import ClassScore

MOST_LABELS = 12  # whose answers are shown by label


def teach_tasks(
    tasks: Annotated[str, option("Built-in names and YAML files, separated by commas.", "NAMES")],
    out: Annotated[Path, option("Folder for one teacher prompt per task.", "DIR")],
    backbone: BackboneOption = None,
    shots: ShotsOption = None,
    steps: StepsOption = None,
    lr: Annotated[Rate, rate("Learning rate, in units of the embeddings' RMS.")] = None,
    seed: SeedOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:
    """Stage 1: train one teacher prompt per source task (also plain prompt tuning)."""
    from mptune import TeachConfig

    config, changes = configured(TeachConfig, "teach", settings, shots=shots, steps=steps, lr=lr, seed=seed)
    trackers = names(report_to, "--report-to")
    chosen = named_tasks(tasks, "--tasks")
    from mptune import teach
    from mptune.stages.run import try_out
    from mptune.tasks.data import TaskRows

    read = TaskRows.checked(chosen, data)
    for rows in read:
        try_out(out / rows.name)
    model = load(backbone, changes)
    with trainings(sum(not (out / rows.name).exists() for rows in read)):
        for rows in read:
            say_saved(out / rows.name, teach(rows, model, config, out=out / rows.name, report_to=trackers))


def distill_teachers(
    out: Annotated[Path, option("Folder of the multitask prompt.", "DIR")],
    teachers: Annotated[File, option("Folder of teacher prompts, as `teach` made it.", "DIR")] = None,
    instruction: Annotated[
        File, option("In place of teachers: a text that is read before every row, or around {text}.", "FILE")
    ] = None,
    rows: Annotated[File, option("Of an instruction: rows to learn from, without labels.", "FILE")] = None,
    text: Annotated[Text, option("Of an instruction: the column to read; the longest without it.", "COLUMN")] = None,
    words: Annotated[Text, option("Of an instruction: label words; free text without it.", "NAMES")] = None,
    tasks: Annotated[
        Text, option("Source tasks; those of the teachers without it. Of an instruction, its task.", "NAMES")
    ] = None,
    backbone: BackboneOption = None,
    steps: StepsOption = None,
    lr: Annotated[Rate, rate("Learning rate of the shared prompt, in units of the embeddings' RMS.")] = None,
    seed: SeedOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:  # fmt: skip
    """Stage 2, source training: distil teachers into one multitask prompt; or an instruction into a prompt."""
    from mptune import DistillConfig

    config, changes = configured(DistillConfig, "distill", settings, steps=steps, shared_lr=lr, seed=seed)
    trackers = names(report_to, "--report-to")
    if (teachers is None) == (instruction is None):
        got = "both" if teachers else "neither"
        raise UsageError(f"distill wants --teachers, or --instruction with --rows; got {got}")
    if instruction is not None:
        written = written_instruction(instruction, out, rows, text, words, tasks)
        distill_written(written, config, out, lambda: load(backbone, changes), trackers)
        return
    if given := [name for name, value in (("--rows", rows), ("--text", text), ("--words", words)) if value is not None]:
        raise UsageError(f"{given[0]} belongs to --instruction; teachers have rows of their own")
    assert teachers is not None
    from mptune.prompts.stored import prompt_folders

    folders = prompt_folders(teachers)  # never a name of the hub
    chosen = named_tasks(tasks, "--tasks")
    from mptune import distill
    from mptune.prompts.folder import rows_of
    from mptune.prompts.prompt import load_prompts
    from mptune.stages.run import try_out

    prompts = load_prompts(teachers)
    read = rows_of(folders, chosen, data)
    try_out(out)
    model = load(backbone, changes, prompts[0], folders[0])
    say_saved(out, distill(read, prompts, model, config, out=out, report_to=trackers))


def adapt_prompt(
    task: Annotated[str, option("Target task; several, separated by commas, share one prompt.", "NAMES")],
    out: Annotated[Path, option("Folder of the target prompt.", "DIR")],
    source: Annotated[
        Text,
        option("Multitask prompt: folder or hub repository; without it, one that comes along.", "PROMPT", "--from"),
    ] = None,
    shots: ShotsOption = None,
    steps: StepsOption = None,
    lr: Annotated[Rate, rate("Learning rate of the shared prompt, in units of the embeddings' RMS.")] = None,
    seed: SeedOption = None,
    seeds: Annotated[Number, option("Adapt so many times side by side, each into DIR/seed-N.", min=1, max=10)] = None,
    backbone: BackboneOption = None,
    data: DataOption = None,
    alone: Annotated[bool, option("Adapt only: no scores of simple rivals beside it.", name="--alone")] = False,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:
    """Stage 3: adapt a multitask prompt to a target task, and show what it is worth."""
    from mptune import AdaptConfig
    from mptune.prompts.shipped import shipped_for

    if seed is not None and seeds is not None:
        raise UsageError("adapt wants --seed N for one seed, or --seeds N for the first N seeds; got both")
    config, changes = configured(AdaptConfig, "adapt", settings, shots=shots, steps=steps, shared_lr=lr, seed=seed)
    trackers = names(report_to, "--report-to")
    tasks = named_tasks(task, "--task")
    chosen = source or shipped_for(changes.get("name", backbone))
    prompt = open_prompt(chosen)
    from mptune.stages.adaptation import Target
    from mptune.stages.ensemble import adapt_by_all_rows
    from mptune.stages.run import first_process, try_out
    from mptune.tasks.data import TaskRows

    rows = TaskRows.checked(tasks, data)
    targets = [Target(rows, config, out)] if seeds is None else Target.of_seeds(rows, config, out, seeds)
    for target in targets:
        try_out(target.out or out)
    model = load(backbone, changes, prompt, chosen)
    for target, adapted in zip(targets, adapt_by_all_rows(prompt, targets, model, report_to=trackers), strict=True):
        say_saved(target.out, adapted)
        for each in rows if seeds is None and not alone else ():
            _say_worth(adapted, prompt, each, model, config)
    if seeds is None and first_process():
        say(f"To answer rows: mptune predict new.csv --prompt {out} --output answers.csv", err=True)


def _say_worth(
    adapted: "MultitaskPrompt", source: "MultitaskPrompt", rows: "TaskRows", model: "Backbone", config: "AdaptConfig"
) -> None:
    """Print an adapted prompt's score on rows it has not seen, beside those of what is simpler."""
    from mptune.comparison.worth import worth
    from mptune.stages.run import first_process

    if not first_process():
        return
    found = worth(adapted, source, rows, model, config)
    if found is None:
        held = rows.task.dataset is not None and rows.task.dataset.split == "held-out"
        why = "its classes are too small to hold any out" if held else "`split: held-out` under dataset holds some out"
        say(f"{rows.name}: no row is left to score it on that it has not learnt from; {why}", err=True)
        return
    table([f"{found.task}, {found.rows} {found.place}", found.metric], [[n, f"{v:.1f}"] for n, v in found.scores])
    if found.advice:
        say(f"{found.task}: {found.advice}", err=True)


def evaluate_prompt(
    prompt: Annotated[
        # By name, here and in `predict`: typer 0.27 takes a metavar of the same letters for the option itself.
        Text,
        option("Prompt, folder of prompts, or hub repository; the bare backbone without it.", "PROMPT", "--prompt"),
    ] = None,
    task: Annotated[Text, option("Tasks to score; the prompt's without it.", "NAMES")] = None,
    split: Annotated[str, option("validation, test or train.")] = "validation",
    classes: Annotated[bool, option("Recall, precision and answers of each label too.", name="--classes")] = False,
    as_json: Annotated[bool, option("One JSON object per score.", name="--json")] = False,
    backbone: BackboneOption = None,
    data: DataOption = None,
    settings: SetOption = None,
) -> None:  # fmt: skip
    """Score a prompt, or every prompt of a folder, on a split of its task."""
    from mptune import EvaluateConfig
    from mptune.prompts.stored import prompt_folders
    from mptune.tasks.task import SPLITS

    part = one_of("split", split, SPLITS)
    if prompt is None and task is None:
        raise UsageError("evaluate wants --prompt, or --task to score the bare backbone; got neither")
    config, changes = configured(EvaluateConfig, "evaluate", settings)
    chosen = named_tasks(task, "--task")
    places: list[str | None] = [prompt]
    if prompt and Path(prompt).is_dir():
        places = list(map(str, prompt_folders(prompt)))
    loaded = [open_prompt(place) if place else None for place in places]
    from mptune.answers.evaluation import evaluate_classes
    from mptune.prompts.folder import rows_of

    read = [rows_of([Path(place)] if place else [], chosen, data) for place in places]
    model = load(backbone, changes, loaded[0], places[0])
    found = [
        Scored(Path(place or "").name, rows.name, *evaluate_classes(one, rows, model, part, config))
        for place, one, of_prompt in zip(places, loaded, read, strict=True)
        for rows in of_prompt
    ]
    say_scores = _say_json if as_json else _say_tables
    say_scores(found, len(places) > 1, part if classes else None)


class Scored(NamedTuple):
    """What a prompt of some name scored on one task."""

    prompt: str
    task: str
    scores: "Sequence[Score]"
    labels: "Sequence[ClassScore]"


def _say_json(found: "Sequence[Scored]", several: bool, split: str | None) -> None:
    """Print scores as JSON; those of labels too, where their split is named."""
    for each in found:
        of = {"prompt": each.prompt} if several else {}
        for score in each.scores:
            say_json({**of, **score.as_dict()})
        for label in each.labels if split else ():
            say_json({**of, "task": each.task, "split": split, **label.as_dict()})


def _say_tables(found: "Sequence[Scored]", several: bool, split: str | None) -> None:
    """Print scores as a table; then one of the labels of each task, where their split is named."""
    head = ["prompt", "task", "split", "metric", "score", "examples"]
    lines = [[each.prompt, s.task, s.split, s.metric, f"{s.value:.1f}", s.examples]
             for each in found for s in each.scores]  # fmt: skip
    first = 0 if several else 1
    table(head[first:], [line[first:] for line in lines])
    for each in found if split else ():
        _say_classes(f"{each.prompt} {each.task}" if several else each.task, each.labels)


def _say_classes(task: str, labels: "Sequence[ClassScore]") -> None:
    """Print recall, precision and rows of each label, and of few labels what their rows were given."""
    words = [label.word for label in labels]
    shown = [*words, "no label"] if len(words) <= MOST_LABELS else []
    table([task, "recall", "precision", "rows", *(f"given {word}" for word in shown)],
          [[label.word, *("–" if share is None else f"{share:.1f}" for share in (label.recall, label.precision)),
            label.rows, *label.given[: len(shown)]] for label in labels])  # fmt: skip
