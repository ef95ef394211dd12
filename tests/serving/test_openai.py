"""OpenAI's own client, as it comes, against this server."""

import openai
import pytest

from support.chat import talking
from support.serving import FREE, MOOD, TASKS, prompts_folder, serving


@pytest.fixture(scope="module")
def client(served):
    """OpenAI's client."""
    return openai.OpenAI(base_url=f"{served}/v1", api_key="none", max_retries=0)


def test_models_are_listed(client, model):
    assert [each.id for each in client.models.list()] == [model.config.name, *sorted(task.name for task in TASKS)]
    assert client.models.retrieve("mood").id == "mood"


def test_a_completion_has_text_reason_and_usage(client):
    answer = client.completions.create(model="free", prompt="good", max_tokens=4)
    assert answer.object == "text_completion"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens <= 4


def test_a_stream_joins_to_the_same_text(client):
    whole = client.completions.create(model="free", prompt="good", max_tokens=5).choices[0].text
    parts = client.completions.create(model="free", prompt="good", max_tokens=5, stream=True)
    assert "".join(part.choices[0].text for part in parts) == whole


def test_several_draws_of_one_seed_are_the_same_and_of_n_are_many(client):
    def drawn(seed, n=1):
        answer = client.completions.create(model="free", prompt="good", max_tokens=6, temperature=2, seed=seed, n=n)
        return [choice.text for choice in answer.choices]

    assert drawn(1) == drawn(1)
    assert len(drawn(1, n=3)) == 3
    assert len({text for seed in range(6) for text in drawn(seed)}) > 1


def test_log_probabilities_are_of_the_written_tokens(client):
    odds = client.completions.create(model="free", prompt="good", max_tokens=4, logprobs=1).choices[0].logprobs
    assert len(odds.tokens) == len(odds.token_logprobs) >= 1
    assert all(value <= 0 for value in odds.token_logprobs)


def test_a_stop_ends_a_text(client):
    whole = client.completions.create(model="free", prompt="good", max_tokens=6).choices[0].text
    stop = whole.strip()[-1]
    answer = client.completions.create(model="free", prompt="good", max_tokens=6, stop=stop).choices[0]
    assert answer.text == whole.partition(stop)[0].strip()
    assert answer.finish_reason == "stop"


def test_a_conversation_of_one_turn_is_answered_and_streamed(client):
    turn = [{"role": "user", "content": "good"}]
    whole = client.completions.create(model="free", prompt="good", max_tokens=5).choices[0].text
    answer = client.chat.completions.create(model="free", messages=turn, max_completion_tokens=5)
    assert answer.choices[0].message.content == whole
    parts = client.chat.completions.create(model="free", messages=turn, max_tokens=5, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == whole


def test_an_unknown_model_is_the_clients_own_error(client):
    with pytest.raises(openai.NotFoundError, match="Did you mean 'free'"):
        client.completions.create(model="fre", prompt="x")


@pytest.mark.parametrize("messages", [
    [{"role": "system", "content": "be kind"}, {"role": "user", "content": "good"}],
    [{"role": "assistant", "content": "good"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
])  # fmt: skip
def test_what_a_prompt_was_not_trained_for_is_refused(client, messages):
    with pytest.raises(openai.BadRequestError, match="messages wants one turn of the user"):
        client.chat.completions.create(model="free", messages=messages)


def test_a_key_is_told_as_the_client_tells_it(model, folder):
    from mptune.serving.keys import ApiKey, hashed

    with serving(folder, model, [ApiKey(name="shop", sha256=hashed("right"), tasks=("mood",))]) as (address, _, _):
        with pytest.raises(openai.AuthenticationError, match="wants a key"):
            openai.OpenAI(base_url=f"{address}/v1", api_key="wrong", max_retries=0).models.list()
        shop = openai.OpenAI(base_url=f"{address}/v1", api_key="right", max_retries=0)
        assert [each.id for each in shop.models.list()] == [model.config.name, "mood"]
        with pytest.raises(openai.PermissionDeniedError, match="the key shop may not ask 'free'; it may ask mood"):
            shop.completions.create(model="free", prompt="x")


def test_a_chat_model_reads_the_turn_as_its_template_has_it(tmp_path):
    """A decoder-only model with a chat template answers as `mptune predict` does."""
    from mptune.answers.prediction import Predictor
    from mptune.config import EvaluateConfig
    from mptune.prompts.prompt import MultitaskPrompt

    backbone = talking()
    tasks = [task.model_copy(update={"chat": "user"}) for task in (FREE, MOOD)]
    folder = prompts_folder(tmp_path / "prompts", backbone, tasks)
    predictor = Predictor(backbone, [MultitaskPrompt.from_pretrained(folder / t.name) for t in tasks],
                          EvaluateConfig(max_target_tokens=6))  # fmt: skip
    with serving(folder, backbone) as (address, _, _):
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
        for name in ("free", "mood"):
            answer = client.chat.completions.create(model=name, messages=[{"role": "user", "content": "good"}])
            assert answer.choices[0].message.content == predictor.predict([{"task": name, "text": "good"}])[0].answer
