"""`mptune` on the command line. A command parses, calls one function, prints; nothing is decided here.

Heavy modules are imported inside the commands, so that --help is instant.

No environment variable is read here, since the package must work without this file. Those that are have one place each:
`model.embedded` reads MPTUNE_CACHE and XDG_CACHE_HOME; `model.loading` reads LOCAL_RANK, and `stages.run` WORLD_SIZE
and RANK, as torchrun and `accelerate launch` set them; `doctor` reads HF_HUB_OFFLINE. Where they are not set,
`model.memory` sets ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY.
"""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from mptune import __version__
from mptune.errors import UsageError, one_of
from mptune.terminal import Once, ShownHandler, at_home, board, ended, loading, saved, say, say_json, table

if TYPE_CHECKING:
    from mptune import Backbone, MultitaskPrompt, Task
    from mptune.config import Config

Stage = TypeVar("Stage", bound="Config")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done; 1 failed, though nothing given was wrong; 2 wrong usage or configuration, or a path "
    "that leads nowhere; 3 wrong content of data, prompts, models or results; 130 interrupted.",
)


def _option(text: str, metavar: str | None = None, name: str = "", **limits: Any) -> Any:
    """Return an option, called as its parameter where it has no other name; shells leave ``--out=~/x`` as it is."""
    return typer.Option(*([name] if name else []), help=text, metavar=metavar, callback=at_home, **limits)


# Options that may be left out.
Text = str | None
File = Path | None
Number = int | None
BackboneOption = Annotated[
    Text,
    _option("Hugging Face id or folder of the frozen model; the prompt's own, or `embedded`, without it.", "ID",
            "--backbone"),
]  # fmt: skip
DataOption = Annotated[
    File,
    _option("Folder with local rows of hub tasks, <task>.<split>.jsonl[.gz].", "DIR", "--data", exists=True),
]
SetOption = Annotated[
    list[str] | None,
    _option("A field of a stage that this command runs, as distill.temperature=2; repeatable.", "STAGE.FIELD=VALUE",
            "--set"),
]  # fmt: skip
TrackersOption = Annotated[Text, _option("Trackers by name: tensorboard,wandb,trackio,mlflow.", "NAMES", "--report-to")]
SeedOption = Annotated[Number, _option("Decides initialisation, order and few-shot rows.", min=0)]
ShotsOption = Annotated[Number, _option("Training examples per class; all without it.", min=1)]
PromptArgument = Annotated[str, typer.Argument(help="Prompt: folder or hub repository.")]


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, _option("Show the version and exit.", name="--version")] = False) -> None:
    """Multitask prompt tuning: one soft prompt from many source tasks, adapted to yours with a few examples."""
    from mptune.model.memory import keep_few_kernels, keep_pages

    if version:
        say(f"mptune {__version__}")
        raise typer.Exit
    keep_pages()  # before any command takes memory
    keep_few_kernels()


@app.command("teach", cls=Once)
def teach_tasks(
    tasks: Annotated[str, _option("Built-in names and YAML files, separated by commas.", "NAMES")],
    out: Annotated[Path, _option("Folder for one teacher prompt per task.", "DIR")],
    backbone: BackboneOption = None,
    shots: ShotsOption = None,
    seed: SeedOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:
    """Stage 1: train one teacher prompt per source task (also plain prompt tuning)."""
    from mptune import TeachConfig, teach
    from mptune.stages.run import try_out
    from mptune.tasks.data import TaskRows

    config, changes = _configured(TeachConfig, "teach", settings, shots=shots, seed=seed)
    trackers = _names(report_to, "--report-to")
    read = TaskRows.checked(_tasks(tasks, "--tasks"), data)
    for rows in read:
        try_out(out / rows.name)
    model = _load(backbone, changes)
    for rows in read:
        _say_saved(out / rows.name, teach(rows, model, config, out=out / rows.name, report_to=trackers))


@app.command("distill", cls=Once)
def distill_teachers(
    teachers: Annotated[Path, _option("Folder of teacher prompts, as `teach` made it.", "DIR")],
    out: Annotated[Path, _option("Folder of the multitask prompt.", "DIR")],
    tasks: Annotated[Text, _option("Source tasks; those of the teachers without it.", "NAMES")] = None,
    backbone: BackboneOption = None,
    seed: SeedOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:
    """Stage 2, source training: distil teachers into one multitask prompt."""
    from mptune import DistillConfig, distill
    from mptune.prompts.folder import prompt_folders, rows_of
    from mptune.prompts.prompt import load_prompts
    from mptune.stages.run import try_out

    config, changes = _configured(DistillConfig, "distill", settings, seed=seed)
    folders = prompt_folders(teachers)  # never a name of the hub
    prompts = load_prompts(teachers)
    trackers = _names(report_to, "--report-to")
    rows = rows_of(folders, _tasks(tasks, "--tasks"), data)
    try_out(out)
    model = _load(backbone, changes, prompts[0], folders[0])
    _say_saved(out, distill(rows, prompts, model, config, out=out, report_to=trackers))


@app.command("adapt", cls=Once)
def adapt_prompt(
    task: Annotated[str, _option("Target task; several, separated by commas, share one prompt.", "NAMES")],
    out: Annotated[Path, _option("Folder of the target prompt.", "DIR")],
    source: Annotated[
        Text,
        _option("Multitask prompt: folder or hub repository; without it, one that comes along.", "PROMPT", "--from"),
    ] = None,
    shots: ShotsOption = None,
    seed: SeedOption = None,
    seeds: Annotated[Number, _option("Adapt so many times side by side, each into DIR/seed-N.", min=1, max=10)] = None,
    backbone: BackboneOption = None,
    data: DataOption = None,
    settings: SetOption = None,
    report_to: TrackersOption = None,
) -> None:
    """Stage 3: adapt a multitask prompt to a target task."""
    from mptune import AdaptConfig, MultitaskPrompt
    from mptune.prompts.shipped import shipped_for
    from mptune.stages.adaptation import Target
    from mptune.stages.ensemble import adapt_by_all_rows
    from mptune.stages.run import try_out
    from mptune.tasks.data import TaskRows

    if seed is not None and seeds is not None:
        raise UsageError("adapt wants --seed N for one seed, or --seeds N for the first N seeds; got both")
    config, changes = _configured(AdaptConfig, "adapt", settings, shots=shots, seed=seed)
    trackers = _names(report_to, "--report-to")
    tasks = _tasks(task, "--task")
    chosen = source or shipped_for(changes.get("name", backbone))
    prompt = MultitaskPrompt.from_pretrained(chosen)
    rows = TaskRows.checked(tasks, data)
    targets = [Target(rows, config, out)] if seeds is None else Target.of_seeds(rows, config, out, seeds)
    for target in targets:
        try_out(target.out or out)
    model = _load(backbone, changes, prompt, chosen)
    for target, adapted in zip(targets, adapt_by_all_rows(prompt, targets, model, report_to=trackers), strict=True):
        _say_saved(target.out, adapted)


@app.command("evaluate", cls=Once)
def evaluate_prompt(
    prompt: Annotated[
        # By name, here and in `predict`: typer 0.27 takes a metavar of the same letters for the option itself.
        Text,
        _option("Prompt: folder or hub repository; the bare backbone without it.", "PROMPT", "--prompt"),
    ] = None,
    task: Annotated[Text, _option("Tasks to score; the prompt's without it.", "NAMES")] = None,
    split: Annotated[str, _option("validation, test or train.")] = "validation",
    as_json: Annotated[bool, _option("One JSON object per score.", name="--json")] = False,
    backbone: BackboneOption = None,
    data: DataOption = None,
    settings: SetOption = None,
) -> None:  # fmt: skip
    """Score a prompt on a split of its task."""
    from mptune import EvaluateConfig, MultitaskPrompt, evaluate
    from mptune.prompts.folder import rows_of
    from mptune.tasks.task import SPLITS

    part = one_of("split", split, SPLITS)
    if prompt is None and task is None:
        raise UsageError("evaluate wants --prompt, or --task to score the bare backbone; got neither")
    config, changes = _configured(EvaluateConfig, "evaluate", settings)
    loaded = MultitaskPrompt.from_pretrained(prompt) if prompt else None
    read = rows_of([Path(prompt)] if prompt else [], _tasks(task, "--task"), data)
    model = _load(backbone, changes, loaded, prompt)
    scores = [score for rows in read for score in evaluate(loaded, rows, model, split=part, config=config)]
    if as_json:
        for score in scores:
            say_json(score.as_dict())
    else:
        table(["task", "split", "metric", "score", "examples"],
              [[s.task, s.split, s.metric, f"{s.value:.1f}", s.examples] for s in scores])  # fmt: skip


@app.command(cls=Once)
def predict(
    prompt: Annotated[str, _option("Prompt folder, folder of prompts, or hub repository.", "PROMPT", "--prompt")],
    input_file: Annotated[
        File,
        _option("Rows: jsonl, json, csv, parquet, .gz; JSON lines from standard input without it.", "FILE", "--input"),
    ] = None,
    output: Annotated[
        File, _option("Answers as JSON lines, gone on with after a kill; standard output without it.", "FILE")
    ] = None,
    backbone: BackboneOption = None,
    settings: SetOption = None,
) -> None:
    """Answer rows: JSON lines, CSV or Parquet in, JSON lines out."""
    from mptune import EvaluateConfig, Predictor
    from mptune.answers.streaming import answer_file, check_places
    from mptune.prompts.prompt import load_prompts

    config, changes = _configured(EvaluateConfig, "evaluate", settings)
    check_places(input_file, output)
    prompts = load_prompts(prompt)
    answer_file(Predictor(_load(backbone, changes, prompts[0], prompt), prompts, config), input_file, output)


@app.command(cls=Once)
def bench(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
    out: Annotated[File, _option("In place of the recipe's folder.", "DIR")] = None,
    only: Annotated[Text, _option("Only these methods and targets of the recipe.", "METHOD,TASK")] = None,
    plan: Annotated[
        bool, _option("Say what it will take here, from a short measurement, and stop.", name="--plan")
    ] = False,
    settings: SetOption = None,
) -> None:
    """A whole comparison from one file: sources, methods, targets, seeds. What is finished is not done again."""
    from mptune.comparison.bench import run_recipe
    from mptune.comparison.loaded import Loaded
    from mptune.comparison.methods import sections
    from mptune.comparison.plan import planned
    from mptune.comparison.results import TABLE
    from mptune.config import parse_overrides

    loaded = Loaded.from_file(recipe, parse_overrides(settings or [], sections()))
    if plan:
        expected = planned(loaded, out, only=_names(only, "--only"), say=lambda text: say(text, err=True))
        table(*expected.table())
        say(expected.summary())
        return
    with board(loaded.recipe.name) as shown:
        folder = run_recipe(loaded, out, only=_names(only, "--only"), watch=shown.show)
    say((folder / TABLE).read_text(encoding="utf-8"))
    say(f"Written to {folder / TABLE}", err=True)


@app.command(cls=Once)
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder with results.jsonl, as `bench` wrote it.", metavar="RUN_DIR")],
    out: Annotated[File, _option("The page's file; report.html in the folder without it.", "FILE")] = None,
) -> None:
    """Write a run's results as one HTML page: verdict, scores, curves, similarities, alarms."""
    from mptune.comparison.report import write_report

    file = out or run_dir / "report.html"
    for headline in write_report(run_dir, file):
        say(headline)
    say(f"Written to {file}", err=True)


@app.command(cls=Once)
def tasks(
    name: Annotated[Text, typer.Argument(help="Show one task in full: a name, NAME@paper, or a YAML file.")] = None,
    as_json: Annotated[bool, _option("One JSON object per task.", name="--json")] = False,
) -> None:
    """List the built-in tasks, or show one."""
    from mptune.tasks.registry import builtin_tasks, get_task

    chosen = [get_task(name)] if name else list(builtin_tasks().values())
    if as_json:
        say("\n".join(task.model_dump_json(exclude_none=True) for task in chosen))
    elif name:
        table(["field", "value"], [item for item in chosen[0].model_dump(exclude_none=True).items() if item[1]])
    else:
        table(
            ["task", "labels", "metric", "what it asks"],
            [[t.name, ", ".join(t.label_words) or "free text", t.metrics[0], t.description] for t in chosen],
        )
        say("A public data set under the paper's protocol is NAME@paper, wherever a task is named.", err=True)


@app.command(cls=Once)
def prompts(as_json: Annotated[bool, _option("One JSON object per prompt.", name="--json")] = False) -> None:
    """List the multitask prompts that come with the package, from which `adapt` starts."""
    from mptune.prompts.folder import shipped_prompts
    from mptune.prompts.prompt import MultitaskPrompt

    found = [(name, MultitaskPrompt.from_pretrained(name)) for name in shipped_prompts()]
    if as_json:
        for name, prompt in found:
            say_json({"name": name, "backbone": prompt.card.backbone, "prompt_length": prompt.prompt_length,
                      "tasks": [task.name for task in prompt.tasks]})  # fmt: skip
    else:
        rows = [[name, p.card.backbone, p.prompt_length, ", ".join(t.name for t in p.tasks)] for name, p in found]
        table(["prompt", "backbone", "soft tokens", "has seen"], rows)
        say("`mptune adapt` without --from starts from the one for its backbone.", err=True)


@app.command(cls=Once)
def show(
    prompt: PromptArgument,
    as_json: Annotated[bool, _option("The card as JSON.", name="--json")] = False,
) -> None:
    """Show a prompt's card: what it is for, which model it fits, what it scored."""
    from mptune import MultitaskPrompt
    from mptune.prompts.modelcard import card_rows

    loaded = MultitaskPrompt.from_pretrained(prompt)
    if as_json:
        say(loaded.card.model_dump_json(exclude_none=True, indent=2))
    else:
        table(["", ""], card_rows(loaded.card, loaded.prompt_length, loaded.rank, loaded.shared.shape[1]))


@app.command("export", cls=Once)
def export_prompt(
    prompt: PromptArgument,
    to: Annotated[str, _option("peft (multitask) or prompt-tuning (one task, collapsed).")],
    out: Annotated[Path, _option("Folder of the adapter.", "DIR")],
    task: Annotated[Text, _option("The task, where a prompt has several.", "NAME")] = None,
    backbone: BackboneOption = None,
) -> None:
    """Write a prompt as an adapter that PEFT opens."""
    from mptune import MultitaskPrompt
    from mptune.prompts.peft import ADAPTER_KINDS, export_peft

    kind = one_of("format", to, ADAPTER_KINDS)
    loaded = MultitaskPrompt.from_pretrained(prompt)
    export_peft(loaded, out, kind, backbone=_load(backbone, {}, loaded, prompt), task=task)
    say(f"{out}: an adapter for peft's PeftModel.from_pretrained")


@app.command("import", cls=Once)
def import_prompt(
    folder: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter: multitask or plain prompt tuning.")],
    out: Annotated[Path, _option("Folder of the prompt.", "DIR")],
    tasks: Annotated[Text, _option("Its tasks, in the adapter's order.", "NAMES")] = None,
    backbone: BackboneOption = None,
) -> None:
    """Read a PEFT adapter as a prompt."""
    from mptune.files import refuse_existing
    from mptune.prompts.peft import import_peft, refuse_foreign

    refuse_foreign(folder)
    chosen = _tasks(tasks, "--tasks")
    refuse_existing(out)
    prompt = import_peft(folder, backbone=_load(backbone, {}), tasks=chosen)
    prompt.save_pretrained(out)
    say(f"{out}: {', '.join(t.name for t in prompt.tasks)}")


@app.command(cls=Once)
def doctor(as_json: Annotated[bool, _option("One JSON object per check.", name="--json")] = False) -> None:
    """Check this environment, and say how to mend what is wrong."""
    from mptune.doctor import examine, healthy

    checks = examine()
    if as_json:
        say("\n".join(json.dumps(vars(check)) for check in checks))
    else:
        table(["", "check", "found", "what to do"], [[c.state, c.name, c.found, c.fix] for c in checks])
    raise typer.Exit(0 if healthy(checks) else 1)


@app.command(cls=Once)
def schema(what: Annotated[str, typer.Argument(help="task or recipe.")] = "recipe") -> None:
    """Print the JSON Schema of task or recipe files: every field with unit, default, reason and range."""
    from mptune import Task
    from mptune.comparison.recipe import recipe_model

    models: dict[str, type[Config]] = {"task": Task, "recipe": recipe_model()}
    say(json.dumps(models[one_of("schema", what, models)].model_json_schema(), indent=2))


def _names(text: str | None, option: str) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"{option} wants one name or more, with commas between; got {text!r}")
    return names


def _tasks(text: str | None, option: str) -> "list[Task]":
    from mptune.tasks.registry import get_tasks

    return get_tasks(_names(text, option))


def _configured(
    kind: type[Stage], stage: str, settings: list[str] | None, **options: Any
) -> tuple[Stage, dict[str, Any]]:
    """Return a stage's configuration, by --set and by options that are fields of it; and --set's of the backbone."""
    from mptune.comparison.methods import sections
    from mptune.config import parse_overrides

    values = parse_overrides(settings or [], sections())
    foreign = [section for section in values if section not in (stage, "backbone")]
    if foreign:
        raise UsageError(f"--set {foreign[0]}.… has no effect here; this command reads {stage}, backbone")
    given = {field: value for field, value in options.items() if value is not None}
    return kind.read({**values.get(stage, {}), **given}, stage), values.get("backbone", {})


def _load(
    name: str | None, changes: dict[str, Any], prompt: "MultitaskPrompt | None" = None, folder: str | Path | None = None
) -> "Backbone":
    from mptune import load_backbone
    from mptune.prompts.prompt import backbone_of

    with loading():
        return load_backbone(backbone_of(prompt, folder, name, changes))


def _say_saved(folder: Path | None, prompt: "MultitaskPrompt") -> None:
    from mptune.stages.run import first_process

    if folder is not None and first_process():
        card = prompt.card
        saved(folder, card.scores, kept_start=card.kept_start, stopped=card.stopped)


def main() -> NoReturn:
    """Run the command line."""
    logging.basicConfig(format="mptune: %(message)s", level=logging.WARNING, handlers=[ShownHandler()])
    ended(lambda: app(prog_name="mptune", standalone_mode=False))
