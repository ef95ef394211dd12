"""Where results come from: what was trained for them, on which model, by which code, on what machine."""

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from mptune.comparison.results import MULTITASK, TEACHERS, TrainingRecord
from mptune.model.backbone import Backbone
from mptune.prompts.card import Card, public_name
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import PROMPT_FILE
from mptune.stages.experiment import versions


def trainings(cards: Sequence[Card]) -> list[TrainingRecord]:
    """Return what was trained for a run, stage by stage: settings as they were resolved, rows, and which were drawn.

    Teachers with the same settings are one entry. ``data`` is a hash of each task's rows as they were rendered.
    """
    records = []
    for (stage, config, stopped), alike in groupby(cards, key=lambda card: (card.stage, card.config, card.stopped)):
        data: dict[str, str] = {}
        shot_rows: dict[str, list[int]] = {}
        for card in alike:
            data |= card.data
            shot_rows |= card.seeds.get("shot_rows") or {}  # an imported prompt says nothing of rows
        broke = {} if stopped is None else {"stopped": stopped}
        records.append(TrainingRecord(stage=stage, config=config, data=data, shot_rows=shot_rows, **broke))
    return records


def of_backbone(backbone: Backbone) -> dict[str, str | None]:
    """Return what says which model it was; of a local folder only the name."""
    name, revision = public_name(backbone.config.name), backbone.config.revision
    return {"name": name, "revision": revision, "fingerprint": backbone.fingerprint}


def of_sources(folder: Path, named: Mapping[str, MultitaskPrompt]) -> Iterator[dict[str, Any]]:
    """Yield what each teacher and multitask prompt is, with its scores on source tasks' validation rows.

    Args:
        folder: of the comparison, and of what was trained for it.
        named: multitask prompts that were there before it.
    """
    places = (*sorted(folder.glob(f"{TEACHERS}*/*")), *sorted(folder.glob(f"{MULTITASK}*")))
    trained = {
        str(place.relative_to(folder)): MultitaskPrompt.from_pretrained(place)
        for place in places
        if (place / PROMPT_FILE).is_file()
    }
    for name, prompt in {**named, **trained}.items():
        card = prompt.card
        yield {
            "name": name,
            "stage": card.stage,
            "tasks": [task.name for task in card.tasks],
            "config": card.config,
            "data": card.data,
            "scores": list(card.scores),
        }


def circumstances(backbone: Backbone) -> dict[str, Any]:
    """Return where a run is taking place, and on what code."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
    if backbone.device.type == "cuda":
        machine = torch.cuda.get_device_name(backbone.device)
    return {"dtype": backbone.config.dtype, "machine": machine, "versions": versions(), "commit": commit()}


def commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with ``-dirty`` if it was changed; else None."""

    def git(*words: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603  fixed words
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # site-packages may lie in somebody else's checkout
        return git("describe", "--always", "--dirty", "--abbrev=12", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return None
