"""What a prompt is near: words whose embeddings it is made of, tasks that it equals, a plane that keeps distances."""

import httpx
import pytest
import torch

from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors
from mptune.serving import likeness
from mptune.serving.keys import ApiKey, hashed
from mptune.serving.likeness import looked_at, nearest_tokens, plane
from support.prompts import random_prompt
from support.serving import MOOD, opened, serving


def made_of(model, folder, name, vectors):
    """A prompt whose only task has these soft tokens."""
    task = MOOD.model_copy(update={"name": name})
    length, width = vectors.shape
    ones = TaskVectors(torch.ones(1, length, 1), torch.ones(1, 1, width))
    MultitaskPrompt(vectors, ones, random_prompt(model, [task]).card).save_pretrained(folder / name)


@pytest.fixture
def own(model, tmp_path):
    """Three prompts: one, its double, its opposite; one of another length, and one that is damaged."""
    draw = torch.randn(3, model.width, generator=torch.Generator().manual_seed(0))
    for name, vectors in {"one": draw, "double": 2 * draw, "against": -draw, "short": draw[:2]}.items():
        made_of(model, tmp_path, name, vectors)
    made_of(model, tmp_path, "torn", draw)
    return tmp_path


def test_a_soft_token_that_is_a_words_embedding_is_near_that_word(model):
    ids = [model.tokenizer.convert_tokens_to_ids(token) for token in ("Ġgood", "Ġbad", "a")]
    prompt = 3 * model.embeddings.detach()[ids]
    found = nearest_tokens(model, prompt)
    assert [near[0].token for near in found] == ["good", "bad", "a"]
    assert [near[0].cosine for near in found] == pytest.approx([1, 1, 1])
    for near in found:
        assert len(near) == likeness.NEAREST
        assert [each.cosine for each in near] == sorted((each.cosine for each in near), reverse=True)


def test_special_tokens_are_left_out_and_portions_change_nothing(model, monkeypatch):
    special = model.tokenizer.all_special_ids
    prompt = model.embeddings.detach()[[model.tokenizer.eos_token_id, 40]]
    found = nearest_tokens(model, prompt)
    assert not set(model.tokenizer.convert_ids_to_tokens(special)) & {each.token for near in found for each in near}
    assert found[0][0].cosine < 0.999
    monkeypatch.setattr(likeness, "WORDS_AT_ONCE", 7)
    assert nearest_tokens(model, prompt) == found


def test_tasks_are_compared_where_their_prompts_are_as_long(own, model):
    store = opened(own, model)[0]
    (own / "torn" / "prompt.safetensors").write_bytes(b"torn")
    told = looked_at(store, "one", store.names())
    assert [(each.id, each.cosine) for each in told.similar] == [("double", 1.0), ("against", -1.0)]
    assert [place.id for place in told.map] == ["one", "against", "double"]
    assert (told.compared, told.others) == (2, 4)
    assert store._ready == {}, "what is only looked at is not kept"


def test_of_many_tasks_a_sample_is_compared_the_same_each_time(own, model, monkeypatch):
    monkeypatch.setattr(likeness, "MOST_COMPARED", 3)
    store = opened(own, model)[0]
    names = ["one", *["double", "against"] * 50]
    told = [looked_at(store, "one", names) for _ in range(2)]
    assert told[0] == told[1]
    assert (told[0].compared, told[0].others) == (2, 2)
    monkeypatch.setattr(likeness, "LONGEST_READING", -1.0)
    assert looked_at(store, "one", names).map[0].model_dump() == {"id": "one", "x": 0.0, "y": 0.0}


def test_the_plane_keeps_the_distances_of_three_points():
    points = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    flat = torch.tensor(plane(points))
    torch.testing.assert_close(torch.cdist(flat, flat), torch.cdist(points, points), atol=1e-3, rtol=1e-3)
    assert float(flat.mean(0).abs().max()) < 1e-4


def test_a_key_is_told_of_its_own_tasks_alone(own, model):
    key = ApiKey(name="shop", sha256=hashed("k"), tasks=("one", "against"))
    with serving(own, model, [key]) as (address, _, _):
        headers = {"Authorization": "Bearer k"}
        told = httpx.get(f"{address}/v1/models/one/prompt", headers=headers, timeout=20).json()
        assert [each["id"] for each in told["similar"]] == ["against"]
        assert httpx.get(f"{address}/v1/models/double/prompt", headers=headers, timeout=20).status_code == 403
