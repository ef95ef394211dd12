"""A prompt as more tokens of its model: a folder that any engine which runs the model can use, by a text.

Each soft token becomes a token with a name, `<mptune-TASK-0>` and so on, whose row of the embedding table it is. What
is written before a text and behind it is found by trying, so that the folder's tokenizer reads just what
`Backbone.prompted` lays out; where no text does that, there is no folder.

Rows of other tokens stay as they were, and so do their logits. Where the output layer is the embedding table, the new
tokens have logits of their own, and mostly no bias that would lower them; so `suppress_tokens` keeps them from being
written, in every model alike.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mptune.config import MOST_TOKENS, ExamplesConfig
from mptune.errors import BackboneError, UsageError
from mptune.files import json_object, refuse_existing, write_file, write_folder
from mptune.model.backbone import Backbone
from mptune.model.chat import Chat
from mptune.model.encoding import Encoded, collate, encode, written_around
from mptune.prompts.modelcard import vocabulary_card
from mptune.prompts.prompt import MultitaskPrompt
from mptune.tasks.task import Example, Task
from mptune.tasks.templates import pieces

TRIED = ("blue.", "A", "3 of 4", "(yes)", "Äpfel")  # values of fields, as a row may hold
SAME_ANSWER = (
    0.2  # of the logits' deviation: bfloat16 rounds by some hundredths of it, and a wrong row changes all of it
)


class Frame(NamedTuple):
    """What is written around a text."""

    before: str  # the soft tokens among it
    behind: str
    adds: bool  # whether the tokenizer is to add its special tokens by itself


def export_vocabulary(prompt: MultitaskPrompt, folder: Path, *, backbone: Backbone, task: str | None = None) -> None:
    """Write the backbone with one task's prompt among its tokens, as a folder that transformers opens.

    Args:
        backbone: the model that the prompt was made for; it stays as it is.
        task: which one; may be left out where there is only one.

    Raises:
        BackboneMismatch: the prompt was made for another model.
        UnknownNameError: no such task in this prompt.
        UsageError: the folder exists already; several tasks and no name; a backbone in few bits, or that has these
            tokens.
        BackboneError: no text is read as the prompt and a row are, or the model does not answer alike.
    """
    prompt.check_backbone(backbone)
    refuse_existing(folder)
    number = prompt.task_number(task)
    chosen, soft = prompt.tasks[number], prompt.collapse()[number]
    if backbone.config.bits is not None:
        raise UsageError(
            f"the backbone {backbone.config.name} is in {backbone.config.bits} bits, and a copy with more tokens is "
            "made of whole weights. Name the whole model with --backbone; the prompt fits it too."
        )
    names = [f"<mptune-{chosen.name}-{n}>" for n in range(len(soft))]
    tokenizer, ids = _with_names(backbone, names)
    rows = _rows(chosen, backbone, len(soft))
    frame = _frame(rows, "".join(names), ids, tokenizer, backbone)
    model = _with_rows(backbone, soft, ids)
    _refuse_other_answers(model, ids, rows, soft, backbone)
    out = model.get_output_embeddings().weight
    shared = sum(getattr(module, "weight", None) is out for module in model.modules()) > 1
    _forbid(model, ids, rows.chat, backbone)

    def write(scratch: Path) -> None:
        tokenizer.save_pretrained(scratch)
        model.save_pretrained(scratch)
        if not shared:  # transformers 5 calls T5's tied whatever they are; others would tie them, and scale the logits
            config = json_object(scratch / "config.json") or {}
            write_file(scratch / "config.json", json.dumps({**config, "tie_word_embeddings": False}, indent=2) + "\n")
        card = prompt.card.of_one(chosen).shareable()
        page = vocabulary_card(
            card, names, frame[:2], backbone.is_encoder_decoder, adds=frame.adds, in_a_chat=rows.chat is not None
        )
        write_file(scratch / "README.md", page)

    write_folder(folder, write)


def _with_names(backbone: Backbone, names: Sequence[str]) -> tuple[Any, list[int]]:
    """Return a copy of the tokenizer that knows these tokens, and their ids.

    Raises:
        UsageError: it knows one already.
    """
    if known := set(names) & set(backbone.tokenizer.get_vocab()):
        raise UsageError(
            f"the backbone {backbone.config.name} has a token {min(known)} already. Give the task another name, or "
            "take the model without it."
        )
    tokenizer: Any = copy.deepcopy(backbone.tokenizer)
    tokenizer.add_tokens(list(names), special_tokens=True)
    return tokenizer, tokenizer.convert_tokens_to_ids(list(names))


def _rows(task: Task, backbone: Backbone, length: int) -> Encoded:
    """Return some rows of a task as mptune reads them."""
    texts = ["".join(words + (value if field else "") for words, field in pieces(task.template)) for value in TRIED]
    target = next(iter(task.label_words), TRIED[0])
    examples = [Example(task.name, row, text, target, None, ()) for row, text in enumerate(texts, start=1)]
    whole = task.model_copy(update={"max_input_tokens": MOST_TOKENS})  # a cut row would be taken for one read otherwise
    return encode(whole, examples, backbone, ExamplesConfig(max_target_tokens=8), length)


def _frame(rows: Encoded, soft: str, ids: list[int], tokenizer: Any, backbone: Backbone) -> Frame:
    """Return what to write around a text so that a tokenizer reads it as mptune lays it out.

    Raises:
        BackboneError: nothing does.
    """
    before = list(rows.chat.before) if rows.chat else []
    wanted = [[*before, *ids, *read] for read in rows.inputs]
    for frame in _frames(rows.chat, soft, backbone):
        texts = [frame.before + example.input + frame.behind for example in rows.examples]
        if tokenizer(texts, add_special_tokens=frame.adds)["input_ids"] == wanted:
            return frame
    raise BackboneError(
        f"the tokenizer of {backbone.config.name} reads no text as the soft tokens followed by a row, as mptune lays "
        "them out: before a text, and before the begin-of-text token that the tokenizer adds, if any. Export with --to "
        "prompt-tuning, or with --to vllm."
    )


def _frames(chat: Chat | None, soft: str, backbone: Backbone) -> Iterator[Frame]:
    """Yield what may be written around a text, the simplest first; some tokenizers join no space to what follows."""
    if chat:
        first = [(chat.opening + soft + chat.frame[0], chat.frame[1], False)]
    else:
        before, behind = written_around(backbone)
        first = [(soft, "", True), (soft + before, behind, False)]
    for start, end, adds in first:
        yield Frame(start, end, adds)
        yield Frame(start + " ", end, adds)


@torch.no_grad()
def _with_rows(backbone: Backbone, soft: Tensor, ids: Sequence[int]) -> Any:
    """Return a copy of the model in which these tokens' rows of the embedding table are soft tokens. [L, D]

    transformers' own way to a larger table ties the output layer of some models whose two tables differ.
    """
    model = copy.deepcopy(backbone.model)
    table, out = model.get_input_embeddings(), model.get_output_embeddings()
    tied, had = out.weight is table.weight, table.weight.shape[0]
    more = max(0, max(ids) + 1 - had)
    read = torch.cat([table.weight, table.weight.new_zeros(more, backbone.width)])
    read[list(ids)] = (soft / backbone.embedding_scale).to(read)
    _replace(model, table.weight, read)
    if not tied:  # padding is never an answer either
        _replace(model, out.weight, torch.cat([out.weight, out.weight[[backbone.tokenizer.pad_token_id] * more]]))
    for holder, name in ((out, "bias"), (model, "final_logits_bias")):
        if (bias := getattr(holder, name, None)) is not None:
            never = bias.new_full((*bias.shape[:-1], more), torch.finfo(bias.dtype).min / 2)
            wider = torch.cat([bias, never], dim=-1)
            setattr(holder, name, nn.Parameter(wider, requires_grad=False) if isinstance(bias, nn.Parameter) else wider)
    for config in (model.config, model.config.get_text_config(decoder=True)):
        for field in ("vocab_size", "decoder_vocab_size"):
            if getattr(config, field, None) == had:
                setattr(config, field, had + more)
    return model


def _replace(model: Any, old: Tensor, values: Tensor) -> None:
    """Let every layer that has a table have another, so that those which shared one go on sharing."""
    weight = nn.Parameter(values, requires_grad=False)
    for module in model.modules():
        if getattr(module, "weight", None) is old:
            module.weight = weight
            for field in ("num_embeddings", "out_features"):
                if hasattr(module, field):
                    setattr(module, field, len(weight))


@torch.no_grad()
def _refuse_other_answers(model: Any, ids: Sequence[int], rows: Encoded, soft: Tensor, backbone: Backbone) -> None:
    """Raise BackboneError where a model that reads soft tokens by their names answers otherwise than the backbone.

    Some families look up more of a token than one row of one table.
    """
    batch = collate([(0, 0)], [rows], backbone)
    wanted = backbone(soft[None].to(backbone.device), batch).logits[0, 0].float()
    known = [token for token in range(len(wanted)) if token not in set(ids)]  # some are rows that were to spare
    before = list(rows.chat.before) if rows.chat else []
    given = {"input_ids": torch.tensor([[*before, *ids, *rows.inputs[0]]], device=backbone.device)}
    if backbone.is_encoder_decoder:
        given["decoder_input_ids"] = torch.tensor([[backbone.start_token]], device=backbone.device)
    try:
        found = model(**given).logits[0, -1, : len(wanted)].float()
    except (IndexError, RuntimeError):  # a token without a row in a table that is not known here
        found = torch.full_like(wanted, torch.nan)
    if not bool((found - wanted)[known].abs().max() <= SAME_ANSWER * wanted.std()):
        raise BackboneError(
            f"a copy of {backbone.config.name} with more tokens answers otherwise than the model with the prompt: its "
            "family reads more of a token than a row of its embedding table. Export with --to prompt-tuning, or with "
            "--to vllm."
        )


def _forbid(model: Any, ids: Sequence[int], chat: Chat | None, backbone: Backbone) -> None:
    """Let a model write as mptune lets it, and never these tokens."""
    how = model.generation_config
    how.suppress_tokens = list(ids)
    how.eos_token_id = sorted({int(backbone.tokenizer.eos_token_id), *([chat.end] if chat else [])})
    how.pad_token_id = int(backbone.tokenizer.pad_token_id)
    if backbone.is_encoder_decoder:
        how.decoder_start_token_id = backbone.start_token
