"""Prompts to and from PEFT, whose multitask adapters hold the same three tensors under other names.

    shared  [L, D]     prompt_embeddings
    u       [K, L, R]  prefix_task_cols
    v       [K, R, D]  prefix_task_rows

An adapter is a JSON and a safetensors file; both are read and written here, so that PEFT need not be installed.

Two traps of PEFT's own. It hands a model the bare rows of its embedding table; Marian and its kin, which scale them
within their forward pass, read another text there than here, and no adapter answers alike on both sides. And it drops
position ids: a decoder-only model answers alike where a batch is padded on the right, or not at all.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mptune.config import EMBEDDED
from mptune.errors import ArtifactError, BackboneMismatch, MissingArtifact, UsageError
from mptune.files import json_object, refuse_existing, write_file, write_folder
from mptune.model.backbone import Backbone
from mptune.model.encoding import chat_for
from mptune.model.shapes import check_shape
from mptune.prompts.card import Card, public_name
from mptune.prompts.folder import refuse_unsound
from mptune.prompts.modelcard import adapter_card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.stored import AdapterKind, first_problem
from mptune.prompts.vectors import TaskVectors
from mptune.tasks.task import Task

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_TENSORS = "adapter_model.safetensors"
ADAPTER_PICKLE = "adapter_model.bin"
SHARED, U, V = "prompt_embeddings", "prefix_task_cols", "prefix_task_rows"
MULTITASK_TUNING, PLAIN_TUNING = "MULTITASK_PROMPT_TUNING", "PROMPT_TUNING"
TENSORS_OF = {MULTITASK_TUNING: {SHARED, U, V}, PLAIN_TUNING: {SHARED}}


def export_peft(
    prompt: MultitaskPrompt,
    folder: Path,
    kind: AdapterKind,
    *,
    backbone: Backbone,
    task: str | None = None,
) -> None:
    """Write a prompt as an adapter folder that `PeftModel.from_pretrained(model, folder)` opens.

    Args:
        kind: ``peft`` keeps shared prompt and task vectors of all tasks; PEFT then wants ``task_ids`` in every call.
            ``prompt-tuning`` collapses one task into an ordinary soft prompt; what a chat template writes before the
            prompt stands in it as the first of its soft tokens, since PEFT puts them before everything.
        backbone: the model that the prompt was made for.
        task: which one ``prompt-tuning`` collapses; may be left out where there is only one.

    Raises:
        BackboneMismatch: the prompt was made for another model.
        UnknownNameError: no such task in this prompt.
        UsageError: the folder exists already; several tasks and no name; a name for an adapter that holds all, or
            tasks whose prompts stand inside a chat template.
    """
    prompt.check_backbone(backbone)
    refuse_existing(folder)
    config: dict[str, Any] = {
        "task_type": _task_type(backbone),
        "base_model_name_or_path": None if prompt.card.backbone == EMBEDDED else public_name(prompt.card.backbone),
        "revision": prompt.card.revision,
        "inference_mode": True,
        "num_virtual_tokens": prompt.prompt_length,
        "token_dim": int(prompt.shared.shape[1]),
        "num_transformer_submodules": 1,  # PEFT's default for encoder-decoders, 2, means a decoder prompt too
        "prompt_tuning_init": "RANDOM",  # any other wants its source again, whenever the adapter is opened
    }
    if kind == "peft":
        if task is not None:
            raise UsageError(f"an adapter of kind peft holds all tasks; name {task!r} with kind prompt-tuning only")
        _refuse_inside_chats(prompt, backbone)
        card, parts = prompt.card, prompt.tensors()
        tensors = {SHARED: parts["shared"], U: parts["u"], V: parts["v"]}
        config |= {"peft_type": MULTITASK_TUNING, "num_tasks": len(prompt.tasks), "num_ranks": prompt.rank}
    else:
        number = prompt.task_number(task)
        card = prompt.card.of_one(prompt.tasks[number])
        whole = backbone.begun(prompt.collapse()[number : number + 1], chat_for(prompt.tasks[number], backbone))[0]
        tensors = {SHARED: whole.cpu().contiguous()}
        config |= {"peft_type": PLAIN_TUNING, "num_virtual_tokens": len(whole)}

    def write(scratch: Path) -> None:
        write_file(scratch / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
        header = {"card": card.shareable().model_dump_json(exclude_none=True)}
        write_file(scratch / ADAPTER_TENSORS, save(tensors, metadata=header))
        chat = chat_for(card.tasks[0], backbone)
        frame, begins = (chat.frame, len(chat.before)) if chat else (None, 0)
        length = int(config["num_virtual_tokens"])
        page = adapter_card(card, length, backbone.is_encoder_decoder, frame, begins)
        write_file(scratch / "README.md", page)

    write_folder(folder, write)


def _refuse_inside_chats(prompt: MultitaskPrompt, backbone: Backbone) -> None:
    """Raise UsageError where tasks' prompts stand behind what a chat template writes: no task vectors make that."""
    if inside := [each.name for each in prompt.tasks if (chat := chat_for(each, backbone)) and chat.before]:
        raise UsageError(
            f"an adapter of kind peft stands before everything, and the prompt of {', '.join(inside)} inside the "
            "model's chat template. Take kind prompt-tuning, which carries what the template writes before it."
        )


def refuse_foreign(folder: Path) -> None:
    """Raise ArtifactError where a folder holds no adapter that can be imported, which is told without a model."""
    _checked_kind(folder, _read_config(folder))


def import_peft(folder: Path, *, backbone: Backbone, tasks: Sequence[Task] = ()) -> MultitaskPrompt:
    """Return the prompt of a PEFT adapter; a plain one becomes a prompt of one task whose vectors are one.

    Args:
        backbone: the model that the adapter was trained for.
        tasks: one per pair of task vectors, in their order. Where absent, those that `export_peft` wrote into the
            file; else ``task_0`` and so on, whose text goes in as it is.

    Raises:
        ArtifactError: no adapter, a damaged one, a pickle, or an adapter that is no soft prompt before the input.
        BackboneMismatch: the adapter was made for another model.
        ShapeError: tensors that do not fit each other.
        UsageError: more or fewer tasks than the adapter has.
    """
    config = _read_config(folder)
    kind = _checked_kind(folder, config)
    tensors, card = _read_tensors(folder, TENSORS_OF[kind])
    shared = tensors[SHARED]
    check_shape(SHARED, shared, "L D")
    _check_backbone(folder, config, shared.shape[1], card, backbone)
    _refuse_decoder_prompt(folder, config, len(shared))
    length, width = shared.shape
    check_shape(SHARED, shared, "L D", L=config.get("num_virtual_tokens") or length)
    if kind == MULTITASK_TUNING:
        check_shape(U, tensors[U], "K L R", L=length)
        count, _, rank = tensors[U].shape
        check_shape(V, tensors[V], "K R D", K=count, R=rank, D=width)
        vectors = TaskVectors(tensors[U], tensors[V])
    else:
        count, vectors = 1, TaskVectors(torch.ones(1, length, 1), torch.ones(1, 1, width))
    known = tuple(tasks) or (card.tasks if card else _nameless_tasks(count))
    begins = _chat_before(folder, known, card, backbone)
    if begins >= length:  # which no prompt of ours is
        raise ArtifactError(
            f"{folder} should begin with the {begins} soft tokens of its model's chat template, and has {length} in "
            "all. Export it again."
        )
    shared, vectors = shared[begins:], TaskVectors(vectors.u[:, begins:], vectors.v)
    if len(known) != count:
        names = ", ".join(t.name for t in known)
        raise UsageError(f"{folder} holds {count} tasks; got {len(known)}: {names}. Name one for each, in their order.")
    imported = Card(
        stage="imported",
        tasks=tuple(t.without_paths() for t in known),
        backbone=backbone.config.name,
        revision=backbone.config.revision,
        fingerprint=backbone.fingerprint,
    )
    return MultitaskPrompt(shared, vectors, imported)


def _chat_before(folder: Path, tasks: Sequence[Task], card: Card | None, backbone: Backbone) -> int:
    """Return how many of an adapter's first rows are what the chat template writes before a prompt.

    Raises:
        UsageError: an adapter that PEFT has trained, for a task whose prompt stands elsewhere than PEFT's.
    """
    before = [len(chat.before) for task in tasks if (chat := chat_for(task, backbone))]
    if any(before) and (card is None or [t.chat for t in card.tasks] != [t.chat for t in tasks]):
        raise UsageError(
            f"{folder} stands before everything, as PEFT puts it. Write chat: first in the task in place of chat: "
            f"{tasks[0].chat}."
        )
    return max(before, default=0)


def _task_type(backbone: Backbone) -> str:
    return "SEQ_2_SEQ_LM" if backbone.is_encoder_decoder else "CAUSAL_LM"


def _nameless_tasks(count: int) -> tuple[Task, ...]:
    return tuple(Task(name=f"task_{k}", template="{text}", target="{target}") for k in range(count))


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / ADAPTER_CONFIG
    if not file.is_file():
        below = sorted(path.parent.name for path in folder.glob(f"*/{ADAPTER_CONFIG}"))
        hint = f"Did you mean one of its adapters: {', '.join(below)}?" if below else ""
        if not folder.is_dir():
            raise MissingArtifact(f"there is no folder {folder} with a PEFT adapter. Check the spelling.")
        raise ArtifactError(f"{folder} is no PEFT adapter: it has no {ADAPTER_CONFIG}. {hint}".rstrip())
    config = json_object(file)
    if config is None:
        raise ArtifactError(f"{file} is damaged: it is no JSON object. Save or copy the adapter again.")
    wants = {
        "base_model_name_or_path": str,
        "task_type": str,
        "num_virtual_tokens": int,
        "num_transformer_submodules": int,
    }
    for field, kind in wants.items():
        if not isinstance(config.get(field), kind | None):
            raise ArtifactError(
                f"{file} is damaged: {field} has the type {type(config[field]).__name__}, and wants {kind.__name__}. "
                "Save or copy the adapter again."
            )
    return config


def _checked_kind(folder: Path, config: dict[str, Any]) -> str:
    """Return the adapter's type if it is a soft prompt before the input."""
    kind = str(config.get("peft_type"))
    if kind not in TENSORS_OF:
        raise ArtifactError(
            f"{folder} is an adapter of type {kind:.60}; only {MULTITASK_TUNING} and {PLAIN_TUNING} are soft prompts "
            "that stand before the input, and can be imported. Use any other in PEFT itself."
        )
    return kind


def _read_tensors(folder: Path, wanted: set[str]) -> tuple[dict[str, Tensor], Card | None]:
    """Return an adapter's tensors, and the card in their header where `export_peft` wrote them."""
    file = folder / ADAPTER_TENSORS
    if not file.is_file() and (folder / ADAPTER_PICKLE).is_file():
        raise ArtifactError(
            f"{folder} holds {ADAPTER_PICKLE}, a pickle: opening one can run any program, so it is not read here. If "
            "you trust it, load it in PEFT and convert it: model.save_pretrained(folder, safe_serialization=True)"
        )
    if not file.is_file():
        raise ArtifactError(f"{folder} has no {ADAPTER_TENSORS}. Save or copy the adapter again.")
    try:
        with safe_open(file, framework="pt") as stored:
            header = (stored.metadata() or {}).get("card")
            card = Card.model_validate_json(header) if header else None
            tensors = {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, ValueError, OSError, TypeError, RuntimeError, AttributeError) as error:
        raise ArtifactError(f"{file} is damaged ({first_problem(error)}). Save or copy the adapter again.") from None
    if set(tensors) != wanted:
        raise ArtifactError(
            f"{file} should hold {', '.join(sorted(wanted))} and nothing else; it holds {', '.join(sorted(tensors))}. "
            "Modules or embeddings that were trained beside a soft prompt cannot be imported."
        )
    refuse_unsound(file, tensors)
    return tensors, card


def _check_backbone(folder: Path, config: dict[str, Any], width: int, card: Card | None, backbone: Backbone) -> None:
    """Raise BackboneMismatch where an adapter cannot belong to the backbone; warn where it does not seem to."""
    name, trained_for = backbone.config.name, (config.get("base_model_name_or_path") or "")[:200]
    made_for = f"{folder} was made for {trained_for or 'another model'}"
    task_type = _task_type(backbone)
    if config.get("task_type") not in (None, task_type):
        raise BackboneMismatch(
            f"{made_for} as a {config['task_type']:.60}; {name} is a {task_type}. Load the right model."
        )
    if width != backbone.width:
        raise BackboneMismatch(
            f"{made_for}, whose embeddings are {width} wide; those of {name} are {backbone.width} wide. "
            "Load the right model."
        )
    if card and card.fingerprint != backbone.fingerprint:
        raise BackboneMismatch(f"{made_for}; a soft prompt fits no other, and {name} is another. Load the right model.")
    if not card and trained_for and Path(str(trained_for)).name != Path(name).name:
        logger.warning("%s; it is imported for %s, and means nothing if that is another model.", made_for, name)


def _refuse_decoder_prompt(folder: Path, config: dict[str, Any], rows: int) -> None:
    submodules = config.get("num_transformer_submodules")
    if submodules is None:
        submodules = 2 if config.get("task_type") == "SEQ_2_SEQ_LM" else 1  # as PEFT reads it
    if submodules != 1:
        raise ArtifactError(
            f"{folder} has a decoder prompt: num_transformer_submodules is {submodules}, PEFT's default for "
            f"encoder-decoders, so its {rows} rows are {config.get('num_virtual_tokens')} soft tokens for the encoder "
            "and as many for the decoder. Here, and in PEFT's own generate(), a prompt stands before the encoder's "
            "input only, and the second half would be lost. Train it again with num_transformer_submodules=1."
        )
