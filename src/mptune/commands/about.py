"""What is here: doctor, schema."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from mptune.commands.options import option
from mptune.errors import one_of
from mptune.terminal import say, table

if TYPE_CHECKING:
    from mptune.config import Config


def doctor(as_json: Annotated[bool, option("One JSON object per check.", name="--json")] = False) -> None:
    """Check this environment, and say how to mend what is wrong."""
    from mptune.commands.doctor import examine, healthy

    checks = examine()
    if as_json:
        say("\n".join(json.dumps(vars(check)) for check in checks))
    else:
        table(["", "check", "found", "what to do"], [[c.state, c.name, c.found, c.fix] for c in checks])
    raise typer.Exit(0 if healthy(checks) else 1)


def schema(what: Annotated[str, typer.Argument(help="task or recipe.")] = "recipe") -> None:
    """Print the JSON Schema of task or recipe files: every field with unit, default, reason and range."""
    from mptune import Task
    from mptune.comparison.recipe import recipe_model

    models: dict[str, type[Config]] = {"task": Task, "recipe": recipe_model()}
    say(json.dumps(models[one_of("schema", what, models)].model_json_schema(), indent=2))
