"""`mptune` on the command line. Commands parse, call one function, print; nothing is decided here.

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 wrong data, 130 interrupted. Heavy modules are imported
inside the commands, so that --help is instant; environment variables are read here and in `mptune.embedded` only.
"""

import json
import logging
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from mptune import __version__
from mptune.errors import ArtifactError, DataError, MptuneError, UsageError

if TYPE_CHECKING:
    from mptune.backbone import FrozenBackbone
    from mptune.config import BackboneConfig
    from mptune.tasks import Task

INTERRUPTED = 130

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Multitask prompt tuning: one soft prompt from many source tasks, adapted to yours with a few examples.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 wrong data, 130 interrupted.",
)

Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Hugging Face id or folder of the frozen model; the prompt's own, or `embedded`, without it.",
        metavar="ID",
    ),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with local rows of hub tasks, <task>.<split>.jsonl[.gz].", metavar="DIR"),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="A field of a stage that this command runs, as distill.temperature=2; repeatable.",
                 metavar="STAGE.FIELD=VALUE"),
]  # fmt: skip
Trackers = Annotated[
    str | None, typer.Option("--report-to", help="Trackers by name: tensorboard,wandb,trackio,mlflow.", metavar="NAMES")
]
Seed = Annotated[int | None, typer.Option(help="Decides initialisation, order and few-shot rows.", min=0)]
Shots = Annotated[
    int | None, typer.Option(help="Training examples per class, and as many for validation; all without it.", min=1)
]


@app.callback(invoke_without_command=True)
def main_options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    """Multitask prompt tuning: one soft prompt from many source tasks, adapted to yours with a few examples."""
    from mptune.speed import keep_pages

    if version:
        _say(f"mptune {__version__}")
        raise typer.Exit
    keep_pages()  # before any command takes memory


@app.command()
def teach(
    tasks: Annotated[str, typer.Option(help="Built-in names and YAML files, separated by commas.", metavar="NAMES")],
    out: Annotated[Path, typer.Option(help="Folder for one teacher prompt per task.", metavar="DIR")],
    backbone: Backbone = None,
    shots: Shots = None,
    seed: Seed = None,
    data: Data = None,
    settings: Settings = None,
    report_to: Trackers = None,
) -> None:
    """Stage 1: train one teacher prompt per source task (also plain prompt tuning)."""
    from mptune.config import TeachConfig
    from mptune.data import load_data
    from mptune.stages.teachers import teach as train
    from mptune.tasks import get_tasks

    sections = _sections(settings, "teach", "backbone", few={"teach": {"shots": shots, "seed": seed}})
    config = TeachConfig.read(sections["teach"], "teach")
    trackers = _names(report_to, "--report-to")
    chosen = get_tasks(_names(tasks, "--tasks"))
    for task in chosen:  # what is wrong with any of them is said before the first is trained
        load_data(task, ("train", "validation"), data)
    model = _load(_backbone_config(backbone, sections["backbone"]))
    for task in chosen:
        prompt = train(task, model, config, out=out / task.name, data_dir=data, report_to=trackers)
        _report(out / task.name, prompt.card.scores)


@app.command()
def distill(
    teachers: Annotated[Path, typer.Option(help="Folder of teacher prompts, as `teach` made it.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Folder of the multitask prompt.", metavar="DIR")],
    tasks: Annotated[
        str | None, typer.Option(help="Source tasks; those of the teachers without it.", metavar="NAMES")
    ] = None,
    backbone: Backbone = None,
    seed: Seed = None,
    data: Data = None,
    settings: Settings = None,
    report_to: Trackers = None,
) -> None:
    """Stage 2, source training: distil teachers into one multitask prompt."""
    from mptune.artifacts import MultitaskPrompt, prompt_folders
    from mptune.config import DistillConfig
    from mptune.stages.distillation import distill as train

    sections = _sections(settings, "distill", "backbone", few={"distill": {"seed": seed}})
    config = DistillConfig.read(sections["distill"], "distill")
    folders = prompt_folders(teachers)
    prompts = [MultitaskPrompt.from_pretrained(folder) for folder in folders]
    trackers = _names(report_to, "--report-to")
    chosen, stored_data = _tasks_of(folders, tasks, "--tasks")
    model = _load(_backbone_config(backbone, sections["backbone"], folders[0]))
    prompt = train(chosen, prompts, model, config, out=out, data_dir=data or stored_data, report_to=trackers)
    _report(out, prompt.card.scores)


@app.command()
def adapt(
    source: Annotated[
        str, typer.Option("--from", help="Multitask prompt: folder or hub repository.", metavar="PROMPT")
    ],
    task: Annotated[
        str, typer.Option(help="Target task; several, separated by commas, share one prompt.", metavar="NAMES")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the target prompt.", metavar="DIR")],
    shots: Shots = None,
    seed: Seed = None,
    seeds: Annotated[
        int | None, typer.Option(help="Adapt so many times side by side, each into DIR/seed-N.", min=1, max=10)
    ] = None,
    backbone: Backbone = None,
    data: Data = None,
    settings: Settings = None,
    report_to: Trackers = None,
) -> None:
    """Stage 3: adapt a multitask prompt to a target task."""
    from mptune.artifacts import MultitaskPrompt
    from mptune.config import PUBLISHED_SEEDS, AdaptConfig
    from mptune.data import load_data
    from mptune.stages.adaptation import Target, adapt_together
    from mptune.tasks import get_tasks

    if seed is not None and seeds is not None:
        raise UsageError("adapt wants --seed N for one seed, or --seeds N for the first N seeds; got both")

    sections = _sections(settings, "adapt", "backbone", few={"adapt": {"shots": shots, "seed": seed}})
    config = AdaptConfig.read(sections["adapt"], "adapt")
    trackers = _names(report_to, "--report-to")
    chosen = get_tasks(_names(task, "--task"))
    prompt = MultitaskPrompt.from_pretrained(source)
    for one in chosen:
        load_data(one, ("train", "validation"), data)
    model = _load(_backbone_config(backbone, sections["backbone"], Path(source), prompt.backbone_config))
    targets = [Target(tuple(chosen), config, out)]
    if seeds is not None:
        several = [(n, config.model_copy(update={"seed": n})) for n in PUBLISHED_SEEDS[:seeds]]
        targets = [Target(tuple(chosen), own, out / f"seed-{n}") for n, own in several]
    made = adapt_together(prompt, targets, model, data_dir=data, report_to=trackers)
    for target, adapted in zip(targets, made, strict=True):
        _report(target.out or out, adapted.card.scores)


@app.command()
def evaluate(
    prompt: Annotated[
        # By name, here and in `predict`: typer 0.27 takes a metavar of the same letters for the option itself.
        str | None,
        typer.Option("--prompt", help="Prompt: folder or hub repository; the bare backbone without it.",
                     metavar="PROMPT"),
    ] = None,
    task: Annotated[str | None, typer.Option(help="Tasks to score; the prompt's without it.", metavar="NAMES")] = None,
    split: Annotated[str, typer.Option(help="validation, test or train.")] = "validation",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per score.")] = False,
    backbone: Backbone = None,
    data: Data = None,
    settings: Settings = None,
) -> None:  # fmt: skip
    """Score a prompt on a split of its task."""
    from mptune.artifacts import MultitaskPrompt
    from mptune.config import EvaluateConfig
    from mptune.errors import UnknownNameError
    from mptune.evaluation import evaluate as score
    from mptune.tasks import SPLITS

    if split not in SPLITS:
        raise UnknownNameError("split", split, SPLITS)
    if prompt is None and task is None:
        raise UsageError("evaluate wants --prompt, or --task to score the bare backbone; got neither")
    sections = _sections(settings, "evaluate", "backbone")
    config = EvaluateConfig.read(sections["evaluate"], "evaluate")
    loaded = MultitaskPrompt.from_pretrained(prompt) if prompt else None
    folder = Path(prompt) if prompt else None
    chosen, stored_data = _tasks_of([folder] if folder else [], task, "--task")
    model = _load(_backbone_config(backbone, sections["backbone"], folder, loaded.backbone_config if loaded else None))
    lines = []
    for one in chosen:
        lines += score(loaded, one, model, split=split, config=config, data_dir=data or stored_data)
    if as_json:
        for line in lines:
            _say(json.dumps(line.as_dict()))
    else:
        _table(["task", "split", "metric", "score", "examples"],
               [[s.task, s.split, s.metric, f"{s.value:.1f}", str(s.examples)] for s in lines])  # fmt: skip


@app.command()
def predict(
    prompt: Annotated[
        str, typer.Option("--prompt", help="Prompt folder, folder of prompts, or hub repository.", metavar="PROMPT")
    ],
    input_file: Annotated[
        Path | None, typer.Option("--input", help="Rows as JSON lines; standard input without it.", metavar="FILE")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Answers as JSON lines; standard output without it.", metavar="FILE")
    ] = None,
    backbone: Backbone = None,
    settings: Settings = None,
) -> None:
    """Answer rows: JSON lines in, JSON lines out."""
    from mptune.config import EvaluateConfig
    from mptune.files import write_file
    from mptune.prediction import Predictor

    sections = _sections(settings, "evaluate", "backbone")
    config = EvaluateConfig.read(sections["evaluate"], "evaluate")
    if output is not None:
        _writable(output)  # before the work, not after it
    rows = _read_rows(input_file)
    model = _load(_backbone_config(backbone, sections["backbone"])) if backbone or sections["backbone"] else None
    with _quiet_loading():
        predictor = Predictor.from_pretrained(prompt, model, config)
    lines = [json.dumps(p.as_dict(), ensure_ascii=False) for p in predictor.predict(rows)]
    if output is not None:
        write_file(output, "".join(line + "\n" for line in lines))
    else:
        for line in lines:
            _say(line)


@app.command()
def bench(
    recipe: Annotated[Path, typer.Argument(help="A recipe's YAML file.")],
    out: Annotated[Path | None, typer.Option(help="In place of the recipe's folder.", metavar="DIR")] = None,
    only: Annotated[
        str | None, typer.Option(help="Only these methods and targets of the recipe.", metavar="METHOD,TASK")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what it will take here, from a short measurement, and stop.")
    ] = False,
    settings: Settings = None,
) -> None:
    """A whole comparison from one file: sources, methods, targets, seeds. What is finished is not done again."""
    from mptune.bench import run_recipe
    from mptune.config import parse_overrides
    from mptune.plan import planned
    from mptune.progress import board
    from mptune.recipes import Loaded
    from mptune.results import TABLE

    loaded = Loaded.from_file(recipe, parse_overrides(settings or []))
    if plan:
        expected = planned(loaded, out, only=_names(only, "--only"), say=lambda text: _say(text, err=True))
        _table(*expected.table())
        _say(expected.summary())
        return
    with board(loaded.recipe.name) as shown:
        folder = run_recipe(loaded, out, only=_names(only, "--only"), watch=shown.show)
    _say((folder / TABLE).read_text(encoding="utf-8"))
    _say(f"Written to {folder / TABLE}", err=True)


@app.command()
def report(
    run_dir: Annotated[Path, typer.Argument(help="Folder with results.jsonl, as `bench` wrote it.", metavar="RUN_DIR")],
    out: Annotated[
        Path | None, typer.Option(help="The page's file; report.html in the folder without it.", metavar="FILE")
    ] = None,
) -> None:
    """Write a run's results as one HTML page: verdict, scores, curves, similarities, alarms."""
    from mptune.reports import write_report

    file = out or run_dir / "report.html"
    for headline in write_report(run_dir, file):
        _say(headline)
    _say(f"Written to {file}", err=True)


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Show one task in full: a name, NAME@paper, or a YAML file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per task.")] = False,
) -> None:
    """List the built-in tasks, or show one."""
    from mptune.tasks import builtin_tasks, get_task

    chosen = [get_task(name)] if name else list(builtin_tasks().values())
    if as_json:
        for task in chosen:
            _say(task.model_dump_json(exclude_none=True))
    elif name:
        _table(["field", "value"], [[k, _short(v)] for k, v in chosen[0].model_dump(exclude_none=True).items() if v])
    else:
        _table(
            ["task", "labels", "metric", "what it asks"],
            [[t.name, ", ".join(t.label_words) or "free text", t.metrics[0], t.description] for t in chosen],
        )
        _say("A public data set under the paper's protocol is NAME@paper, wherever a task is named.", err=True)


@app.command()
def show(
    prompt: Annotated[str, typer.Argument(help="Prompt: folder or hub repository.")],
    as_json: Annotated[bool, typer.Option("--json", help="The card as JSON.")] = False,
) -> None:
    """Show a prompt's card: what it is for, which model it fits, what it scored."""
    from mptune.artifacts import MultitaskPrompt

    loaded = MultitaskPrompt.from_pretrained(prompt)
    if as_json:
        _say(loaded.card.model_dump_json(exclude_none=True, indent=2))
        return
    card = loaded.card
    _table(["", ""], [
        ["stage", card.stage],
        ["tasks", ", ".join(t.name for t in card.tasks)],
        ["backbone", f"{card.backbone}{'@' + card.revision if card.revision else ''} ({card.fingerprint[:12]})"],
        ["prompt", f"{loaded.prompt_length} soft tokens, rank {loaded.rank}, width {loaded.shared.shape[1]}"],
        ["numbers", f"{sum(p.numel() for p in loaded.parameters()):,}"],
        ["seed", str(card.seeds.get("seed", "unknown"))],
        *([["sources", ", ".join(card.sources)]] if card.sources else []),
        *[[f"{s['task']} {s['split']} {s['metric']}", f"{s['value']:.1f}, {s['examples']} rows"] for s in card.scores],
        ["versions", ", ".join(f"{k} {v}" for k, v in card.versions.items())],
    ])  # fmt: skip


@app.command(name="export")
def export_prompt(
    prompt: Annotated[str, typer.Argument(help="Prompt: folder or hub repository.")],
    to: Annotated[str, typer.Option(help="peft (multitask) or prompt-tuning (one task, collapsed).")],
    out: Annotated[Path, typer.Option(help="Folder of the adapter.", metavar="DIR")],
    task: Annotated[str | None, typer.Option(help="The task, where a prompt has several.", metavar="NAME")] = None,
    backbone: Backbone = None,
) -> None:
    """Write a prompt as an adapter that PEFT opens."""
    from mptune.artifacts import MultitaskPrompt
    from mptune.errors import UnknownNameError
    from mptune.interop import export_peft

    if to not in ("peft", "prompt-tuning"):
        raise UnknownNameError("format", to, ("peft", "prompt-tuning"))
    loaded = MultitaskPrompt.from_pretrained(prompt)
    model = _load(_backbone_config(backbone, {}, Path(prompt), loaded.backbone_config))
    loaded.check_backbone(model)
    export_peft(loaded, out, to, backbone_is_encoder_decoder=model.is_encoder_decoder, task=task)  # type: ignore[arg-type]
    _say(f"{out}: an adapter for peft's PeftModel.from_pretrained")


@app.command(name="import")
def import_prompt(
    folder: Annotated[Path, typer.Argument(help="Folder of a PEFT adapter: multitask or plain prompt tuning.")],
    out: Annotated[Path, typer.Option(help="Folder of the prompt.", metavar="DIR")],
    tasks: Annotated[str | None, typer.Option(help="Its tasks, in the adapter's order.", metavar="NAMES")] = None,
    backbone: Backbone = None,
) -> None:
    """Read a PEFT adapter as a prompt."""
    from mptune.interop import import_peft
    from mptune.tasks import get_tasks

    chosen = get_tasks(_names(tasks, "--tasks"))
    if out.exists():
        raise ArtifactError(f"{out} exists already; remove it or choose another name")
    prompt = import_peft(folder, backbone=_load(_backbone_config(backbone, {})), tasks=chosen)
    prompt.save_pretrained(out)
    _say(f"{out}: {', '.join(t.name for t in prompt.tasks)}")


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per check.")] = False,
) -> None:
    """Check this environment, and say how to mend what is wrong."""
    from mptune.doctor import examine

    found = examine()
    if as_json:
        for check in found:
            _say(json.dumps(vars(check)))
    else:
        _table(["", "check", "found", "what to do"], [[c.state, c.name, c.found, c.fix] for c in found])
    if any(check.state == "fail" for check in found):
        raise typer.Exit(1)


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="task or recipe.")] = "recipe",
) -> None:
    """Print the JSON Schema of task or recipe files: every field with unit, default, reason and range."""
    from mptune.config import Config
    from mptune.errors import UnknownNameError
    from mptune.recipes import Recipe
    from mptune.tasks import Task

    models: dict[str, type[Config]] = {"task": Task, "recipe": Recipe}
    if what not in models:
        raise UnknownNameError("schema", what, models)
    _say(json.dumps(models[what].model_json_schema(), indent=2))


# -- parsing ----------------------------------------------------------------------------------------------------------


def _names(text: str | None, option: str) -> list[str]:
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise UsageError(f"{option} wants one name or more, with commas between; got {text!r}")
    return names


def _sections(
    settings: Sequence[str] | None, *allowed: str, few: dict[str, dict[str, Any]] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the --set values of the sections a command reads; its own options stand for fields too."""
    from mptune.config import parse_overrides

    values = parse_overrides(list(settings or []))
    foreign = [section for section in values if section not in allowed]
    if foreign:
        raise UsageError(f"--set {foreign[0]}.… has no effect here; this command reads {', '.join(allowed)}")
    found = {section: values.get(section, {}) for section in allowed}
    for section, options in (few or {}).items():
        found[section] |= {key: value for key, value in options.items() if value is not None}
    return found


def _backbone_config(
    name: str | None, values: dict[str, Any], folder: Path | None = None, card_says: "BackboneConfig | None" = None
) -> "BackboneConfig":
    """Return the backbone to load: as named here, else as saved beside the prompt, else as its card says."""
    from mptune.artifacts import stored_config
    from mptune.config import BackboneConfig

    stored = stored_config(folder).get("backbone", {}) if folder is not None and folder.is_dir() else {}
    base = {"name": name} if name else stored or (card_says.model_dump() if card_says else {})
    return BackboneConfig.read({**base, **values}, "backbone")


def _tasks_of(folders: Sequence[Path], names: str | None, option: str) -> tuple[list["Task"], Path | None]:
    """Return the tasks that are named, else those saved beside the prompts, and where their hub rows were read from."""
    from mptune.artifacts import CONFIG, stored_config
    from mptune.tasks import Task, get_tasks

    stored = [stored_config(folder) for folder in folders]
    data_dir = next((Path(s["data_dir"]) for s in stored if s.get("data_dir")), None)
    if names is not None:
        return get_tasks(_names(names, option)), data_dir
    found = [
        Task.read(values, f"{folder}/{CONFIG}")
        for folder, s in zip(folders, stored, strict=True)
        for values in s.get("tasks", [])
    ]
    if not found:
        place = ", ".join(map(str, folders))
        raise UsageError(f"{place} does not say where its data is; name the task: --task FILE.yaml, or a built-in name")
    return found, data_dir


def _read_rows(file: Path | None) -> list[dict[str, Any]]:
    from mptune.files import parsed

    try:
        text = sys.stdin.read() if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"{file or 'standard input'} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    rows: list[dict[str, Any]] = []
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = parsed(line)
        except json.JSONDecodeError:
            problems.append(f"line {number} is not JSON: {line[:60]!r}")
            continue
        except ValueError as error:
            problems.append(f"line {number}: {error}")
            continue
        if isinstance(row, dict):
            rows.append(row)
        else:
            problems.append(f"line {number} is no JSON object: {line[:60]!r}")
    if problems:
        raise DataError(file.name if file else "standard input", problems)
    return rows


def _writable(file: Path) -> None:
    if not file.parent.is_dir():
        raise UsageError(f"there is no folder {file.parent} for --output {file.name}; make it first")


# -- loading and printing ---------------------------------------------------------------------------------------------


def _load(config: "BackboneConfig") -> "FrozenBackbone":
    from mptune.backbone import load_backbone

    with _quiet_loading():
        return load_backbone(config)


def _quiet_loading() -> Any:
    """Show that something happens while a model loads."""
    from rich.console import Console

    console = Console(stderr=True)
    return console.status("loading the backbone") if console.is_terminal else nullcontext()


def _say(text: str, *, err: bool = False) -> None:
    typer.echo(text, err=err)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print columns: a rich table on a terminal, tab-separated lines elsewhere, for other programs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        for row in ([head] if any(head) else []) + list(rows):
            _say("\t".join(row))
        return
    table = Table(box=box.SIMPLE, show_header=any(head))
    for name in head:
        table.add_column(name, overflow="fold")  # a narrow terminal breaks words, and hides none
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _report(folder: Path, scores: Sequence[dict[str, Any]]) -> None:
    from mptune.runs import first_process

    if not first_process():
        return
    found = ", ".join(f"{s['task']} {s['metric']} {s['value']:.1f}" for s in scores)
    _say(f"{folder}: {found} on validation rows" if found else f"{folder}: the last state; nothing was validated")


def _short(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value)


def main() -> NoReturn:
    """Run the command line. Our errors and the file system's are a line or two; all else is a bug and shows itself."""
    logging.basicConfig(format="mptune: %(message)s", level=logging.WARNING)
    try:
        code = app(prog_name="mptune", standalone_mode=False)
        if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code by itself
            raise KeyboardInterrupt
    except MptuneError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(_of_system(error), MptuneError.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted; the same command goes on where it stopped", INTERRUPTED)
    except Exception as error:
        # Wrong usage comes as an exception of the parser that typer carries, with its own message and exit code.
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            error.show()
            sys.exit(int(error.exit_code))
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _of_system(error: OSError) -> str:
    """Return what the operating system refused, and where: a full disk, a folder that may not be written."""
    where = f"{error.filename}: " if error.filename else ""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{where}{reason}. Mend that, or name another place; what is finished stays."


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"mptune: {message}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
