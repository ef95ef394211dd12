"""Where soft prompt, text and answer stand in a chat model's own template, as token ids.

    user    [start of the user's turn][prompt][text][end of it, start of the answer]
    system  [start of the system turn][prompt][start of the user's turn][text][end of it, start of the answer]
    first   [prompt][start of the user's turn][text][end of it, start of the answer]     as PEFT puts it

What the template writes around a text is read as it stands, its special tokens among them (the first is the BOS, where
a model has one). A row's text is never read as special tokens: it could end its own turn.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from transformers import PreTrainedTokenizerBase

from mptune.errors import BackboneError, first_line
from mptune.tasks.task import ChatPlace

# Where what is ours stands; private letters, since some templates trim spaces and none writes these.
PROMPT, TEXT, ANSWER = "\ue0a1", "\ue0a2", "\ue0a3"
_PLAIN: dict[str, Any] = {"add_special_tokens": False, "split_special_tokens": True, "verbose": False}
# Llama 3 writes today's date before a text, by a function that templates are given; a prompt is read on other days too.
A_DAY = "{%- macro strftime_now(form) -%}26 Jul 2024{%- endmacro -%}"


@dataclass(frozen=True)
class Chat:
    """What a chat template writes around soft prompt, text and answer."""

    before: tuple[int, ...]  # before the prompt
    between: tuple[int, ...]  # behind the prompt, before the text
    behind: tuple[int, ...]  # behind the text, before the answer
    end: int  # the token that closes an answer
    opening: str  # before, and
    frame: tuple[str, str]  # between and behind, as text, for who reads the prompt in another program
    leads: tuple[str, str]  # the plain words that a text, and an answer, follow at once; no words where a prompt does
    marks: tuple[str, ...] = ()  # what it writes as one token that the tokenizer does not call special

    @property
    def size(self) -> int:
        """How many tokens the template writes around prompt and text."""
        return len(self.before) + len(self.between) + len(self.behind)


def read_behind(
    tokenizer: PreTrainedTokenizerBase, lead: str, texts: Sequence[str], marks: Sequence[str] = ()
) -> list[list[int]]:
    """Return the token ids of texts as they are where they follow some words, none of them a special token.

    Some tokenizers write a space of their own before what they begin with.

    Args:
        marks: of a template, which are no special tokens to the tokenizer: a space breaks them in a text.
    """
    for mark in marks:
        texts = [text.replace(mark, f"{mark[:1]} {mark[1:]}") for text in texts]
    first, *both = tokenizer([lead, *(lead + text for text in texts)], **_PLAIN)["input_ids"]
    rows: list[list[int]] = [ids[len(first) :] for ids in both]
    merged = [n for n, ids in enumerate(both) if ids[: len(first)] != first]  # with the last of those words
    if merged:
        for n, ids in zip(merged, tokenizer([texts[n] for n in merged], **_PLAIN)["input_ids"], strict=True):
            rows[n] = ids
    return rows


@lru_cache(maxsize=64)
def chat_of(tokenizer: PreTrainedTokenizerBase, model: str, place: ChatPlace) -> Chat:
    """Return what a model's chat template writes around a prompt at some place.

    Args:
        model: its name, for messages.

    Raises:
        BackboneError: it has no chat template, none that shows what it is given, or no turn of that kind.
    """
    if not tokenizer.chat_template:
        raise BackboneError(
            f"{model} has no chat template, and the task says chat: {place}. Remove chat from the task, or take a "
            "model that was trained for conversations."
        )
    user = {"role": "user", "content": PROMPT + TEXT if place == "user" else TEXT}
    turns = [{"role": "system", "content": PROMPT}, user] if place == "system" else [user]
    opened = _rendered(tokenizer, model, place, turns, opens=True)
    closed = _rendered(tokenizer, model, place, [*turns, {"role": "assistant", "content": ANSWER}], opens=False)
    if place == "first":
        opened = PROMPT + opened
    marks = [opened.find(PROMPT), opened.find(TEXT), closed.find(ANSWER)]
    if -1 in marks or marks[0] > marks[1] or opened.count(PROMPT) + opened.count(TEXT) != 2:
        raise BackboneError(
            f"the chat template of {model} does not show what it is given once and in its order, so that a prompt has "
            f"no place in it with chat: {place}. Write chat: first, or remove chat from the task."
        )
    before, rest = opened.split(PROMPT)
    between, behind = rest.split(TEXT)
    ids = {"before": before, "between": between, "behind": behind}
    return Chat(
        **{part: tuple(_ids(tokenizer, text)) for part, text in ids.items()},
        end=_end(tokenizer, closed[marks[2] + len(ANSWER) :]),
        opening=before,
        frame=(between, behind),
        leads=(_lead(tokenizer, between), _lead(tokenizer, behind)),
        marks=tuple(
            sorted(m for m in _special(tokenizer) - {*tokenizer.all_special_tokens} if m in closed and m.strip())
        ),
    )


def _lead(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return what stands behind the last special token of a text."""
    return text[max(text.rfind(token) + len(token) if token in text else 0 for token in _special(tokenizer)) :]


def _end(tokenizer: PreTrainedTokenizerBase, behind: str) -> int:
    """Return the token with which a turn ends that an answer is: the special one behind it, else the model's own."""
    first, *_ = [*_ids(tokenizer, behind), int(tokenizer.eos_token_id)]
    return first if tokenizer.convert_ids_to_tokens(first) in _special(tokenizer) else int(tokenizer.eos_token_id)


def _special(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Return the tokens that no text is made of; some models name the end of a turn among the added ones only."""
    return {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}


def _rendered(
    tokenizer: PreTrainedTokenizerBase, model: str, place: str, turns: list[dict[str, str]], *, opens: bool
) -> str:
    """Return turns as the template writes them, on one day and without a part to think in."""
    how: dict[str, Any] = {"tokenize": False, "add_generation_prompt": opens, "enable_thinking": False}
    try:
        written = tokenizer.apply_chat_template(turns, chat_template=A_DAY + tokenizer.get_chat_template(), **how)
    except Exception as error:  # a template is a stranger's program, and raises what it likes
        raise BackboneError(
            f"the chat template of {model} cannot write a conversation with chat: {place}: {first_line(error)}. "
            "Write another place (user, system or first), or remove chat from the task."
        ) from None
    return str(written)


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return ids
