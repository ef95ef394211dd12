"""A prompt's folder, written and read with its tensors. safetensors only; nothing here reads or writes a pickle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from mptune.errors import ArtifactError, UsageError
from mptune.files import write_file
from mptune.prompts.card import Calibration, Card
from mptune.prompts.modelcard import model_card
from mptune.prompts.stored import (
    CONFIG_FILE,
    PROMPT_FILE,
    TENSOR_NAMES,
    UNREADABLE,
    damaged,
    stored_config,
    stored_prompt,
)
from mptune.prompts.vectors import TaskVectors
from mptune.tasks.data import TaskRows
from mptune.tasks.registry import get_task
from mptune.tasks.task import Task


def write_prompt(folder: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write a prompt's files into an existing folder: prompt.safetensors, and a README.md.

    Args:
        tensors: shared [L, D], u [K, L, R], v [K, R, D].

    Raises:
        ArtifactError: numbers that are not finite.
    """
    refuse_unsound(folder, tensors)
    card = card.shareable()  # a folder's path stays on this machine, in config.json
    # One metadata key: several would be written in an arbitrary order, and equal prompts would differ in bytes.
    header = {"card": card.model_dump_json(exclude_none=True)}
    length, width = tensors["shared"].shape
    write_file(folder / "README.md", model_card(card, length, int(tensors["u"].shape[2]), width))
    write_file(folder / PROMPT_FILE, save(dict(tensors), metadata=header))  # last: where it stands, all does


def read_prompt(name: str | Path, revision: str | None = None) -> tuple[dict[str, Tensor], Card]:
    """Return the tensors and the card of a folder, of a prompt that comes with the package, or of a hub repository.

    Raises:
        ArtifactError: nothing there, or damaged.
    """
    stored = stored_prompt(name, revision)
    try:
        with safe_open(stored.file, framework="pt") as opened:
            tensors = {key: opened.get_tensor(key) for key in TENSOR_NAMES}
    except UNREADABLE as error:
        raise damaged(stored.file, error) from None
    refuse_unsound(stored.file, tensors)
    return tensors, stored.card


def read_task(file: Path, number: int) -> tuple[Card, Tensor, TaskVectors]:
    """Return the card of one task of a prompt's file, as if it were the only one, the shared prompt [L, D], and u, v.

    The file is opened once, so that all is of one prompt even where another takes its place meanwhile. The tensors are
    views of its mapped pages: who keeps one copies it.

    Raises:
        ArtifactError: nothing there, or damaged.
    """
    try:
        with safe_open(file, framework="pt") as opened:
            values = json.loads((opened.metadata() or {})["card"])
            own = values["tasks"][number : number + 1]
            found = {task["name"]: (values.get("calibration") or {}).get(task["name"]) for task in own}
            calibration = {name: each for name, each in found.items() if each} or None
            card = Card.model_validate({**values, "tasks": own, "calibration": calibration})
            u, v = (opened.get_slice(key)[number : number + 1] for key in ("u", "v"))
            tensors = {"shared": opened.get_tensor("shared"), "u": u, "v": v}
        card = card.model_copy(update={"tasks": (card.tasks[0].without_paths(),)})
        refuse_unsound(file, tensors)
    except UNREADABLE as error:
        raise damaged(file, error) from None
    return card, tensors["shared"].float(), TaskVectors(u.float(), v.float())


def write_calibration(folder: Path, found: Mapping[str, Calibration]) -> None:
    """Put calibrations into the card of a prompt's folder, by task, in place of those that were there.

    The tensors stay as they are, bit by bit, and so do calibrations of other tasks.
    """
    tensors, card = read_prompt(folder)
    write_prompt(folder, tensors, card.model_copy(update={"calibration": {**(card.calibration or {}), **found}}))


def refuse_unsound(place: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError where tensors hold what is no finite floating-point number."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise ArtifactError(f"{place}: {name} wants floating-point numbers; got {kind}. Train or copy it again.")
        if not bool(tensor.float().isfinite().all()):
            raise ArtifactError(
                f"{place}: {name} holds numbers that are not finite, which answer nothing. Train it again, at a lower "
                "learning rate."
            )


def rows_of(folders: Sequence[Path], tasks: Sequence[Task], data_dir: Path | None) -> list[TaskRows]:
    """Return the rows of the tasks that are named, else of those that are saved beside prompts.

    Args:
        folders: of the prompts.
        data_dir: where rows of hub tasks are read, in place of where they were read for these prompts.

    Raises:
        UsageError: no task is named, and none is saved.
    """
    stored = [stored_config(folder) for folder in folders]
    if data_dir is None:
        data_dir = next((Path(values["data_dir"]) for values in stored if values.get("data_dir")), None)
    if not tasks:
        tasks = [
            Task.read(values, f"{folder}/{CONFIG_FILE}")
            for folder, config in zip(folders, stored, strict=True)
            for values in config.get("tasks", [])
        ]
    if not tasks:
        place = ", ".join(map(str, folders))
        raise UsageError(f"{place} does not say where its data is; name the task: --task FILE.yaml, or a built-in name")
    return [TaskRows(task, data_dir) for task in tasks]


def rows_of_tasks(folder: Path, named: Sequence[str], data_dir: Path | None) -> list[TaskRows]:
    """Return the rows of tasks by what they are called: as they are saved beside a prompt, else as anywhere.

    Args:
        named: all that are saved where it names none.

    Raises:
        UsageError: no task is named, and none is saved.
    """
    if not named:
        return rows_of([folder], [], data_dir)
    saved = rows_of([folder], [], data_dir) if stored_config(folder).get("tasks") else []
    by_name = {each.name: each for each in saved}
    chosen = dict.fromkeys(named)
    return [by_name.get(name) or rows_of([folder], [get_task(name)], data_dir)[0] for name in chosen]


def upload(repository: str, folder: Path, *, private: bool, token: str | None) -> str:
    """Upload a folder to the Hugging Face hub, and return its address there."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload soft prompt"))
