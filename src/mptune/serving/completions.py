"""Texts in OpenAI's shape: whole, or as a stream of events."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from mptune.errors import UsageError
from mptune.model.writing import as_meant
from mptune.serving.asking import Desk, answers_to, queued, ranks, ready_task, sampling_of
from mptune.serving.door import told_of
from mptune.serving.engine import Engine, Pending, Ranked, WrittenText
from mptune.serving.store import Ready
from mptune.serving.wire import Fields, Usage, Writing
from mptune.tasks.task import Example

EVENTS = "text/event-stream"


async def completed(
    desk: Desk, asked: Writing, inputs: Sequence[str | Fields], request: Request, *, odds: bool, chat: bool
) -> Response:
    """Return the texts of a request.

    Args:
        odds: whether the log-probabilities of what was written are told.
        chat: whether a conversation was asked for.
    """
    ready = await ready_task(desk.store, request, asked.model)
    made = Completion(asked, chat=chat, odds=odds)
    many = [each for each in inputs for _ in range(asked.n or 1)]
    if asked.stream and len(many) > 1:
        raise UsageError("stream wants one prompt and n=1; ask for the others in requests of their own")
    if asked.stream and not ranks(ready):
        heard = asyncio.Queue[str]()
        row = await _listened(desk, made, ready, many, heard)
        return StreamingResponse(_streamed(desk, made, ready, row, heard), media_type=EVENTS)
    if ranks(ready):
        texts = _words(ready, await answers_to(await queued(desk, ready, many)))
    else:
        rows = await queued(desk, ready, many, sampling_of(asked, ready, desk.engine))
        texts = _meant(desk.engine, ready, await answers_to(rows))
    desk.meters.answered(ready.name, len(texts))
    if asked.stream:
        return StreamingResponse(made.events_of(texts[0]), media_type=EVENTS)
    tokens = desk.engine.backbone.tokenizer.convert_ids_to_tokens
    return JSONResponse(made.whole(texts, [list(tokens(list(text.pieces))) for text in texts]))


def _words(ready: Ready, found: Sequence[Ranked]) -> list[WrittenText]:
    """Return the likeliest label words."""
    words = ready.task.label_words
    return [WrittenText(words[each.best], True, each.tokens, 1) for each in found]


async def _listened(
    desk: Desk, made: "Completion", ready: Ready, inputs: Sequence[str | Fields], heard: "asyncio.Queue[str]"
) -> Pending:
    """Queue a row, and hear from the engine's thread what is written of it; slips are told before a stream begins."""
    loop = asyncio.get_running_loop()

    def tell(text: str) -> None:
        loop.call_soon_threadsafe(heard.put_nowait, text)

    (row,) = await queued(desk, ready, inputs, sampling_of(made.asked, ready, desk.engine, tell))
    return row


async def _streamed(
    desk: Desk, made: "Completion", ready: Ready, row: Pending, heard: "asyncio.Queue[str]"
) -> AsyncIterator[bytes]:
    answer: asyncio.Future[WrittenText] = asyncio.wrap_future(row.answer)
    stops = row.sampling.stop if row.sampling else ()
    told = ""
    try:
        while not answer.done() or not heard.empty():
            waits = asyncio.ensure_future(heard.get())
            either: list[asyncio.Future[Any]] = [waits, answer]
            try:
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if not waits.done():
                    break
            finally:
                waits.cancel()  # also where somebody hangs up; of what has come it takes nothing
            sure = _sure(waits.result(), stops)
            if len(sure) > len(told) and sure.startswith(told):
                yield made.event(sure[len(told) :])
                told = sure
        whole = await answer
        if len(whole.text) > len(told):
            yield made.event(whole.text[len(told) :])
        for event in made.ends(whole):
            yield event
        desk.meters.answered(ready.name, 1)
    except Exception as error:  # the status is sent already
        yield f"data: {json.dumps(told_of(error))}\n\n".encode()
    finally:
        row.answer.cancel()


class Completion:
    """The shape of one request's completions."""

    def __init__(self, asked: Writing, *, chat: bool, odds: bool) -> None:
        self.asked, self._chat, self._odds = asked, chat, odds
        self._kind = "chat.completion" if chat else "text_completion"
        self._id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._made = int(time.time())

    def whole(self, texts: Sequence[WrittenText], pieces: Sequence[list[str]]) -> dict[str, Any]:
        """Return the body of an answer that is not streamed."""
        choices = [self._choice(n, text, of) for n, (text, of) in enumerate(zip(texts, pieces, strict=True))]
        usage = usage_of([t.tokens for t in texts[:: self.asked.n or 1]], [t.written for t in texts])
        return {**self._head(self._kind), "choices": choices, "usage": usage.model_dump()}

    def _choice(self, number: int, text: WrittenText, pieces: list[str]) -> dict[str, Any]:
        reason = "stop" if text.ended else "length"
        odds: dict[str, Any] | None = None
        if self._odds and self._chat:
            pairs = zip(pieces, text.log_odds, strict=True)
            odds = {"content": [{"token": p, "logprob": o, "bytes": None, "top_logprobs": []} for p, o in pairs]}
        elif self._odds:
            odds = {"tokens": pieces, "token_logprobs": list(text.log_odds), "top_logprobs": None, "text_offset": None}
        said = {"message": {"role": "assistant", "content": text.text}} if self._chat else {"text": text.text}
        return {"index": number, **said, "logprobs": odds, "finish_reason": reason}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._made, "model": self.asked.model}

    def event(self, text: str, reason: str | None = None, usage: Usage | None = None) -> bytes:
        """Return a part of a stream."""
        kind = "chat.completion.chunk" if self._chat else self._kind
        said: dict[str, Any] = {"delta": {"role": "assistant", "content": text}} if self._chat else {"text": text}
        choices = [{"index": 0, **said, "logprobs": None, "finish_reason": reason}] if usage is None else []
        told = {} if usage is None else {"usage": usage.model_dump()}
        return f"data: {json.dumps({**self._head(kind), 'choices': choices, **told})}\n\n".encode()

    def ends(self, text: WrittenText) -> list[bytes]:
        """Return the end of a stream."""
        last = [self.event("", "stop" if text.ended else "length")]
        if (self.asked.stream_options or {}).get("include_usage"):
            last.append(self.event("", usage=usage_of([text.tokens], [text.written])))
        return [*last, b"data: [DONE]\n\n"]

    async def events_of(self, text: WrittenText) -> AsyncIterator[bytes]:
        """Stream an answer that is there."""
        yield self.event(text.text)
        for event in self.ends(text):
            yield event


def _meant(engine: Engine, ready: Ready, texts: Sequence[WrittenText]) -> list[WrittenText]:
    """Return texts that should be label words as the words that the model writes so."""
    if not ready.task.verbalizer:
        return list(texts)
    blank = Example(ready.name, 0, "", "", None, ())
    data = replace(ready.words, examples=(blank,) * len(texts))
    said = as_meant(engine.backbone, data, [text.text for text in texts])
    return [replace(text, text=word) for text, word in zip(texts, said, strict=True)]


def _sure(text: str, stops: Sequence[str]) -> str:
    """Return what will stand of a text that is being written: no half character, no beginning of what stops it."""
    text = text.rstrip("\ufffd")
    hidden = max((n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
    return text[: len(text) - hidden].strip()  # a whole answer has no spaces at its ends


def usage_of(read: Sequence[int], written: Sequence[int] = ()) -> Usage:
    """Return how many tokens were read and written."""
    return Usage(prompt_tokens=sum(read), completion_tokens=sum(written), total_tokens=sum(read) + sum(written))
