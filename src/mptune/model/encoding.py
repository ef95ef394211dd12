"""Text to token ids, once, and token ids to padded batches."""

import logging
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mptune.config import ExamplesConfig
from mptune.errors import BackboneError, DataError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE, Batch, Pick
from mptune.model.chat import Chat, chat_of, read_behind
from mptune.model.cutting import LONG, FittedText, Spans, Tokenizer, fitted, whole
from mptune.tasks.task import Example, Task, named_rows

logger = logging.getLogger(__name__)

# A tokenizer answers with more than ids: 9 KiB for a text of 46 tokens. A million texts are read in portions.
TEXTS_AT_ONCE = 1_000
CHARACTERS_AT_ONCE = 1_000_000
SAME_START = 4  # label words that share so many first tokens are refused: ranking them would mean decoding them


@dataclass(frozen=True)
class Encoded:
    """Examples of one task as token ids."""

    task: Task
    examples: tuple[Example, ...]
    inputs: tuple[Sequence[int], ...]
    targets: tuple[list[int], ...]
    label_ids: tuple[list[int], ...]  # of each label word; none for free text
    answers: tuple[int, ...]  # which of them is each example's label, IGNORE where it has none
    chat: Chat | None = None  # what a chat template writes around prompt and text; the inputs have it from the text on


def encode(
    task: Task, examples: Sequence[Example], backbone: Backbone, config: ExamplesConfig, prompt_length: int
) -> Encoded:
    """Return examples as the backbone's token ids, cut to the task's length, else to the configured lengths.

    Raises:
        DataError: two label words that cannot be told apart by their first tokens, or a template that does not fit.
    """
    chat, words = chat_for(task, backbone), tuple(label_ids(task, backbone))
    return with_rows(Encoded(task, (), (), (), words, (), chat), examples, backbone, config, prompt_length)


def with_rows(
    frame: Encoded, examples: Sequence[Example], backbone: Backbone, config: ExamplesConfig, prompt_length: int
) -> Encoded:
    """Return examples as token ids, of a task whose label words and place in a chat are known from before.

    Raises:
        DataError: a template that does not fit.
    """
    task, chat, words = frame.task, frame.chat, frame.label_ids
    targets = encode_targets(backbone, [e.target for e in examples], config.max_target_tokens, chat) if examples else []
    most = task.max_input_tokens or config.max_input_tokens
    room = max(map(len, words), default=config.max_target_tokens)  # for what may be written, whatever the targets are
    around = chat.size if chat else 0
    fit = _fitting(backbone, most, prompt_length, room, around) if examples else most
    inputs, cut = _read(backbone, [e.input for e in examples], [e.spans or whole(e.input) for e in examples], fit, chat)
    if cut:
        _say_what_is_cut(task, {examples[i].row: row for i, row in cut.items()}, len(examples), backbone, fit, most)
    places = {value: place for place, value in enumerate(task.verbalizer)}
    answers = tuple(places.get(e.label, IGNORE) if e.label is not None else IGNORE for e in examples)
    return replace(frame, examples=tuple(examples), inputs=tuple(inputs), targets=tuple(targets), answers=answers)


def chat_for(task: Task, backbone: Backbone) -> Chat | None:
    """Return what the backbone's chat template writes around a task's prompt and text; None where it asks for none.

    Raises:
        BackboneError: the task asks, and the backbone has no such template.
    """
    return None if task.chat is None else chat_of(backbone.tokenizer, backbone.config.name, task.chat)


def written_around(backbone: Backbone) -> tuple[str, str]:
    """Return what the tokenizer writes by itself before a text and behind it, as a begin-of-text token."""
    tokenizer = backbone.tokenizer
    bare, whole = (tokenizer("a", add_special_tokens=own)["input_ids"] for own in (False, True))
    start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
    parts = whole[:start], whole[start + len(bare) :]
    before, behind = ("".join(tokenizer.convert_ids_to_tokens(part)) for part in parts)
    return before, behind


def encode_inputs(
    backbone: Backbone, texts: Sequence[str], max_tokens: int, prompt_length: int, room: int
) -> "list[array[int]]":
    """Return the token ids of plain texts, cut at their end to what fits beside the prompt; the prompt is never cut.

    Args:
        room: tokens to leave free after the text; decoder-only models write the target there.

    Raises:
        BackboneError: prompt and target alone fill all positions.
    """
    fit = _fitting(backbone, max_tokens, prompt_length, room)
    return _read(backbone, texts, [whole(text) for text in texts], fit)[0]


def _read(
    backbone: Backbone, texts: Sequence[str], fields: Sequence[Spans], most: int, chat: Chat | None = None
) -> "tuple[list[array[int]], dict[int, FittedText]]":
    """Return the token ids of texts, at most ``most`` each, and by their numbers those that were cut."""

    def read(some: Sequence[str]) -> list[list[int]]:
        if chat:
            return read_behind(backbone.tokenizer, chat.leads[0], some, chat.marks)
        ids: list[list[int]] = backbone.tokenizer(list(some), verbose=False)["input_ids"] if some else []
        return ids

    tokenizer = Tokenizer(
        read=read,
        letters=lambda ids: sum(map(len, backbone.tokenizer.convert_ids_to_tokens(_known(backbone, ids)))),
        longest=lambda: backbone.longest_token,
    )
    ids: list[array[int]] = []  # four bytes a token; a list of numbers takes nine times as much
    cut: dict[int, FittedText] = {}
    between, behind = (chat.between, chat.behind) if chat else ((), ())
    for first, last in _portions(texts):
        rows = fitted(texts[first:last], fields[first:last], most, tokenizer)
        ids += [array("i", [*between, *row.ids[:most], *behind]) for row in rows]
        cut |= {number: row for number, row in enumerate(rows, first) if row.cap is not None}
    return ids, cut


def _known(backbone: Backbone, ids: Sequence[int]) -> list[int]:
    """Return tokens without the unknown, which may stand for any number of letters."""
    return [i for i in ids if i != backbone.tokenizer.unk_token_id]


def _portions(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Yield where portions of texts begin and end."""
    first, characters = 0, 0
    for number, text in enumerate(texts):
        if number - first == TEXTS_AT_ONCE or (characters and characters + len(text) > CHARACTERS_AT_ONCE):
            yield first, number
            first, characters = number, 0
        characters += min(len(text), LONG)  # of a longer one a part is read
    if first < len(texts):
        yield first, len(texts)


def _say_what_is_cut(
    task: Task, cut: Mapping[int, FittedText], count: int, backbone: Backbone, fit: int, most: int
) -> None:
    """Warn, once for each task, which fields of which rows are cut, and what would keep more.

    Raises:
        DataError: not even the template's own words fit.
    """
    bare = next((len(row.ids) for row in cut.values() if len(row.ids) > fit), 0)
    room = f"take a shorter prompt: {backbone.config.name} reads {backbone.positions} positions"
    remedy = "take a larger max_input_tokens, in the task or with --set" if fit == most else room
    if bare:
        raise DataError(
            task.name, [f"the template's own words are {bare} tokens, and {fit} fit: no text would be read; {remedy}"]
        )
    if task.name in backbone.warned_of_cuts:
        return
    backbone.warned_of_cuts.add(task.name)
    rows: dict[str, list[int]] = {}
    for number, row in cut.items():
        for name in dict.fromkeys(row.cut_fields):
            rows.setdefault(name, []).append(number)
    fields = "; ".join(f"{name} of {named_rows(numbers)}" for name, numbers in rows.items())
    logger.warning(
        "%s: %d of %d texts are longer than %d tokens and are cut at the end of a field: %s. To keep more, %s.",
        task.name, len(cut), count, fit, fields, remedy,
    )  # fmt: skip


def encode_targets(
    backbone: Backbone, texts: Sequence[str], max_tokens: int, chat: Chat | None = None
) -> list[list[int]]:
    """Return the token ids of target texts, each closed by the end-of-sequence token, or that of a turn in a chat."""
    eos = chat.end if chat else int(backbone.tokenizer.eos_token_id)
    distinct = [text for text in dict.fromkeys(texts) if text]  # few label words of many rows; none of unlabelled ones
    ids: list[list[int]] = []
    if chat:
        ids = read_behind(backbone.tokenizer, chat.leads[1], distinct, chat.marks)
    elif backbone.is_encoder_decoder and distinct:
        ids = backbone.tokenizer(text_target=distinct, add_special_tokens=False, verbose=False)["input_ids"]
    elif distinct:
        ids = [_continuation(backbone, text) for text in distinct]
    known = dict(zip(distinct, ids, strict=True))
    return [[*known.get(text, [])[: max_tokens - 1], eos] for text in texts]


def label_ids(task: Task, backbone: Backbone) -> list[list[int]]:
    """Return the token ids of each label word; none for free text.

    Raises:
        DataError: two label words with the same first tokens.
    """
    if not task.verbalizer:
        return []
    words = task.label_words
    ids = encode_targets(backbone, words, 64, chat_for(task, backbone))
    problems = []
    alike: dict[tuple[int, ...], list[str]] = {}  # by their first tokens
    for word, tokens in zip(words, ids, strict=True):
        before = alike.setdefault(tuple(tokens[:SAME_START]), [])
        problems += [_alike(backbone, other, word, tokens) for other in before]
        before.append(word)
    if problems:
        raise DataError(task.name, problems)
    return ids


def _alike(backbone: Backbone, other: str, word: str, tokens: Sequence[int]) -> str:
    """Return why two label words cannot be told apart."""
    name, unknown = backbone.config.name, backbone.tokenizer.unk_token_id
    if unknown is not None and unknown in tokens[:SAME_START]:
        return (
            f"the tokenizer of {name} does not know the label words {other!r} and {word!r}, and reads both as "
            f"{backbone.tokenizer.unk_token}; choose words in letters that it knows"
        )
    return (
        f"the label words {other!r} and {word!r} have the same first tokens in {name}; choose words that differ at "
        "their start"
    )


def distinguishing_depth(label_ids: Sequence[Sequence[int]]) -> int:
    """Return the number of first tokens by which all label words differ; 0 where two are the same throughout."""
    for depth in range(1, max(map(len, label_ids)) + 1):
        if len({tuple(ids[:depth]) for ids in label_ids}) == len(label_ids):
            return depth
    return 0


# -- batches ----------------------------------------------------------------------------------------------------------


def collate(picks: Sequence[Pick], data: Sequence[Encoded], backbone: Backbone) -> Batch:
    """Return the batch of some (task, row) pairs."""
    inputs, targets = [data[t].inputs[i] for t, i in picks], [data[t].targets[i] for t, i in picks]
    choices, answers = [data[t].label_ids for t, _ in picks], [data[t].answers[i] for t, i in picks]
    batch = pad_batch(backbone, [t for t, _ in picks], inputs, targets, choices, answers)
    return replace(batch, chat=shared_chat([data[t] for t in dict.fromkeys(t for t, _ in picks)]))


def shared_chat(data: Sequence[Encoded]) -> Chat | None:
    """Return what a chat template writes around the rows of tasks that are read together.

    Raises:
        UsageError: they stand in different places of it, or only some of them in one.
    """
    first = data[0]
    if unlike := [each.task for each in data if each.chat != first.chat]:
        one, other = first.task, unlike[0]
        raise UsageError(
            "tasks that are read together have one place in the model's chat template; got chat: "
            f"{one.chat or 'false'} of {one.name} and chat: {other.chat or 'false'} of {other.name}. Give all the same."
        )
    return first.chat


def pad_batch(
    backbone: Backbone,
    row_tasks: Sequence[int],
    inputs: Sequence[Sequence[int]],
    targets: Sequence[Sequence[int]],
    choices: Sequence[Sequence[list[int]]] = (),
    answers: Sequence[int] | None = None,
) -> Batch:
    """Return one padded batch on the backbone's device.

    Decoder-only models are padded on the left of the text, so that the text's last token stands beside the target.

    Args:
        choices: each row's label words, each word's tokens with its end.
        answers: which of them is the row's label.
    """
    left = not backbone.is_encoder_decoder
    input_ids = pad(inputs, int(backbone.tokenizer.pad_token_id), left=left)
    mask = pad([[1] * len(row) for row in inputs], 0, left=left)
    batch = Batch.of_tasks(row_tasks, input_ids, mask, pad(targets, IGNORE))
    return replace(batch, choices=choices, answers=None if answers is None else torch.tensor(answers)).to(
        backbone.device
    )


def pad(rows: Sequence[Sequence[int]], value: int, *, left: bool = False) -> Tensor:
    """Return rows padded to the longest, at least one wide. B of [T] -> [B, T]"""
    sides = {"batch_first": True, "padding_value": value, "padding_side": "left" if left else "right"}
    padded: Tensor = pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], **sides)  # type: ignore[arg-type]
    return padded if padded.shape[1] else padded.new_full((len(rows), 1), value)


def by_length(picks: Sequence[Pick], data: Sequence[Encoded], batch_size: int) -> Iterator[list[Pick]]:
    """Yield (task, row) pairs in batches of like input length, so that little is padded."""
    order = sorted(picks, key=lambda pick: (len(data[pick[0]].inputs[pick[1]]), pick))
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]


def _fitting(backbone: Backbone, max_tokens: int, prompt_length: int, room: int, around: int = 0) -> int:
    """Return how many tokens of a text fit beside prompt, chat template and target, at most ``max_tokens``."""
    if backbone.positions is None:
        return max_tokens
    limit = backbone.positions - prompt_length - around - (0 if backbone.is_encoder_decoder else room)
    if limit < 1:
        also, remedy = f", {around} tokens of its chat template" if around else "", "a shorter prompt"
        if not backbone.is_encoder_decoder:
            also, remedy = f"{also} and {room} target tokens", "a shorter prompt or a smaller max_target_tokens"
        raise BackboneError(
            f"{backbone.config.name} reads {backbone.positions} positions, and a prompt of {prompt_length} soft tokens"
            f"{also} would leave none for the text. Take {remedy}."
        )
    return min(max_tokens, limit)


def _continuation(backbone: Backbone, text: str) -> list[int]:
    """Return the tokens of a text that follows another, with the space between them.

    Some tokenizers write a space of their own before every text, and `" yes"` would have two.
    """
    texts = ["a", f"a {text}", f" {text}"]
    before, both, alone = backbone.tokenizer(texts, add_special_tokens=False)["input_ids"]
    ids: list[int] = both[len(before) :] if both[: len(before)] == before else alone
    return ids
