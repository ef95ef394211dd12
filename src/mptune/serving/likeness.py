"""What a soft prompt is near: words of the vocabulary, and other tasks' prompts. A hint for people alone.

All of it is computed on the processor, beside the engine's thread, and of many tasks a sample is looked at.
"""

import threading
import time
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from mptune.errors import MptuneError
from mptune.model.backbone import Backbone
from mptune.serving.store import Store
from mptune.serving.wire import Alike, NearToken, Place, PromptResponse

NEAREST = 5  # words of a soft token
MOST_ALIKE = 10
MOST_COMPARED = 300  # tasks: points of the map
MOST_MEMORY = 128_000_000  # bytes of prompts that are compared at once
LONGEST_READING = 3.0  # seconds for their files
WORDS_AT_ONCE = 8_192  # of the embedding table

_one_at_a_time = threading.Lock()  # who clicks fast takes no more than one core from the engine


def looked_at(store: Store, name: str, others: Sequence[str]) -> PromptResponse:
    """Return what the prompt of a task is near.

    Args:
        others: tasks that may be told of.

    Raises:
        ArtifactError: the task's own file is gone or damaged; others like it are passed over.
    """
    with _one_at_a_time, torch.no_grad():
        prompt = store.collapsed(name).cpu()
        names, vectors = _gathered(store, name, prompt, others)
        cosines = (vectors @ vectors[0]).tolist()
        ranked = sorted(range(1, len(names)), key=lambda n: -cosines[n])[:MOST_ALIKE]
        places = zip(names, plane(vectors), strict=True)
        return PromptResponse(
            id=name,
            tokens=nearest_tokens(store.backbone, prompt),
            similar=[Alike(id=names[n], cosine=round(cosines[n], 4)) for n in ranked],
            map=[Place(id=each, x=round(x, 4), y=round(y, 4)) for each, (x, y) in places],
            compared=len(names) - 1,
            others=len(set(others) - {name}),
        )


def _gathered(store: Store, name: str, prompt: Tensor, others: Sequence[str]) -> tuple[list[str], Tensor]:
    """Return tasks, the first of them the one that is looked at, and their prompts as unit vectors. [N, L * D]

    Of more tasks than fit, those that stand evenly among all are taken, the same ones each time.
    """
    most = max(1, min(MOST_COMPARED, MOST_MEMORY // max(prompt.nbytes, 1)) - 1)
    rest = [each for each in others if each != name]
    rest = rest if len(rest) <= most else [rest[n * len(rest) // most] for n in range(most)]
    names, found, ends = [name], [prompt.flatten()], time.monotonic() + LONGEST_READING
    for each in rest:
        if time.monotonic() > ends:
            break
        try:
            other = store.collapsed(each)
        except (MptuneError, LookupError):  # damaged, or removed meanwhile
            continue
        if other.shape == prompt.shape:  # of another length: its soft tokens stand beside no others
            names.append(each)
            found.append(other.cpu().flatten())
    return names, normalize(torch.stack(found), dim=1)


def nearest_tokens(backbone: Backbone, prompt: Tensor) -> list[list[NearToken]]:
    """Return of each soft token the words whose embeddings have the largest cosines with it. [L, D]"""
    tokenizer = backbone.tokenizer
    special = torch.tensor(sorted({int(each) for each in tokenizer.all_special_ids}), dtype=torch.long)
    table = backbone.embeddings.detach()[: len(tokenizer)]
    best, ids = torch.empty(len(prompt), 0), torch.empty(len(prompt), 0, dtype=torch.long)
    unit = normalize(prompt.float(), dim=1)
    for start in range(0, len(table), WORDS_AT_ONCE):
        rows = table[start : start + WORDS_AT_ONCE].to("cpu", torch.float32)
        cosines = unit @ normalize(rows, dim=1).T
        hidden = special[(special >= start) & (special < start + len(rows))] - start
        cosines[:, hidden] = -torch.inf
        best = torch.cat([best, cosines], dim=1)
        ids = torch.cat([ids, torch.arange(start, start + len(rows)).expand(len(prompt), -1)], dim=1)
        best, order = best.topk(min(NEAREST, best.shape[1]), dim=1)
        ids = ids.gather(1, order)
    shown = {number: _shown(backbone, number) for number in set(ids.flatten().tolist())}
    return [
        [NearToken(token=shown[number], cosine=round(cosine, 4)) for number, cosine in zip(of, to, strict=True)]
        for of, to in zip(ids.tolist(), best.tolist(), strict=True)
    ]


def _shown(backbone: Backbone, number: int) -> str:
    """Return a token as people read it; as the vocabulary has it where it is no whole character."""
    text = str(backbone.tokenizer.decode([number])).strip()
    if text and text.isprintable() and "\ufffd" not in text:
        return text
    return str(backbone.tokenizer.convert_ids_to_tokens(number))


def plane(vectors: Tensor) -> list[tuple[float, float]]:
    """Return where vectors lie in the plane of their first two singular vectors, about their mean. [N, M]

    From the products of each two, N numbers squared, since M is the size of a whole prompt.
    """
    centred = vectors - vectors.mean(0)
    values, axes = torch.linalg.eigh(centred @ centred.T)
    count = min(2, len(vectors))
    places = axes[:, -count:].flip(1) * values[-count:].flip(0).clamp(min=0).sqrt()
    largest = places.abs().argmax(0)
    places = places * torch.where(places.gather(0, largest[None])[0] < 0, -1.0, 1.0)  # a side is drawn by chance else
    padded = torch.nn.functional.pad(places, (0, 2 - count))
    return [(float(x), float(y)) for x, y in padded]
