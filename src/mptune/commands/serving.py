"""Commands of who serves prompts to others: `serve` and `keys`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mptune.commands.options import BackboneOption, File, Number, Text, load, names, number, option
from mptune.errors import MissingExtraError, UsageError
from mptune.terminal import say

if TYPE_CHECKING:
    from mptune import Backbone


def serve(
    prompts: Annotated[Path, typer.Argument(help="Folder of prompts.")],
    backbone: BackboneOption = None,
    host: Annotated[
        str, option("Address to listen at; another than this machine's own wants --api-keys.")
    ] = "127.0.0.1",
    port: Annotated[int, number("Port; 0 takes a free one.", ge=0, le=65_535)] = 8000,
    api_keys: Annotated[File, option("Keys that may ask, as `mptune keys` writes them.", "FILE")] = None,
    max_batch_tokens: Annotated[int, number("Tokens that are read at once.", ge=1)] = 4_096,
    max_queue: Annotated[int, number("Rows that may wait; more are refused.", ge=1)] = 4_096,
    timeout: Annotated[float, number("Seconds in which a row is answered, or refused.", "SECONDS", float, gt=0)] = 60.0,
    watch: Annotated[
        float, number("Look at the folder again every so many seconds; 0: only once.", "SECONDS", float, ge=0)
    ] = 0.0,
    label: Annotated[
        Text, option("Of a labelling tool: the task of the routes that name none; each has /label/TASK too.", "TASK")
    ] = None,
    train_every: Annotated[
        int, number("Of a labelling tool: new labels after which a task is adapted; 0: when the tool asks.", ge=0)
    ] = 20,
    log_requests: Annotated[bool, option("A line of every request, without its text.", name="--log-requests")] = False,
) -> None:
    """Serve the prompts of a folder by name from one frozen model, rows of all of them in one batch."""
    from mptune.serving.keys import Gate, read_keys
    from mptune.serving.settings import LOOPBACK, ServeConfig

    if host not in LOOPBACK and api_keys is None:
        raise UsageError(f"--host {host} lets other machines ask, and there are no keys; give --api-keys FILE "
                         "(`mptune keys` makes one), or leave --host out")  # fmt: skip
    gate = Gate(read_keys(api_keys) if api_keys else ())
    try:
        from mptune.serving.process import run
    except ImportError:
        raise MissingExtraError("mptune serve", "serve") from None
    values = {"max_batch_tokens": max_batch_tokens, "max_queue": max_queue, "timeout": timeout, "watch": watch,
              "label": label, "train_every": train_every}  # fmt: skip
    config = ServeConfig.read(values, "serve")
    run(prompts, lambda: _backbone(prompts, backbone), gate, config, host, port, say, log_requests=log_requests)


def _backbone(prompts: Path, name: str | None) -> "Backbone":
    """Return the model that is named, else that of the first prompt."""
    from mptune.commands.options import open_prompt
    from mptune.prompts.stored import prompt_folders

    if not prompts.is_dir():
        raise UsageError(f"{prompts} is no folder; name the one that holds the prompts")
    if name is not None:
        return load(name, {})
    first = prompt_folders(prompts)[0]
    return load(None, {}, open_prompt(str(first)), first)


def keys(
    file: Annotated[Path, typer.Argument(help="File of keys; made where there is none.")],
    add: Annotated[str | None, option("Draw a key and call it so; it is printed once.", "NAME")] = None,
    remove: Annotated[str | None, option("Take a key away.", "NAME")] = None,
    tasks: Annotated[str | None, option("With --add: the only tasks it may ask.", "NAMES")] = None,
    per_minute: Annotated[Number, number("With --add: requests a minute.", ge=1)] = None,
    admin: Annotated[bool, option("With --add: it may add, replace and remove tasks.", name="--admin")] = False,
) -> None:
    """Make and list the keys of a server; the file holds hashes of them."""
    from mptune.serving.keys import add_key, read_keys, remove_key
    from mptune.terminal import table

    if add and remove:
        raise UsageError("--add and --remove are two commands; got both")
    if add is None and (tasks or per_minute or admin):
        raise UsageError("--tasks, --per-minute and --admin are of a key that is made: --add NAME")
    if add:
        key = add_key(file, add, tuple(names(tasks, "--tasks")), per_minute, admin=admin)
        say(f"{add} may ask now; its key is shown this once:", err=True)
        say(key)
        return
    if remove:
        remove_key(file, remove)
        say(f"{remove} may ask no longer, once the server has started again")
        return
    rows = [[k.name, ", ".join(k.tasks) or "all", str(k.per_minute or "any"), "yes" if k.admin else "no"]
            for k in read_keys(file)]  # fmt: skip
    table(["key", "tasks", "a minute", "admin"], rows)
