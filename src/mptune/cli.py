"""`mptune` on the command line. A command parses, calls one function, prints; nothing is decided here.

Heavy modules are imported inside the commands, so that --help is instant.

No environment variable is read here, since the package must work without this file. Those that are have one place each:
`model.embedded` reads MPTUNE_CACHE and XDG_CACHE_HOME; `model.loading` reads LOCAL_RANK, and `stages.run` WORLD_SIZE
and RANK, as torchrun and `accelerate launch` set them; `commands.doctor` reads HF_HUB_OFFLINE. Where they are not set,
`model.memory` sets ONEDNN_PRIMITIVE_CACHE_CAPACITY and LRU_CACHE_CAPACITY; and `model.threads` sets GOMP_SPINCOUNT and
OMP_NUM_THREADS, and reads OMP_WAIT_POLICY.
"""

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Annotated, NoReturn

import typer

from mptune import __version__
from mptune.commands import about, comparing, data, scoring, serving, sharing, training
from mptune.commands.options import option
from mptune.terminal import Once, ShownHandler, ended, say

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog="Exit codes: 0 done; 1 failed, though nothing given was wrong; 2 wrong usage or configuration, or a path "
    "that leads nowhere; 3 wrong content of data, prompts, models or results; 4 done, "
    "and a score is below --at-least; 130 interrupted.",
)


# Each command, and an example that its help ends with; tests carry them out, one after the other.
COMMANDS: dict[str, tuple[Callable[..., None], str]] = {
    "init": (data.init, "tickets.csv"),
    "teach": (training.teach_tasks, "--tasks opinions,topics --out teachers"),
    "distill": (training.distill_teachers, "--teachers teachers --out prompts/multitask"),
    "adapt": (training.adapt_prompt, "--task tickets.yaml --out prompts/tickets"),
    "evaluate": (scoring.evaluate_prompt, "--prompt prompts/tickets --split test --classes"),
    "calibrate": (scoring.calibrate_prompt, "teachers/topics --precision 0.9"),
    "predict": (data.predict, "new.csv --prompt prompts/tickets --output answers.csv"),
    "serve": (serving.serve, "prompts --port 8000"),
    "keys": (serving.keys, "keys.json --add shop --tasks tickets"),
    "bench": (comparing.bench, "tickets.yaml --plan"),
    "report": (comparing.report, "results/quickstart --out report.html"),
    "tasks": (data.tasks, "tickets.yaml"),
    "prompts": (sharing.prompts, "--json"),
    "show": (sharing.show, "prompts/tickets"),
    "export": (sharing.export_prompt, "prompts/tickets --to prompt-tuning --out adapters/tickets"),
    "import": (sharing.import_prompt, "adapters/tickets --out prompts/imported"),
    "doctor": (about.doctor, "--json"),
    "schema": (about.schema, "task"),
}
for name, (function, example) in COMMANDS.items():
    app.command(name, cls=Once, epilog=f"Example: mptune {name} {example}")(function)


# What these do after Ctrl-C, when they are called again; the others begin anew.
GOES_ON = "goes on where it stopped"
AGAIN = {
    **dict.fromkeys(("teach", "distill", "adapt", "bench"), GOES_ON),
    "predict": f"{GOES_ON} where rows and --output are files, and else begins anew",
}


def again(arguments: Sequence[str]) -> str:
    """Return what a command that was interrupted does when it is called again."""
    command = next((each for each in arguments if not each.startswith("-")), "")
    # A plan runs nothing that is kept.
    return "begins anew" if "--plan" in arguments else AGAIN.get(command, "begins anew")


@app.callback(invoke_without_command=True)
def main_options(version: Annotated[bool, option("Show the version and exit.", name="--version")] = False) -> None:
    """Multitask prompt tuning: one soft prompt from many source tasks, adapted to yours with a few examples.

    From a table to answers: init, adapt, predict. The other commands are for who has many tasks, or compares methods.
    """
    from mptune.model.memory import keep_few_kernels, keep_pages
    from mptune.model.threads import use_granted_cores, wait_briefly

    if version:
        say(f"mptune {__version__}")
        raise typer.Exit
    keep_pages()  # before any command takes memory
    keep_few_kernels()
    wait_briefly()
    use_granted_cores()


def main() -> NoReturn:
    """Run the command line."""
    logging.basicConfig(format="mptune: %(message)s", level=logging.WARNING, handlers=[ShownHandler()])
    ended(lambda: app(prog_name="mptune", standalone_mode=False), again(sys.argv[1:]))
