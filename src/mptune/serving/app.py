"""The routes of a server: a request is checked, its rows are queued, its answer is written; nothing is computed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException as StarletteHTTPException

from mptune import __version__
from mptune.errors import MptuneError, UsageError
from mptune.serving.asking import (
    Desk,
    administrator,
    allowed,
    answers_to,
    examples_of,
    key_of,
    listed,
    only_turn,
    queued,
    ranks,
    ready_task,
    visible_to,
)
from mptune.serving.completions import EVENTS, completed, usage_of
from mptune.serving.door import Door, Refused, refused
from mptune.serving.engine import Engine, Ranked
from mptune.serving.journal import ServedTask
from mptune.serving.keys import Gate
from mptune.serving.labelling import add_labelling
from mptune.serving.learning import Learning
from mptune.serving.likeness import looked_at
from mptune.serving.meters import Meters
from mptune.serving.page import add_page
from mptune.serving.settings import ServeConfig
from mptune.serving.store import Ready, Store
from mptune.serving.wire import (
    ALIAS,
    AliasRequest,
    ChatRequest,
    ClassifyRequest,
    ClassifyResponse,
    CompletionRequest,
    ErrorResponse,
    Labelled,
    PromptResponse,
    PutRequest,
    Rendered,
    RenderRequest,
    RenderResponse,
)


def make_app(store: Store, engine: Engine, gate: Gate, config: ServeConfig) -> FastAPI:
    """Return the application that answers requests."""
    meters, learning = Meters(engine), Learning(store, config)
    if config.label is not None:
        store.entry(config.label)  # that there is no such task is said now

    @asynccontextmanager
    async def runs(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(learning.stop)  # first: rows that wait are answered sooner
        await asyncio.to_thread(engine.drain)

    no = {"model": ErrorResponse, "description": "Why not, and what to do."}
    app = FastAPI(title="mptune", version=__version__, lifespan=runs, redoc_url=None, redirect_slashes=False,
                  description="Soft prompts by name, from one frozen model.",
                  responses={"4XX": no, "5XX": no})  # fmt: skip
    app.state.folder = store.folder
    app.add_middleware(Door, gate=gate, config=config, meters=meters)
    for kind in (Refused, MptuneError, RequestValidationError, StarletteHTTPException, Exception):
        app.exception_handler(kind)(refused)
    add_page(app)
    _add_health(app, store, engine, meters)
    _add_models(app, store)
    _add_administration(app, store)
    desk = Desk(store, engine, meters, config)
    _add_answers(app, desk)
    add_labelling(app, desk, learning)
    return app


def _add_health(app: FastAPI, store: Store, engine: Engine, meters: Meters) -> None:
    @app.get("/health/live", tags=["health"])
    async def live() -> dict[str, str]:
        """Whether the process answers."""
        return {"status": "alive"}

    @app.get("/health/ready", tags=["health"], responses={503: {"description": "it ends"}})
    async def ready() -> Response:
        """Whether it takes rows."""
        if engine.draining:
            return JSONResponse({"status": "draining"}, 503)
        return JSONResponse({"status": "ready", "tasks": len(store.names())})

    @app.get("/version", tags=["health"])
    async def version() -> dict[str, str]:
        """Which mptune and which frozen model."""
        backbone = store.backbone
        return {"version": __version__, "backbone": backbone.config.name, "fingerprint": backbone.fingerprint}

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(meters.page(), media_type=meters.content_type)


def _add_models(app: FastAPI, store: Store) -> None:
    @app.get("/v1/models", tags=["tasks"])
    async def models(request: Request) -> dict[str, Any]:
        """The frozen model, and every task that it answers."""
        key = key_of(request)
        backbone = store.backbone.config.name
        listed = [{"id": backbone, "object": "model", "created": 0, "owned_by": "mptune", "root": None, "parent": None}]
        seen = visible_to(key, store)
        listed += [_model(store.entry(name), backbone) for name in seen]
        listed += [{**_model(store.entry(name), backbone), "id": alias, "parent": name}
                   for alias, name in sorted(store.aliases().items()) if name in seen]  # fmt: skip
        return {"object": "list", "data": listed}

    @app.get("/v1/models/{name}", tags=["tasks"])
    async def model(name: str, request: Request) -> dict[str, Any]:
        """One task: what it reads, what it answers, and how well it did."""
        entry = allowed(store, request, name)
        ready = await asyncio.to_thread(store.ready, entry.name)
        versions = [v.folder for v in entry.versions]
        return {**_model(entry, store.backbone.config.name), "versions": versions, **_told(ready, store)}

    @app.get("/v1/models/{name}/prompt", tags=["tasks"])
    async def prompt(name: str, request: Request) -> PromptResponse:
        """What a task's soft prompt is near: words of the vocabulary, and other tasks."""
        entry = allowed(store, request, name)
        return await asyncio.to_thread(looked_at, store, entry.name, visible_to(key_of(request), store))


def _add_administration(app: FastAPI, store: Store) -> None:
    @app.post("/v1/tasks", tags=["administration"], status_code=201)
    async def add(asked: PutRequest, request: Request) -> dict[str, Any]:
        """Serve the tasks of a prompt's folder."""
        administrator(request)
        entries = await asyncio.to_thread(store.put, asked.folder)
        return {"object": "list", "data": [_model(each, store.backbone.config.name) for each in entries]}

    @app.put("/v1/tasks/{name}", tags=["administration"])
    async def put(name: str, asked: PutRequest, request: Request) -> dict[str, Any]:
        """Serve a task from a folder from now on; the version before can be rolled back to."""
        administrator(request)
        (entry,) = await asyncio.to_thread(store.put, asked.folder, name)
        return _model(entry, store.backbone.config.name)

    @app.post("/v1/tasks/{name}/rollback", tags=["administration"])
    async def roll_back(name: str, request: Request) -> dict[str, Any]:
        """Let the version before answer again."""
        administrator(request)
        return _model(await asyncio.to_thread(store.roll_back, name), store.backbone.config.name)

    @app.delete("/v1/tasks/{name}", tags=["administration"])
    async def delete(name: str, request: Request) -> dict[str, Any]:
        """Serve a task no longer. Its folder stays."""
        administrator(request)
        entry = await asyncio.to_thread(store.remove, name)
        return {"id": entry.name, "object": "model", "deleted": True}

    @app.put("/v1/aliases/{alias}", tags=["administration"])
    async def alias(alias: str, asked: AliasRequest, request: Request) -> dict[str, Any]:
        """Give a task another name."""
        administrator(request)
        if not ALIAS.fullmatch(alias):
            raise UsageError("an alias has up to 100 letters, digits, points, - and _, and begins with one of the "
                             f"first two; got {alias!r:.80}")  # fmt: skip
        await asyncio.to_thread(store.alias, alias, asked.model)
        return {"id": alias, "object": "model", "parent": store.entry(alias).name}

    @app.delete("/v1/aliases/{alias}", tags=["administration"])
    async def no_alias(alias: str, request: Request) -> dict[str, Any]:
        """Take another name from a task."""
        administrator(request)
        await asyncio.to_thread(store.alias, alias, None)
        return {"id": alias, "object": "model", "deleted": True}


def _add_answers(app: FastAPI, desk: Desk) -> None:
    @app.post("/v1/classify", tags=["answers"])
    async def classify(asked: ClassifyRequest, request: Request) -> ClassifyResponse:
        """The label of one input or many, with the probabilities of all labels."""
        ready = await ready_task(desk.store, request, asked.model)
        if not ranks(ready):
            raise UsageError(f"{ready.name} writes free text; ask POST /v1/completions")
        found: list[Ranked] = await answers_to(await queued(desk, ready, listed(asked.input)))
        desk.meters.answered(ready.name, len(found))
        data = [_labelled(ready, number, each) for number, each in enumerate(found)]
        return ClassifyResponse(model=asked.model, data=data, usage=usage_of([each.tokens for each in found]))

    @app.post("/v1/render", tags=["answers"])
    async def render(asked: RenderRequest, request: Request) -> RenderResponse:
        """What the model reads of inputs, behind the soft prompt: the task's template with their fields."""
        ready = await ready_task(desk.store, request, asked.model)
        rows = await asyncio.to_thread(examples_of, ready, listed(asked.input), desk.config)
        data = [Rendered(index=number, text=row.input) for number, row in enumerate(rows)]
        return RenderResponse(model=asked.model, data=data)

    event = {"type": "object", "properties": {"data": {"type": "string"}}, "required": ["data"]}
    streamed: dict[int | str, dict[str, Any]] = {
        200: {"description": "The texts, or events of them.", "content": {EVENTS: {"schema": event}}}
    }

    @app.post("/v1/completions", tags=["answers"], response_model=None, responses=streamed)
    async def completions(asked: CompletionRequest, request: Request) -> Response:
        """The text that a task writes, or its label word."""
        odds = asked.logprobs is not None
        return await completed(desk, asked, listed(asked.prompt), request, odds=odds, chat=False)

    @app.post("/v1/chat/completions", tags=["answers"], response_model=None, responses=streamed)
    async def chat(asked: ChatRequest, request: Request) -> Response:
        """The same for one turn of a user."""
        most = asked.max_completion_tokens or asked.max_tokens
        odds, asked = bool(asked.logprobs), asked.model_copy(update={"max_tokens": most})
        return await completed(desk, asked, [only_turn(asked)], request, odds=odds, chat=True)


def _labelled(ready: Ready, number: int, found: Ranked) -> Labelled:
    words, confidence = ready.task.label_words, found.probabilities[found.best]
    return Labelled(
        index=number,
        label=list(ready.task.verbalizer)[found.best],
        answer=words[found.best],
        confidence=confidence,
        probabilities=dict(zip(words, found.probabilities, strict=True)),
        abstained=ready.calibration.abstains(confidence) if ready.calibration else None,
    )


def _model(entry: ServedTask, backbone: str) -> dict[str, Any]:
    return {"id": entry.name, "object": "model", "created": 0, "owned_by": "mptune", "root": entry.version.folder,
            "parent": backbone}  # fmt: skip


def _told(ready: Ready, store: Store) -> dict[str, Any]:
    """Return what people and programs want to know of a task before they ask it."""
    task, calibration = ready.task, ready.calibration
    return {
        "description": task.description,
        "answers": "label" if ranks(ready) else "text",
        "template": task.template,
        "fields": task.text_fields,
        "labels": [{"label": value, "word": word} for value, word in task.verbalizer.items()],
        "metrics": task.metrics,
        "scores": ready.scores,
        "calibration": calibration.model_dump() if calibration else None,
        "prompt_length": len(ready),
        "max_input_tokens": task.max_input_tokens or store.lengths.max_input_tokens,
    }
