"""A prompt's folder: its tensors, and in the same file's header the card that says whose they are.

safetensors only; nothing here reads or writes a pickle.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mptune.errors import ArtifactError, MissingArtifact, UsageError, first_line
from mptune.files import followed, json_object, write_file
from mptune.prompts.card import Card, public_name
from mptune.prompts.modelcard import model_card
from mptune.tasks.data import TaskRows
from mptune.tasks.hub import hub_answers
from mptune.tasks.task import Task

PROMPT_FILE = "prompt.safetensors"
CONFIG_FILE = "config.json"  # the resolved configuration with this machine's paths; stays when a prompt is shared
TENSOR_NAMES = ("shared", "u", "v")


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
    file = Path(name) / PROMPT_FILE
    if not Path(name).exists() and str(name) in (shipped := shipped_prompts()):
        file = shipped[str(name)] / PROMPT_FILE
    # `prompts/mine`, where prompts/ is a folder here, is a slip and no name of the hub.
    here = any(path.exists() for path in (Path(name), Path(f"{name}.partial"), Path(name).absolute().parent))
    if not here and str(name).count("/") == 1 and not str(name).startswith((".", "/")):
        file = _download(str(name), revision)
    if not file.is_file():
        kind = ArtifactError if Path(name).is_dir() else MissingArtifact
        raise kind(f"{name} is no prompt folder: it has no {PROMPT_FILE}. {_nearby(Path(name))}".rstrip())
    try:
        with safe_open(file, framework="pt") as stored:
            card = Card.model_validate_json((stored.metadata() or {})["card"])
            tensors = {key: stored.get_tensor(key) for key in TENSOR_NAMES}
    except (SafetensorError, ValueError, KeyError, OSError, TypeError, RuntimeError, AttributeError) as error:
        raise ArtifactError(
            f"{file} is damaged or no prompt of mptune ({first_problem(error)}). Train or copy it again."
        ) from None
    refuse_unsound(file, tensors)
    if not card.tasks:
        raise ArtifactError(f"{file} is damaged or no prompt of mptune (it has no task). Train or copy it again.")
    trained_with = (stored_config(file.parent).get("backbone") or {}).get("name", "")
    if public_name(trained_with).removeprefix("./") == card.backbone.removeprefix("./"):  # older cards have no mark
        card = card.model_copy(update={"backbone": trained_with})
    # Rows are read where this machine's user says, never where a stranger's card does.
    return tensors, card.model_copy(update={"tasks": tuple(task.without_paths() for task in card.tasks)})


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
        kind = ArtifactError if folder.is_dir() else MissingArtifact
        raise kind(f"{folder} holds no prompt, nor do its subfolders. {_nearby(folder)}".rstrip())
    return folders


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


def upload(repository: str, folder: Path, *, private: bool, token: str | None) -> str:
    """Upload a folder to the Hugging Face hub, and return its address there."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload soft prompt"))


def _nearby(folder: Path) -> str:
    """Return a hint where the user may have meant a folder beside or below."""
    real = followed(folder)
    for unfinished in (Path(f"{real}.partial"), real / ".partial"):
        if unfinished.exists():
            return f"Its training has not ended; run the same command again to go on from {unfinished.name}."
    below = [p.parent.name for p in folder.glob(f"*/{PROMPT_FILE}")]
    if below:
        return f"Did you mean one of its prompts: {', '.join(sorted(below))}?"
    return "" if folder.exists() else "There is no such folder."


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
