"""What a person or a program sees: lines, tables, errors, and an exit code.

All that this package prints goes through `say`. rich is imported where a terminal wants it, so that help is instant.
"""

import errno
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from mptune.errors import FAILED, WRONG_USE, MptuneError, UsageError, first_line, reason

if TYPE_CHECKING:
    from rich.console import Console

logger = logging.getLogger(__name__)

INTERRUPTED = 130
NO_WIDTH = 10_000  # columns that no terminal has: how wide a table would be if it could
# What the system says of a path that leads nowhere, as against a disk that is full or may not be written.
NAMES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)
LISTS = ("NAMES", "METHOD,TASK")  # what an option is shown to take where commas separate several
OF_FOLDERS = ("--prompt", "--teachers")  # what a folder, or a name that is no task's file, is most likely to be
LONGEST_LINE = 2000  # characters of an error or a warning, which may repeat what a stranger wrote

# What moves a terminal's cursor, colours, titles or the direction of writing, but for tabs and new lines.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str) -> str:
    """Return a text whose control characters are shown, as JSON writes them, and never sent to a terminal."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def say(text: str, *, err: bool = False) -> None:
    """Print a line, on standard error where it is no result."""
    typer.echo(visible(text), err=err)


def say_bytes(lines: bytes) -> None:
    """Print lines of results in UTF-8, whatever the locale says."""
    typer.echo(lines, nl=False)


@cache
def warn_once(message: str) -> None:
    """Warn of what somebody's data or settings are; a comparison meets them many times."""
    logger.warning(message)


class Once(TyperCommand):
    """A command that refuses what would win or be lost without a word: an option given twice, unless it collects.

    And what stands by itself where an option was meant, which is said before an option is missed.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return what is left to parse.

        Raises:
            UsageError: an option that takes one value is given several times, or a value without its option.
        """
        given, left, order = self.make_parser(ctx).parse_args(list(args))
        if left and not ctx.resilient_parsing and not set(args) & set(ctx.help_option_names):
            raise UsageError(self._stray(left[0], given))
        for option in dict.fromkeys(order):
            times = order.count(option)
            if isinstance(option, TyperOption) and times > 1 and not (option.multiple or option.is_flag):
                more = f", as {option.opts[0]} ONE,TWO" if option.metavar in LISTS else ""
                raise UsageError(f"{option.opts[0]} stands {times} times, and would be read once; give it once{more}")
        return super().parse_args(ctx, args)

    def _stray(self, value: str, given: Mapping[str, Any]) -> str:
        """Return which option was meant by what stands by itself."""
        is_task = value.endswith((".yaml", ".yml"))
        may = [*(() if is_task else OF_FOLDERS), *(("--from",) if Path(value).is_dir() else ()), "--task", "--tasks"]
        options = {name: option for option in self.params for name in option.opts}
        meant = next((name for name in may if name in options), None)
        takes = [str(each.metavar or each.name).upper() for each in self.params if isinstance(each, TyperArgument)]
        what, too = (f"one {takes[0]}", " too") if takes else ("no file or name by itself", "")
        said = f"{self.name} takes {what}; got {value}{too}"
        if meant is None:
            return said
        before = given.get(options[meant].name or "")
        if before is not None and options[meant].metavar not in LISTS:
            return said
        return f"{said}, did you mean {meant} {f'{before},' if before is not None else ''}{value}?"


def at_home(given: Any) -> Any:
    """Return a path that was typed, with its ``~``, which shells leave in ``--out=~/x``; all else as it is."""
    return Path(os.path.expanduser(given)) if isinstance(given, Path) else given


def say_json(values: Any) -> None:
    """Print values as one line of JSON."""
    say(json.dumps(values))


def tell(values: Mapping[str, Any]) -> None:
    """Print how far long work is, as a line of JSON on standard error; where nobody reads it any more, nothing.

    What cannot be written stays in the stream's buffer and would fail again, even at the end of the process.
    """
    try:
        say(json.dumps(values), err=True)
    except (OSError, ValueError):
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the rest of the process


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print columns: a rich table on a terminal, tab-separated lines elsewhere, for other programs."""
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [[_shown(value) for value in row] for row in rows]
    if not console.is_terminal:
        for row in ([head] if any(head) else []) + cells:
            say("\t".join(cell.replace("\t", r"\u0009").replace("\n", r"\u000a") for cell in row))
        return
    columns = Table(box=box.SIMPLE, show_header=any(head))
    for name in head:
        columns.add_column(name, overflow="fold")  # a narrow terminal breaks words, and hides none
    for row in cells:
        columns.add_row(*map(Text, row))
    if Measurement.get(console, console.options.update(width=NO_WIDTH), columns).maximum > console.width:
        columns.box, columns.padding, columns.pad_edge = None, (0, 1, 0, 0), False  # room for words, not for lines
    console.print(columns)


def _shown(value: Any) -> str:
    return visible(json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list | tuple) else str(value))


class ShownHandler(logging.Handler):
    """Warnings as lines on standard error, as it is when they come."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a warning; where nobody reads it any more, nothing."""
        with suppress(OSError, ValueError):
            say(_brief(self.format(record)), err=True)


def saved(
    folder: Path,
    scores: Sequence[Mapping[str, Any]],
    *,
    kept_start: bool = False,
    stopped: int | None = None,
    untrained: bool = False,
    finished: bool = False,
) -> None:
    """Say where a prompt was saved, what it scored on validation rows, and whether training brought nothing or broke.

    Where nobody reads it any more, the next training goes on all the same.

    Args:
        stopped: the step whose numbers were not finite, where there was one.
        untrained: whether it was to take no step.
        finished: whether it stood there before the command.
    """
    scored = ", ".join(f"{s['task']} {s['metric']} {s['value']:.1f}" for s in scores)
    still = "; it kept the start: training did not help. Try more steps, or another rate" if kept_start else ""
    state = "the start" if kept_start else "the last state"
    if untrained:
        still, state = "; no step was taken: it is the start", "no step was taken: it is the start"
    told = f"{scored} on validation rows{still}" if scored else f"{state}; nothing was validated"
    broke = f"; training stopped at step {stopped}, where its numbers were not finite" if stopped is not None else ""
    try:
        say(f"{folder}: {told}{broke}")
        if finished:
            say(f"{folder} is finished already: nothing was trained; remove it to train again", err=True)
    except OSError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - as in `tell`


def ended(command: Callable[[], Any], again: str = "begins anew") -> NoReturn:
    """Run a command to its exit code. Our errors and the file system's are a line or two; all else is a bug.

    Args:
        again: what the same command does after it was interrupted.
    """
    try:
        code = command()
        if code == INTERRUPTED:  # typer turns Ctrl-C into this exit code by itself
            raise KeyboardInterrupt
    except MptuneError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written; or a name that leads nowhere
        where = f"{error.filename}: " if error.filename else ""
        code = WRONG_USE if error.errno in NAMES else FAILED
        _fail(f"{where}{reason(error)}. Mend that, or name another place; what is finished stays.", code)
    except (KeyboardInterrupt, typer.Abort):
        _fail(f"interrupted; the same command {again}", INTERRUPTED)
    except Exception as error:
        if isinstance(error, MemoryError) or re.search("can't allocate memory|out of memory", str(error)):
            why = first_line(error)[:200]
            _fail(f"the memory does not suffice ({why}). Take a smaller batch_size or prompt_length.", FAILED)
        # Wrong usage comes as an exception of the parser that typer carries, with its own message and exit code.
        if hasattr(error, "exit_code") and hasattr(error, "show"):
            try:
                error.show()
            except UnicodeEncodeError:  # an argument of bytes that are no letters
                say(f"mptune: {error}", err=True)
            sys.exit(int(error.exit_code))
        raise
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    say(_brief(f"mptune: {message}"), err=True)
    sys.exit(code)


def _brief(text: str) -> str:
    """Return a text whose endless lines lack their middle: what is wrong stands before it, what to do behind."""
    end = LONGEST_LINE // 4
    lines = text.split("\n")
    return "\n".join(f"{s[: 3 * end]} [...] {s[-end:]}" if len(s) > LONGEST_LINE else s for s in lines)


def loading() -> AbstractContextManager[Any]:
    """Show on a terminal, for the time of a block, that a model loads."""
    console = standard_error()
    return console.status("loading the backbone") if console.is_terminal else nullcontext()


def standard_output() -> IO[str]:
    """Return where a notebook shows what is no warning."""
    return sys.stdout


def standard_error() -> "Console":
    """Return the terminal that standard error is, or what is none."""
    from rich.console import Console

    return Console(stderr=True)
