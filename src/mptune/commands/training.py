"""The three stages: teach, distill, adapt."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    number,
    open_prompt,
    option,
    rate,
    say_saved,
)
from mptune.errors import UsageError
from mptune.progress import trainings
from mptune.terminal import loading, say, table

if TYPE_CHECKING:
    from mptune import AdaptConfig, Backbone, MultitaskPrompt, TaskRows


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
    with loading():  # the libraries, which takes seconds
        from mptune import teach
        from mptune.stages.run import try_out
        from mptune.tasks.data import TaskRows

    read = TaskRows.checked(chosen, data)
    finished = [try_out(out / rows.name, "teach", config) for rows in read]
    model = load(backbone, changes)
    with trainings(finished.count(False)):
        for rows, done in zip(read, finished, strict=True):
            prompt = teach(rows, model, config, out=out / rows.name, report_to=trackers)
            say_saved(out / rows.name, prompt, finished=done)


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
    with loading():
        from mptune import distill
        from mptune.prompts.folder import rows_of
        from mptune.prompts.prompt import load_prompts
        from mptune.stages.run import try_out

    prompts = load_prompts(teachers)
    read = rows_of(folders, chosen, data)
    finished = try_out(out, "distill", config)
    model = load(backbone, changes, prompts[0], folders[0])
    prompt = distill(read, prompts, model, config, out=out, report_to=trackers)
    say_saved(out, prompt, finished=finished)


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
    seeds: Annotated[Number, number("Adapt 1 to 10 times side by side, each into DIR/seed-N.", ge=1, le=10)] = None,
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
    finished = [try_out(target.out or out, "adapt", target.config) for target in targets]
    model = load(backbone, changes, prompt, chosen)
    made = adapt_by_all_rows(prompt, targets, model, report_to=trackers)
    for target, adapted, done in zip(targets, made, finished, strict=True):
        say_saved(target.out, adapted, finished=done)
        for each in rows if seeds is None and not alone else ():
            _say_worth(adapted, prompt, each, model, config)
    if seeds is None and first_process():
        start = ", with the start all the same" if made[0].card.untrained or made[0].card.kept_start else ""
        say(f"To answer rows{start}: mptune predict new.csv --prompt {out} --output answers.csv", err=True)


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
