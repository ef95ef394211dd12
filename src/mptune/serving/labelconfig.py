"""What a labelling tool says of a project: where its text stands, and which choice is which label of a task.

The XML is a stranger's. Python's reader knows no safe mode for what a document may declare, so a document that declares
anything is refused before it is read; without declarations there is nothing that could unfold or be fetched.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from mptune.errors import UsageError, first_line
from mptune.tasks.cells import column_name
from mptune.tasks.task import Task, there
from mptune.terminal import visible

LONGEST_CONFIG = 200_000  # characters; those of the tool's own templates have a few thousand
MOST_CONTROLS = 100  # Choices; of those that lie in each other, each is asked for all that lies in it
_DECLARES = re.compile(r"<!\s*(DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)


@dataclass(frozen=True)
class LabelConfig:
    """A control that asks for a task's label, and what it is asked about."""

    from_name: str  # of the control
    to_name: str  # of the text
    field: str | None  # of a row, that the text shows
    choices: Mapping[str, str]  # label value to the choice that stands for it

    def label_of(self, choice: str) -> str | None:
        """Return the label value that a choice stands for; None where it stands for none."""
        return next((value for value, each in self.choices.items() if each == choice), None)


def read_label_config(text: str, task: Task) -> LabelConfig:
    """Return what a labelling tool's XML says of a task.

    Raises:
        UsageError: no XML, too much of it, one that declares something, or one whose choices are not the task's labels.
    """
    if len(text) > LONGEST_CONFIG:
        raise UsageError(f"label_config has {len(text):,} characters, and may have {LONGEST_CONFIG:,}")
    if found := _DECLARES.search(text):
        raise UsageError(f"label_config may declare nothing; got <!{found[1]}")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - it declares nothing
    except (ElementTree.ParseError, ValueError) as error:
        raise UsageError(f"label_config is no XML: {first_line(error)}") from None
    texts = {name: each.get("value", "") for each in root.iter() if (name := each.get("name"))}
    controls = list(root.iter("Choices"))
    if len(controls) > MOST_CONTROLS:
        raise UsageError(f"label_config has {len(controls):,} Choices, and may have {MOST_CONTROLS:,}")
    seen: list[str] = []
    for control in controls:
        offered = [each.get("alias") or each.get("value") or "" for each in control.iter("Choice")]
        seen += offered
        choices = _matched(task, offered)
        if choices is not None:
            to_name = (control.get("toName") or "").split(",")[0].strip()
            shown = texts.get(to_name, "")
            field = column_name(shown[1:]) if shown.startswith("$") else None
            return LabelConfig(control.get("name") or "", to_name, field, choices)
    wanted = ", ".join(f"{word} (or {value})" for value, word in task.verbalizer.items())
    offers = visible(", ".join(filter(None, seen)))[:200] or "none"
    raise UsageError(f"label_config wants Choices with a Choice for every label of {task.name}: {wanted}; got {offers}")


def row_of(task: Task, data: Mapping[str, Any], field: str | None) -> dict[str, Any]:
    """Return the fields of a task, and nothing else, of what a labelling tool knows of a text.

    Args:
        field: that is shown to who labels; a task of one field reads it, whatever it is called there.

    Raises:
        UsageError: a field is not there.
    """
    named = {column_name(name): value for name, value in data.items()}
    fields = task.text_fields
    places = {fields[0]: field} if len(fields) == 1 and field else {each: each for each in fields}
    if lacking := [place for place in places.values() if place not in named]:
        raise UsageError(f"no field {', '.join(map(repr, lacking))}; it has {visible(there(named))[:200]}")
    return {each: named[place] for each, place in places.items()}


def _matched(task: Task, offered: list[str]) -> dict[str, str] | None:
    """Return the choice for each label value: all by their words, else by their values, else by either, loosely."""
    loose = {_fold(choice): choice for choice in reversed(offered)}
    readings: list[Callable[[str, str], str | None]] = [
        lambda value, word: word if word in offered else None,
        lambda value, word: value if value in offered else None,
        lambda value, word: loose.get(_fold(word)) or loose.get(_fold(value)),
    ]
    for reading in readings:
        found = {value: reading(value, word) for value, word in task.verbalizer.items()}
        choices = {value: choice for value, choice in found.items() if choice}
        if len(set(choices.values())) == len(task.verbalizer):
            return choices
    return None


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())
