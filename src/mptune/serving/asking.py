"""What a request asks for: of which task, with which key, which rows, written how."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import Request

from mptune.answers.prediction import rendered_row, row_like
from mptune.errors import UsageError
from mptune.serving.door import Refused
from mptune.serving.engine import Engine, Pending, Sampling
from mptune.serving.journal import ServedTask
from mptune.serving.keys import ApiKey
from mptune.serving.meters import Meters
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Ready, Store
from mptune.serving.wire import ChatRequest, Fields, Writing
from mptune.tasks.task import Example

# Rows that are read on the loop's own thread: some 0.1 ms each, as much as handing them to another thread takes. More
# would keep other requests waiting.
AT_ONCE = 8


@dataclass(frozen=True)
class Desk:
    """What the routes work with."""

    store: Store
    engine: Engine
    meters: Meters
    config: ServeConfig


def key_of(request: Request) -> ApiKey | None:
    """Return the key of a request; None where nobody needs one."""
    key: ApiKey | None = request.scope.get("mptune.key")
    return key


def visible_to(key: ApiKey | None, store: Store) -> list[str]:
    """Return the names of the tasks that a key may ask, sorted."""
    return [name for name in store.names() if key is None or not key.tasks or name in key.tasks]


def administrator(request: Request) -> None:
    """Refuse who may not change tasks; where there are no keys, this machine's users may."""
    key = key_of(request)
    if key is not None and not key.admin:
        raise Refused(403, f"the key {key.name} may not change tasks; that takes one with admin")


def allowed(store: Store, request: Request, name: str) -> ServedTask:
    """Return a task that the request's key may ask; of others it is not told whether they are there."""
    key = key_of(request)
    if key is None or not key.tasks:
        return store.entry(name)
    entry = store.entry(name) if name in {*key.tasks, *store.aliases()} else None
    if entry is None or entry.name not in key.tasks:
        raise Refused(403, f"the key {key.name} may not ask {name!r:.80}; it may ask {', '.join(key.tasks)}")
    return entry


async def ready_task(store: Store, request: Request, name: str) -> Ready:
    """Return the task that a request asks, as it is now."""
    entry = allowed(store, request, name)
    request.scope["mptune.task"] = entry.name
    return store.ready(entry.name)


def ranks(ready: Ready) -> bool:
    """Return whether a task's label words are ranked; the others write."""
    return bool(ready.words.label_ids) and ready.task.scoring == "labels"


def listed(given: str | Fields | list[str | Fields]) -> list[str | Fields]:
    """Return one input or many as many."""
    return given if isinstance(given, list) else [given]


def only_turn(asked: ChatRequest) -> str:
    """Return the only turn of a user; a soft prompt stands where others would have written instructions."""
    said = [message for message in asked.messages if message.role not in ("system", "developer")]
    if len(asked.messages) != 1 or len(said) != 1 or said[0].role != "user":
        roles = ", ".join(message.role for message in asked.messages)
        raise UsageError("messages wants one turn of the user: the task's soft prompt is its instruction, and was "
                         f"trained on single turns; got {roles}")  # fmt: skip
    content = said[0].content
    if isinstance(content, list):
        if any(part.get("type") != "text" or not isinstance(part.get("text"), str) for part in content):
            raise UsageError('content wants text, or parts of {"type": "text", "text": ...}')
        content = "".join(part["text"] for part in content)
    if content is None:
        raise UsageError("content wants text; got none")
    return content


def examples_of(ready: Ready, inputs: Sequence[str | Fields], config: ServeConfig) -> list[Example]:
    """Return inputs as their task's template writes them.

    Raises:
        UsageError: none, or one that is no row of the task.
        Refused: too many.
    """
    if not inputs:
        raise UsageError("wants one input or more; got none")
    if len(inputs) > config.max_rows:
        raise Refused(413, f"a request has at most {config.max_rows:,} inputs; got {len(inputs):,}. Send several")
    fields = ready.task.text_fields
    examples = []
    for number, each in enumerate(inputs):
        if isinstance(each, str):
            if len(fields) != 1:
                raise UsageError(f"{ready.name} reads {', '.join(fields)}: send {row_like(ready.task)} in place of a "
                                 f"text (input {number})")  # fmt: skip
            each = {fields[0]: each}
        try:
            examples.append(rendered_row(ready.task, each, number + 1))
        except ValueError as error:
            raise UsageError(f"input {number}: {error}") from None
    return examples


async def queued(
    desk: Desk, ready: Ready, inputs: Sequence[str | Fields], sampling: Sampling | None = None
) -> list[Pending]:
    """Queue inputs, and return them as rows that wait for their answers."""

    def queue() -> list[Pending]:
        return desk.engine.submit(ready, examples_of(ready, inputs, desk.config), sampling)

    return queue() if len(inputs) <= AT_ONCE else await asyncio.to_thread(queue)


async def answers_to(rows: Sequence[Pending]) -> list[Any]:
    """Return the answers to rows; who hangs up is not answered."""
    try:
        return await asyncio.gather(*(asyncio.wrap_future(row.answer) for row in rows))
    except BaseException:
        for row in rows:
            row.answer.cancel()
        raise


def sampling_of(asked: Writing, ready: Ready, engine: Engine, heard: Callable[[str], None] | None = None) -> Sampling:
    """Return how a request's texts are written; a label word that is written needs no more tokens than the longest."""
    words = ready.words.label_ids
    own = max(map(len, words)) if words else engine.config.max_target_tokens
    stop = [asked.stop] if isinstance(asked.stop, str) else asked.stop or []
    stops = tuple(s for s in (*stop, ready.task.stop) if s)
    return Sampling(asked.max_tokens or own, asked.temperature or 0.0, asked.top_p or 1.0, asked.seed, stops, heard)
