"""The routes of a labelling tool, in the shapes of a Label Studio ML backend: suggestions out, labels in."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from mptune.answers.prediction import rendered_row
from mptune.errors import UsageError
from mptune.serving.asking import Desk, administrator, allowed, answers_to, queued, ranks, ready_task
from mptune.serving.door import Refused
from mptune.serving.engine import Draining, Ranked
from mptune.serving.labelconfig import LabelConfig, read_label_config, row_of
from mptune.serving.learning import Learning
from mptune.serving.store import Ready

Identity = Annotated[int, Field(ge=0, lt=2**63)] | Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class Told(BaseModel):
    """What a labelling tool sends: much more than is read here, and more with every version of it."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class ToLabel(Told):
    """A text that is, or is to be, labelled; the tool calls it a task."""

    id: Identity | None = None
    data: dict[str, Any]


class Annotation(Told):
    """What somebody said of a text; of a deleted one only the id."""

    id: Identity
    result: list[dict[str, Any]] = []
    was_cancelled: bool = False
    """Skipped."""


class Project(Told):
    """Texts that are labelled alike."""

    label_config: str | None = None


class SetupRequest(Told):
    """What a tool says when it is connected."""

    schema_: str | None = Field(None, alias="schema")


class PredictRequest(Told):
    """Texts that suggestions are wanted for."""

    tasks: list[ToLabel]
    label_config: str


class WebhookRequest(Told):
    """What has happened in a tool."""

    action: str
    project: Project | Identity | None = None
    task: ToLabel | list[ToLabel] | None = None
    annotation: Annotation | list[Annotation] | None = None
    annotations: list[Annotation] | None = None


def add_labelling(app: FastAPI, desk: Desk, learning: Learning) -> None:
    """Add the routes for each task, those for the one task that need not be named, and what is known of its labels."""

    async def named(task: str) -> str:
        return task

    async def only() -> str:
        names = [desk.config.label] if desk.config.label else desk.store.names()
        if len(names) != 1:
            raise Refused(404, f"{len(names):,} tasks are served here; give the labelling tool the address of one: "
                          "/label/TASK behind the server's")  # fmt: skip
        return names[0]

    app.include_router(_routes(desk, learning, named), prefix="/label/{task}", tags=["labelling"])
    app.include_router(_routes(desk, learning, only), tags=["labelling"])

    @app.get("/v1/tasks/{name}/labelling", tags=["labelling"])
    async def labelling(name: str, request: Request) -> dict[str, Any]:
        """How many rows of a task are labelled, and what came of adaptations on them."""
        ready = await _labelled_task(desk, request, name)
        return await asyncio.to_thread(_labelling, learning, ready, desk.config.train_every)


def _routes(desk: Desk, learning: Learning, which: Callable[..., Awaitable[str]]) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    @router.post("/health")
    async def health(name: Annotated[str, Depends(which)], request: Request) -> dict[str, str]:
        """Whether suggestions are to be had."""
        allowed(desk.store, request, name)
        if desk.engine.draining:
            raise Draining("the server ends")
        return {"status": "UP", "model_class": "mptune"}

    @router.post("/setup")
    async def setup(name: Annotated[str, Depends(which)], asked: SetupRequest, request: Request) -> dict[str, str]:
        """Which version answers; and whether a project's choices are the task's labels."""
        ready = await _labelled_task(desk, request, name)
        if asked.schema_:
            read_label_config(asked.schema_, ready.task)
        return {"model_version": ready.version.folder}

    @router.post("/predict")
    async def predict(name: Annotated[str, Depends(which)], asked: PredictRequest, request: Request) -> dict[str, Any]:
        """Suggestions in the order of the texts; by ascending scores, the confidences, the least sure come first."""
        ready = await _labelled_task(desk, request, name)
        return {"results": await _suggestions(desk, ready, asked), "model_version": ready.version.folder}

    @router.post("/webhook", status_code=201, responses={200: {"description": "Not looked at."}})
    async def webhook(name: Annotated[str, Depends(which)], asked: WebhookRequest, request: Request) -> JSONResponse:
        """Keep or forget labels, or adapt on those that are kept."""
        administrator(request)  # labels change what everybody is answered
        ready = await _labelled_task(desk, request, name)
        known = {"ANNOTATION_CREATED": _created, "ANNOTATIONS_CREATED": _created, "ANNOTATION_UPDATED": _created,
                 "ANNOTATION_DELETED": _deleted, "ANNOTATIONS_DELETED": _deleted,
                 "PROJECT_UPDATED": _project_updated, "START_TRAINING": _asked}  # fmt: skip
        if asked.action not in known:
            return JSONResponse({"status": "not looked at"}, 200)  # tools tell of more than anybody needs
        return JSONResponse(await asyncio.to_thread(known[asked.action], learning, ready, asked), 201)

    return router


async def _labelled_task(desk: Desk, request: Request, name: str) -> Ready:
    ready = await ready_task(desk.store, request, name)
    if not ranks(ready):
        raise UsageError(f"{ready.name} writes free text; only tasks whose label words are ranked can be labelled")
    if ready.task.prepare is not None:
        raise UsageError(f"{ready.name} reads rows that {ready.task.prepare} prepares, and not fields of a text")
    return ready


async def _suggestions(desk: Desk, ready: Ready, asked: PredictRequest) -> list[dict[str, Any]]:
    config = read_label_config(asked.label_config, ready.task)
    if len(asked.tasks) > desk.config.max_rows:
        raise Refused(413, f"a request has at most {desk.config.max_rows:,} texts; got {len(asked.tasks):,}")
    rows = [_row(ready, each, config) for each in asked.tasks]
    # An empty text among many keeps no other from its suggestion; of it nothing is sure, so that it is shown first.
    read = [number for number, row in enumerate(rows) if ready.task.unreadable(row) is None]
    found: list[Ranked] = []
    if read:
        found = await answers_to(await queued(desk, ready, [rows[number] for number in read]))
        desk.meters.answered(ready.name, len(found))
    suggested = dict(zip(read, found, strict=True))
    return [_suggestion(ready, config, suggested.get(number)) for number in range(len(rows))]


def _suggestion(ready: Ready, config: LabelConfig, found: Ranked | None) -> dict[str, Any]:
    if found is None:
        return {"result": [], "score": 0.0, "model_version": ready.version.folder}
    label, score = list(ready.task.verbalizer)[found.best], found.probabilities[found.best]
    region = {"from_name": config.from_name, "to_name": config.to_name, "type": "choices",
              "value": {"choices": [config.choices[label]]}, "score": score}  # fmt: skip
    return {"result": [region], "score": score, "model_version": ready.version.folder}


def _row(ready: Ready, given: ToLabel, config: LabelConfig | None) -> dict[str, Any]:
    try:
        return row_of(ready.task, given.data, config.field if config else None)
    except UsageError as error:
        raise UsageError(f"task {given.id}: {error}") from None


def _config(ready: Ready, asked: WebhookRequest) -> LabelConfig | None:
    text = asked.project.label_config if isinstance(asked.project, Project) else None
    return read_label_config(text, ready.task) if text else None


def _created(learning: Learning, ready: Ready, asked: WebhookRequest) -> dict[str, Any]:
    """Keep what annotations say; one that says nothing of the task's labels any more is forgotten."""
    config = _config(ready, asked)
    annotations, tasks = _many(asked.annotation), _many(asked.task)
    if not annotations or len(annotations) != len(tasks):
        raise UsageError(f"{asked.action} wants annotation and task, as many of one as of the other")
    labels = learning.labels(ready.name)
    rows = [_row(ready, each, config) for each in tasks]
    problems = [_problem(ready, row) for row in rows]  # before any is kept
    passed: list[str] = []
    for annotation, row, problem in zip(annotations, rows, problems, strict=True):
        label = None if problem else _label(ready, annotation, config)
        if label is None:
            labels.remove(str(annotation.id))
            passed.append(problem or "it has no choice, several, or one that is no label of the task")
        else:
            labels.put(str(annotation.id), row, label)
    told: dict[str, Any] = {"status": "ok", "kept": len(rows) - len(passed)}
    if passed:
        told["reason"] = passed[0]
    if learning.noticed(ready):
        told["adaptation"] = learning.state(ready.name)
    return told


def _problem(ready: Ready, row: dict[str, Any]) -> str | None:
    """Return why a row is not learnt from: there is nothing to read.

    Raises:
        UsageError: it could never be read.
    """
    if nothing := ready.task.unreadable(row):
        return nothing
    try:
        rendered_row(ready.task, row)
    except ValueError as error:
        raise UsageError(str(error)) from None
    return None


def _label(ready: Ready, annotation: Annotation, config: LabelConfig | None) -> str | None:
    """Return the label value of an annotation; None of one that was skipped, or chooses none or several of them."""
    if annotation.was_cancelled:
        return None
    chosen: list[Any] = []
    for region in annotation.result:
        of_task = config is None or region.get("from_name") == config.from_name
        value = region.get("value")
        if of_task and region.get("type") == "choices" and isinstance(value, dict):
            choices = value.get("choices")
            chosen += choices if isinstance(choices, list) else [None]
    if len(chosen) != 1 or not isinstance(chosen[0], str):
        return None
    if config is not None:
        return config.label_of(chosen[0])
    return next((value for value, word in ready.task.verbalizer.items() if word == chosen[0]), None)


def _deleted(learning: Learning, ready: Ready, asked: WebhookRequest) -> dict[str, Any]:
    gone = _many(asked.annotations) + _many(asked.annotation)
    if not gone:
        raise UsageError(f"{asked.action} wants annotation or annotations, with an id")
    labels = learning.labels(ready.name)
    return {"status": "ok", "forgotten": sum(labels.remove(str(each.id)) for each in gone)}


def _project_updated(learning: Learning, ready: Ready, asked: WebhookRequest) -> dict[str, Any]:
    _config(ready, asked)  # whether its choices are still the task's labels is told now
    return {"status": "ok"}


def _asked(learning: Learning, ready: Ready, asked: WebhookRequest) -> dict[str, Any]:
    if lacks := learning.labels(ready.name).divided(ready.task).lacks:
        return {"status": "ok", "adaptation": "none", "reason": lacks}
    learning.ask(ready.name)
    return {"status": "ok", "adaptation": learning.state(ready.name)}


def _labelling(learning: Learning, ready: Ready, train_every: int) -> dict[str, Any]:
    labels = learning.labels(ready.name)
    sides = labels.divided(ready.task)
    counts = Counter(each.label for each in (*sides.train, *sides.held))
    return {"task": ready.name, "version": ready.version.folder,
            "rows": {label: counts[label] for label in ready.task.verbalizer}, "held_out": len(sides.held),
            "new": labels.since, "train_every": train_every, "lacks": sides.lacks,
            "state": learning.state(ready.name), "outcomes": labels.outcomes}  # fmt: skip


def _many(given: Any) -> list[Any]:
    return given if isinstance(given, list) else [] if given is None else [given]
