"""What requests and answers look like on the wire. OpenAI's shapes where it has one; unknown fields are refused."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

MOST_CHOICES = 16  # texts for one prompt
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # as tasks are called
Fields = dict[str, Any]


class Asked(BaseModel):
    """A request's body."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Problem(BaseModel):
    """Why a request is refused."""

    message: str
    """What was wanted, what came, what to do."""
    type: str
    param: str | None
    """The field of the body that it is about."""
    code: str


class ErrorResponse(BaseModel):
    """A refusal, in OpenAI's shape."""

    error: Problem


class ClassifyRequest(Asked):
    """Texts to be labelled, or rows of a task with several fields."""

    model: str
    """A task's name, or another name of it."""
    input: str | Fields | list[str | Fields]
    """One or many; a text stands for the task's only field."""


class Labelled(BaseModel):
    """The label of one input."""

    index: int
    label: str | None
    """The label as the task's rows have it."""
    answer: str
    """Its label word."""
    confidence: float
    probabilities: dict[str, float]
    """Of all label words."""
    abstained: bool | None = None
    """Whether the confidence is below the task's threshold; null where it has none."""


class Usage(BaseModel):
    """Tokens, soft ones among those of the prompt."""

    prompt_tokens: int
    completion_tokens: int = 0
    total_tokens: int


class ClassifyResponse(BaseModel):
    """The labels of a request's inputs, in their order."""

    object: Literal["list"] = "list"
    model: str
    data: list[Labelled]
    usage: Usage


class RenderRequest(Asked):
    """Inputs of which it is asked what the model reads."""

    model: str
    input: str | Fields | list[str | Fields]


class Rendered(BaseModel):
    """An input as its task's template writes it, before it is cut."""

    index: int
    text: str


class RenderResponse(BaseModel):
    """The texts of a request's inputs, in their order."""

    object: Literal["list"] = "list"
    model: str
    data: list[Rendered]


class NearToken(BaseModel):
    """A word of the vocabulary near a soft token."""

    token: str
    cosine: float


class Alike(BaseModel):
    """Another task, and the cosine of its prompt."""

    id: str
    cosine: float


class Place(BaseModel):
    """A task's point in the map of prompts."""

    id: str
    x: float
    y: float


class PromptResponse(BaseModel):
    """What a task's soft prompt is near."""

    object: Literal["prompt"] = "prompt"
    id: str
    tokens: list[list[NearToken]]
    """Of each soft token, the nearest first."""
    similar: list[Alike]
    """Tasks, the most similar first."""
    map: list[Place]
    """The task itself is its first point."""
    compared: int
    """Other tasks that were looked at: a sample of many, and only prompts of the same length."""
    others: int
    """That there are."""


class Writing(Asked):
    """How a text is written."""

    model: str
    max_tokens: Annotated[int, Field(ge=1, le=4_096)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """The likeliest text without it, which is OpenAI's 0."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    user: str | None = None
    """Not looked at."""


class CompletionRequest(Writing):
    """A text to go on from: what a task's template reads, behind its soft prompt."""

    prompt: str | Fields | list[str | Fields]
    logprobs: Annotated[int, Field(ge=0, le=1)] | None = None
    """With 0 or 1, the log-probability of every token that was written."""


class Message(Asked):
    """A turn of a conversation."""

    role: Literal["system", "user", "assistant", "developer", "tool"]
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None


class ChatRequest(Writing):
    """A conversation of one turn: what the task's text is."""

    messages: Annotated[list[Message], Field(min_length=1)]
    logprobs: bool | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=4_096)] | None = None


class PutRequest(Asked):
    """Where a task's prompt lies."""

    folder: str
    """Inside the folder of prompts."""


class AliasRequest(Asked):
    """Another name of a task."""

    model: str
