"""Everything this package raises on purpose.

MptuneError                 exit code 1: nothing given was wrong, and yet it could not be done
├── UsageError              exit code 2: a wrong option, name or configuration, or a path that leads nowhere
│   ├── ConfigError         fields that are unknown, of the wrong type or out of range, all at once
│   ├── UnknownNameError    a name that nothing carries
│   └── ResumeError         an unfinished or finished run that was started with another configuration
├── DataError               exit code 3: rows that do not fit their task, all at once; 2 where files are missing only
├── ArtifactError           exit code 3: a prompt's folder that is foreign or damaged
│   ├── MissingArtifact     exit code 2: one that is not there
│   └── BackboneMismatch    a prompt trained for another model
├── ResultsError            exit code 3: a run's folder whose results are damaged, all at once
│   └── MissingResults      exit code 2: there are none
├── BackboneError           exit code 3: a model that cannot be loaded or cannot read soft prompts
│   └── MissingBackbone     exit code 2: nothing of that name can be had
├── DivergedError           a training whose numbers are not finite from its start on
├── MissingExtraError       a part of the package whose libraries are not installed
├── ShortfallError          exit code 4: scores below those that were asked for, all at once
└── ShapeError              exit code 3: a tensor whose shape breaks its contract
"""

import difflib
import re
from collections.abc import Collection, Sequence
from pathlib import PurePath
from typing import Any, TypeVar

Name = TypeVar("Name", bound=str)

_OF_A_ROW = re.compile(r"((?:.*? )??row)( \d+)(: .*)", re.DOTALL)
FIRST_ROWS = 5  # whose numbers stand in a message about more
FAILED, WRONG_USE, WRONG_CONTENT = 1, 2, 3  # exit codes: what was given is right; how it was said; what it holds
FELL_SHORT = 4  # all was done, and a score is too low


class MptuneError(Exception):
    """Base class, so that callers can catch all of ours and none of Python's."""

    exit_code = FAILED

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel between processes, as of a search on many cores, with the text that is made already."""
        return _again, (type(self), self.args, self.__dict__)


class UsageError(MptuneError):
    """A wrong option, name or configuration, or a path that leads nowhere."""

    exit_code = WRONG_USE


class ConfigError(UsageError, ValueError):
    """Every problem of a configuration at once."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(_bulleted(f"{where}:", problems))


class UnknownNameError(UsageError, LookupError):
    """A name that nothing carries; suggests the nearest that exists."""

    def __init__(self, kind: str, name: str, known: Collection[str], hint: str = "") -> None:
        close = difflib.get_close_matches(name, known, n=1)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        listed = hint or f"Known: {', '.join(sorted(known))}."
        super().__init__(f"no {kind} is called {name!r}.{meant} {listed}")


class ResumeError(UsageError):
    """A folder that already holds a run of another configuration."""


class DataError(MptuneError, ValueError):
    """Every problem of the data at once, each with its file and row."""

    exit_code = WRONG_CONTENT
    shown = 20

    def __init__(self, task: str, problems: Sequence[str], head: str = "") -> None:
        self.task, self.problems = task, tuple(problems)
        if problems and all(getattr(problem, "leads_nowhere", False) for problem in problems):
            self.exit_code = WRONG_USE
        lines = _folded(problems)
        listed = lines[: self.shown]
        if len(lines) > self.shown:
            listed.append(f"... and {len(lines) - self.shown} more of the kind")
        super().__init__(_bulleted(head or f"the data of task {task!r} cannot be used:", listed))

    @classmethod
    def of_all(cls, failures: Sequence["DataError"]) -> "DataError":
        """Return one error of several, each task and each problem named once."""
        if len(failures) == 1:
            return failures[0]
        problems = dict.fromkeys(problem for failure in failures for problem in failure.problems)
        return cls(", ".join(dict.fromkeys(failure.task for failure in failures)), list(problems))


class ArtifactError(MptuneError):
    """A prompt's folder that is foreign or damaged."""

    exit_code = WRONG_CONTENT


class MissingArtifact(ArtifactError):
    """A prompt's folder that is not there, and not to be had."""

    exit_code = WRONG_USE


class BackboneMismatch(ArtifactError):
    """A prompt trained for another model, where its numbers mean nothing."""


class ResultsError(MptuneError):
    """A run's folder whose results are damaged; every problem at once."""

    exit_code = WRONG_CONTENT

    def __init__(self, head: str, problems: Sequence[str] = ()) -> None:
        self.problems = tuple(problems)
        super().__init__(_bulleted(head, problems) if problems else head)


class MissingResults(ResultsError):
    """A folder without results, or none at all."""

    exit_code = WRONG_USE


class BackboneError(MptuneError):
    """A model that cannot be loaded, or that cannot read soft prompts."""

    exit_code = WRONG_CONTENT


class MissingBackbone(BackboneError):
    """A name of a model by which nothing is to be had."""

    exit_code = WRONG_USE


class DivergedError(MptuneError):
    """A training whose numbers are not finite from its start on."""


class MissingExtraError(MptuneError, ImportError):
    """A part of the package whose libraries are not installed."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(f"{part} needs more libraries. Install them: pip install 'mptune[{extra}]'")


class ShortfallError(MptuneError):
    """Scores below those that were asked for, all at once."""

    exit_code = FELL_SHORT


class ShapeError(MptuneError, ValueError):
    """A tensor whose shape breaks its contract."""

    exit_code = WRONG_CONTENT


# What makes of a name, or of other things, what a function takes.
_MADE_BY = {
    ("MultitaskPrompt", "str"): "MultitaskPrompt.from_pretrained({!r})",
    ("Backbone", "str"): "load_backbone({!r})",
    ("Task", "str"): "get_task({!r})",
    ("Task", "DataFrame"): "TaskRows.from_rows(...)",
    ("Task", "Dataset"): "TaskRows.from_rows(...)",
    ("Task", "dict"): "TaskRows.from_rows(...)",
    ("Task", "list"): "TaskRows.from_rows(...)",
}


def refuse_type(what: str, value: object, *kinds: type) -> None:
    """Raise UsageError where an argument is of another kind than a function takes, as where two stand in turn.

    Args:
        what: the argument's name.
        kinds: those it may be; the first is the one to name.
    """
    if isinstance(value, kinds):
        return
    wanted, got = kinds[0].__name__, type(value).__name__
    made = _MADE_BY.get((wanted, "str" if isinstance(value, str | PurePath) else got), "")
    if isinstance(value, dict) and wanted.endswith("Config"):
        made = f"{wanted}(**values)"
    write = f"; write {made.format(str(value))}" if made else ""
    raise UsageError(f"{what} wants {'an' if wanted[0] in 'AE' else 'a'} {wanted}; got {got}{write}")


def _again(kind: type[MptuneError], said: tuple[Any, ...], known: dict[str, Any]) -> MptuneError:
    error = kind.__new__(kind, *said)
    error.__dict__.update(known)
    return error


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def reason(error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be read or written: what the operating system says, without the file's name."""
    return getattr(error, "strerror", None) or first_line(error)


def one_of(kind: str, name: str, known: Collection[Name]) -> Name:
    """Return the one of several names that was given.

    Raises:
        UnknownNameError: it is none of them.
    """
    for each in known:
        if each == name:
            return each
    raise UnknownNameError(kind, name, known)


def _folded(problems: Sequence[str]) -> list[str]:
    """Return problems, each once: of several rows that have the same, the first rows' numbers and how many more."""
    lines: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        of_row = _OF_A_ROW.fullmatch(problem)
        place, row, said = of_row.groups() if of_row else (problem, "", "")
        lines.setdefault((place, said), []).append(row)
    folded = []
    for (place, said), rows in lines.items():
        more = f" and {len(rows) - FIRST_ROWS} more" if len(rows) > FIRST_ROWS else ""
        folded.append(f"{place}{'s' if said and rows[1:] else ''}{','.join(rows[:FIRST_ROWS])}{more}{said}")
    return folded


def _bulleted(head: str, problems: Sequence[str]) -> str:
    return f"{head} {problems[0]}" if len(problems) == 1 else "\n  - ".join([head, *problems])
