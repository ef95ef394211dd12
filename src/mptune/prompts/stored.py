"""What lies in a prompt's folder, its card and sizes, read without the libraries that compute with it.

A prompt is one safetensors file, whose header holds the card that says whose its tensors are.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from mptune.errors import ArtifactError, MissingArtifact, UsageError, first_line
from mptune.files import followed, json_object
from mptune.prompts.card import Card, public_name
from mptune.tasks.hub import hub_answers

PROMPT_FILE = "prompt.safetensors"
CONFIG_FILE = "config.json"  # the resolved configuration with this machine's paths; stays when a prompt is shared
TENSOR_NAMES = ("shared", "u", "v")
# What a file that is no prompt, or a damaged one, is met with.
UNREADABLE = (SafetensorError, ValueError, LookupError, OSError, TypeError, RuntimeError, AttributeError)
AdapterKind = Literal["peft", "prompt-tuning"]  # as what PEFT reads a prompt
ADAPTER_KINDS: tuple[AdapterKind, ...] = ("peft", "prompt-tuning")
MOST_NAMED = 10  # prompts beside one that is not there
OTHER_PROGRAMS = ("vllm", "vocabulary")  # where else a prompt of one task can go


@dataclass(frozen=True)
class StoredPrompt:
    """A prompt that lies in a file: its card, and the sizes of its tensors."""

    file: Path
    card: Card
    length: int  # L, soft tokens
    rank: int  # R
    width: int  # D


@dataclass(frozen=True)
class Glance:
    """What the header of a prompt's file says, without the checks that a card takes: of ten thousand files, fast."""

    tasks: tuple[str, ...]
    backbone: str
    fingerprint: str
    width: int  # D


def glance(folder: Path) -> Glance:
    """Return what the header of a prompt's file says.

    Raises:
        ArtifactError: nothing there, or damaged.
    """
    file = folder / PROMPT_FILE
    if not file.is_file():
        raise MissingArtifact(f"{folder.name} is no prompt folder: it has no {PROMPT_FILE}")
    try:
        with safe_open(file, framework="numpy") as opened:
            card = json.loads((opened.metadata() or {})["card"])
            width = int(opened.get_slice("shared").get_shape()[1])
        names = tuple(str(task["name"]) for task in card["tasks"])
        if not names:
            raise ValueError("it has no task")
        return Glance(names, str(card["backbone"]), str(card["fingerprint"]), width)
    except UNREADABLE as error:
        raise damaged(file, error) from None


def stored_prompt(name: str | Path, revision: str | None = None) -> StoredPrompt:
    """Return what a folder, a name of a prompt that comes with the package, or a hub repository holds.

    Raises:
        ArtifactError: nothing there, or damaged.
    """
    file = Path(name) / PROMPT_FILE
    if not Path(name).exists() and str(name) in (shipped := shipped_prompts()):
        file = shipped[str(name)] / PROMPT_FILE
    # `prompts/mine`, where prompts/ is a folder here, is a slip and no name of the hub.
    here = any(path.exists() for path in (Path(name), Path(f"{name}.partial"), Path(name).absolute().parent))
    if not here and str(name).count("/") == 1 and not str(name).startswith((".", "/")):
        file = _download(str(name), revision)
    if not file.is_file():
        if Path(name).is_dir():
            raise ArtifactError(f"{name} is no prompt folder: it has no {PROMPT_FILE}. {_nearby(Path(name))}".rstrip())
        raise MissingArtifact(_missing(Path(name)))
    try:
        with safe_open(file, framework="numpy") as opened:
            card = Card.model_validate_json((opened.metadata() or {})["card"])
            shared, u, v = (tuple(opened.get_slice(key).get_shape()) for key in TENSOR_NAMES)
        if not card.tasks:
            raise ValueError("it has no task")
        (length, width), (*_, rank), count = shared, u, len(card.tasks)
        if u != (count, length, rank):
            raise ValueError(f"u should be [K={count}, L={length}, R]; got {list(u)}")
        if v != (count, rank, width):
            raise ValueError(f"v should be [K={count}, R={rank}, D={width}]; got {list(v)}")
    except UNREADABLE as error:
        raise damaged(file, error) from None
    trained_with = (stored_config(file.parent).get("backbone") or {}).get("name", "")
    if public_name(trained_with).removeprefix("./") == card.backbone.removeprefix("./"):  # older cards have no mark
        card = card.model_copy(update={"backbone": trained_with})
    # Rows are read where this machine's user says, never where a stranger's card does.
    card = card.model_copy(update={"tasks": tuple(task.without_paths() for task in card.tasks)})
    return StoredPrompt(file, card, length, rank, width)


def damaged(file: Path, error: Exception) -> ArtifactError:
    """Return what is raised where a file is no prompt, or no whole one."""
    return ArtifactError(f"{file} is damaged or no prompt of mptune ({first_problem(error)}). Train or copy it again.")


def shipped_prompts() -> dict[str, Path]:
    """Return the folders of the multitask prompts that come with the package, by name."""
    folder = Path(str(files("mptune"))) / "trained"
    return {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{PROMPT_FILE}"))}


def prompt_folders(folder: str | Path) -> list[Path]:
    """Return the folder itself if it is a prompt's, else its subfolders that are.

    Raises:
        ArtifactError: none is.
    """
    folder = Path(folder)
    if (folder / PROMPT_FILE).is_file():
        return [folder]
    folders = sorted(path.parent for path in folder.glob(f"*/{PROMPT_FILE}") if not path.parent.name.startswith("."))
    folders = [f for f in folders if not f.name.endswith(".partial")]
    if not folders:
        if folder.is_dir():
            raise ArtifactError(f"{folder} holds no prompt, nor do its subfolders. {_nearby(folder)}".rstrip())
        raise MissingArtifact(_missing(folder))
    return folders


def writable_folder(prompt: str | Path) -> Path:
    """Return the folder of a prompt that is there, whose card can be written anew.

    Raises:
        UsageError: it comes with the package or lies on the hub, or the folder may not be written to.
    """
    folder = Path(prompt)
    if not (folder / PROMPT_FILE).is_file():
        raise UsageError(
            f"{prompt} is no folder of yours, whose card could be written. Make one in Python: "
            f'MultitaskPrompt.from_pretrained("{prompt}").save_pretrained("mine")'
        )
    if not os.access(folder, os.W_OK):
        raise UsageError(f"the folder {prompt} may not be written to; copy it to a place that may")
    return folder


def stored_config(folder: str | Path) -> dict[str, Any]:
    """Return the resolved configuration that was saved beside a prompt; empty where there is none."""
    file = Path(folder) / CONFIG_FILE
    if not file.is_file():
        return {}
    values = json_object(file)
    wrong = "it is no JSON" if values is None else _wrong(values)
    if values is None or wrong:
        raise ArtifactError(f"{file} is damaged: {wrong}. Remove it, and name task and backbone again.")
    return values


def _wrong(config: Mapping[str, Any]) -> str:
    """Return what is no value that a run saves; nothing where all is well, as in the configuration of a model."""
    backbone, tasks, data_dir = (config.get(name) for name in ("backbone", "tasks", "data_dir"))
    if backbone is not None and not (isinstance(backbone, dict) and isinstance(backbone.get("name"), str)):
        return f"backbone wants {{name: text}}; got {backbone!r:.60}"
    if tasks is not None and not (isinstance(tasks, list) and all(isinstance(task, dict) for task in tasks)):
        return f"tasks wants a list of tasks; got {tasks!r:.60}"
    if data_dir is not None and not isinstance(data_dir, str):
        return f"data_dir wants a folder's name; got {data_dir!r:.60}"
    return ""


def first_problem(error: Exception) -> str:
    """Return in a line what is wrong with a stranger's card, or what a library says of its file."""
    if not isinstance(error, ValidationError):
        return first_line(error)[:200]
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg'].removeprefix('Value error, ')}".strip(": ")[:200]


def _nearby(folder: Path) -> str:
    """Return a hint where the user may have meant a folder beside or below."""
    real = followed(folder)
    for unfinished in (Path(f"{real}.partial"), real / ".partial"):
        if unfinished.exists():
            return f"Its training has not ended; run the same command again to go on from {unfinished.name}."
    below = [p.parent.name for p in folder.glob(f"*/{PROMPT_FILE}")]
    if below:
        return f"Did you mean one of its prompts: {', '.join(sorted(below))}?"
    return ""


def _missing(folder: Path) -> str:
    """Return what stands where a prompt's folder should, or which prompts stand beside it, the nearest first."""
    unfinished, name = _nearby(folder), folder.stem
    if folder.is_file() and folder.suffix in (".yaml", ".yml"):
        return f"{folder} is a task; adapt a prompt to it first: mptune adapt --task {folder} --out prompts/{name}"
    if folder.is_file():
        return f"{folder} is a file, and a prompt is a folder with {PROMPT_FILE}; name that"
    found = [path.parent.name for path in folder.absolute().parent.glob(f"*/{PROMPT_FILE}")]
    found = [each for each in found if not each.startswith(".") and not each.endswith(".partial")]
    there = {*(str(folder.parent / each) for each in found), *(shipped_prompts() if folder.parent == Path() else ())}
    near = sorted(there, key=lambda each: (-SequenceMatcher(None, each, str(folder)).ratio(), each))[:MOST_NAMED]
    listed = f"Prompts that are there, the nearest first: {', '.join(near)}" if near else ""
    return f"there is no folder {folder}. {unfinished or listed}".rstrip()


def _download(repository: str, revision: str | None) -> Path:
    hub_answers()
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(repository, PROMPT_FILE, revision=revision))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise MissingArtifact(
            f"{repository} is no folder here, and not to be had from the hub: {first_line(error)}"
        ) from None
