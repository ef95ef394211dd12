"""What several commands take, and how they read it."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from mptune.errors import UsageError
from mptune.terminal import at_home, loading, saved

if TYPE_CHECKING:
    from mptune import Backbone, MultitaskPrompt, Task
    from mptune.config import Config

Stage = TypeVar("Stage", bound="Config")


def option(text: str, metavar: str | None = None, name: str = "", **limits: Any) -> Any:
    """Return an option, called as its parameter where it has no other name; shells leave ``--out=~/x`` as it is."""
    return typer.Option(*([name] if name else []), help=text, metavar=metavar, callback=at_home, **limits)


def number(text: str, metavar: str = "N", kind: type[int] | type[float] = int, **limits: float) -> Any:
    """Return the option of a number, which is refused as a field of a configuration is: by what it wants and what came.

    Args:
        limits: as a field's: ``ge``, ``gt``, ``le``.
    """

    def parsed(given: str) -> Any:
        from mptune import config

        try:
            return config.number(given, kind, **limits)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return typer.Option(help=text, metavar=metavar, parser=parsed)


def rate(text: str) -> Any:
    """Return the option of a learning rate, which is above zero."""
    return number(text, "RATE", float, gt=0)


def share(text: str) -> Any:
    """Return the option of a share of a whole, neither none of it nor all."""

    def between(given: float) -> float:
        if not 0 < given < 1:
            raise typer.BadParameter(f"wants a number between 0 and 1, as 0.95; got {given:g}")
        return given

    return typer.Option(help=text, metavar="SHARE", callback=between)


TO_TEN = ("cider", "nist")  # metrics of a scale on which a number below 1 is no slip

# Options that may be left out.
Text = str | None
File = Path | None
Number = int | None
Rate = float | None
BackboneOption = Annotated[
    Text,
    option("Hugging Face id or folder of the frozen model; the prompt's own, or `embedded`, without it.", "ID",
            "--backbone"),
]  # fmt: skip
DataOption = Annotated[
    File,
    option("Folder with local rows of hub tasks, <task>.<split>.jsonl[.gz].", "DIR", "--data", exists=True),
]
SetOption = Annotated[
    list[str] | None,
    option("A field of a stage that this command runs, as distill.temperature=2; repeatable.", "STAGE.FIELD=VALUE",
            "--set"),
]  # fmt: skip
TrackersOption = Annotated[Text, option("Trackers by name: tensorboard,wandb,trackio,mlflow.", "NAMES", "--report-to")]
AtLeastOption = Annotated[
    list[str] | None,
    option("End with exit code 4 where a score is lower, as accuracy=80; repeatable.", "METRIC=VALUE", "--at-least"),
]
StepsOption = Annotated[Number, number("Optimizer updates, as --set STAGE.steps=N.", ge=0)]
SeedOption = Annotated[Number, number("Decides initialisation, order and few-shot rows.", ge=0)]
ShotsOption = Annotated[Number, number("Training examples per class; all without it.", ge=1)]
PromptArgument = Annotated[str, typer.Argument(help="Prompt: folder or hub repository.")]
FolderArgument = Annotated[str, typer.Argument(help="The prompt's folder, whose card is written anew.")]


def names(text: str | None, option: str) -> list[str]:
    """Return the names of a list with commas between; none where the option is left out.

    Raises:
        UsageError: it is there, and empty.
    """
    listed = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not listed:
        raise UsageError(f"{option} wants one name or more, with commas between; got {text!r}")
    return listed


def minima(settings: list[str] | None) -> dict[str, float]:
    """Return ``["accuracy=80"]`` as ``{"accuracy": 80.0}``.

    Raises:
        UsageError: no METRIC=VALUE, a metric twice, or one of which less is better.
    """
    from mptune.tasks.task import SMALLER_IS_BETTER

    least: dict[str, float] = {}
    for setting in settings or []:
        metric, _, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not metric or not math.isfinite(number):
            raise UsageError(f"--at-least wants METRIC=VALUE, as accuracy=80; got {setting!r}")
        if metric in least:
            raise UsageError(f"--at-least has {metric} twice; give it once")
        if metric.partition("_")[0] in SMALLER_IS_BETTER:
            raise UsageError(f"--at-least wants a metric of which more is better; of {metric} less is")
        if 0 < number < 1 and metric.partition("_")[0] not in TO_TEN:
            raise UsageError(
                f"{metric} runs to 100, and --at-least {setting} asks for hardly any; a share of 0.8 is 80"
            )
        least[metric] = number
    return least


def named_tasks(text: str | None, option: str) -> "list[Task]":
    """Return the tasks of such a list."""
    from mptune.tasks.registry import get_tasks

    return get_tasks(names(text, option))


def configured(
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
    if twice := [field for field in given if field in values.get(stage, {})]:
        raise UsageError(f"{stage}.{twice[0]} is given by --set and by an option of its own; give it once")
    return kind.read({**values.get(stage, {}), **given}, stage), values.get("backbone", {})


def open_prompt(name: str) -> "MultitaskPrompt":
    """Return a prompt; that it is not there, or no prompt, is said before the libraries are loaded that compute."""
    from mptune.prompts.stored import stored_prompt

    stored_prompt(name)
    with loading():  # the libraries, which takes seconds
        from mptune import MultitaskPrompt

    return MultitaskPrompt.from_pretrained(name)


def load(
    name: str | None, changes: dict[str, Any], prompt: "MultitaskPrompt | None" = None, folder: str | Path | None = None
) -> "Backbone":
    """Return the frozen model that is named, else the prompt's own, with what --set changes of it.

    Its dtype is the one that the processor is fastest in, where neither --set nor the prompt's folder says another.
    """
    from mptune import load_backbone
    from mptune.prompts.prompt import backbone_of
    from mptune.prompts.stored import stored_config

    config = backbone_of(prompt, folder, name, changes)
    trained_with = stored_config(folder).get("backbone") if folder is not None and name is None else None
    if "dtype" not in changes and not trained_with:
        config = config.model_copy(update={"dtype": "auto"})
    with loading():
        return load_backbone(config)


def say_saved(folder: Path | None, prompt: "MultitaskPrompt", *, finished: bool = False) -> None:
    """Print where a prompt was saved, what it scores, whether it stood there; of several processes the first does."""
    from mptune.stages.run import first_process

    if folder is not None and first_process():
        card = prompt.card
        saved(folder, card.scores, kept_start=card.kept_start, stopped=card.stopped, untrained=card.untrained,
              finished=finished)  # fmt: skip
