"""The routes: what is asked, what is answered, and how a slip is told."""

import json
import threading

import httpx
import pytest

from mptune.answers.prediction import Predictor
from mptune.config import EvaluateConfig
from mptune.prompts.card import Calibration
from mptune.prompts.folder import write_calibration
from mptune.prompts.prompt import MultitaskPrompt
from support.prompts import random_prompt
from support.serving import MOOD, TASKS, prompts_folder, serving


@pytest.fixture(scope="module")
def predictor(folder, model):
    """What `mptune predict` answers."""
    return Predictor(model, [MultitaskPrompt.from_pretrained(folder / t.name) for t in TASKS],
                     EvaluateConfig(max_target_tokens=6))  # fmt: skip


def test_labels_and_probabilities_are_those_of_predict(ask, predictor):
    texts = ["good", "a bad film", "red and awful"]
    status, body = ask("POST", "/v1/classify", {"model": "mood", "input": texts})
    assert status == 200
    wanted = predictor.predict([{"task": "mood", "text": text} for text in texts])
    assert [each["index"] for each in body["data"]] == [0, 1, 2]
    assert [(each["answer"], each["label"]) for each in body["data"]] == [(p.answer, p.label) for p in wanted]
    for each, prediction in zip(body["data"], wanted, strict=True):
        assert each["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-5)
        assert each["confidence"] == max(each["probabilities"].values())
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 3 * len(texts)


def test_a_task_of_several_fields_takes_them_by_name(ask, predictor):
    row = {"one": "good", "two": "bad"}
    status, body = ask("POST", "/v1/classify", {"model": "pair", "input": row})
    assert status == 200
    assert body["data"][0]["answer"] == predictor.predict([{"task": "pair", **row}])[0].answer


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"model": "mod", "input": "x"}, 404, "no task is called 'mod'. Did you mean 'mood'?"),
        ({"model": "pair", "input": "x"}, 400, "pair reads one, two: send {'one': ..., 'two': ...} in place of a text"),
        ({"model": "mood", "input": ["good", {"txt": "x"}]}, 400, "input 1: no field 'text'; it has txt"),
        ({"model": "mood", "input": ["good", "  "]}, 400, "input 1: nothing to read, text is empty"),
        ({"model": "mood", "input": []}, 400, "wants one input or more; got none"),
        ({"model": "mood", "input": 3}, 422, "input"),
        ({"model": "mood"}, 422, "input: Field required"),
        ({"model": "mood", "input": "x", "inputs": "y"}, 422, "inputs: Extra inputs are not permitted"),
        ({"model": ["mood"], "input": "x"}, 422, "model"),
        ({"model": "free", "input": "x"}, 400, "free writes free text; ask POST /v1/completions"),
        ({"model": "mood", "input": ["x"] * 1001}, 413, "a request has at most 1,000 inputs; got 1,001"),
        ({"model": "mood", "input": "\ud83d"}, 400, "half a character"),
        ("text", 400, "the body is no JSON of this route"),
    ],
    ids=str,
)
def test_a_slip_is_told_in_one_shape(ask, body, status, said):
    got, answer = ask("POST", "/v1/classify", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert got == status
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert said in answer["error"]["message"]
    assert ask("POST", "/v1/classify", {"model": "mood", "input": "good"})[0] == 200, "the next one is answered"


def test_models_are_the_backbone_and_every_task(ask, model):
    status, body = ask("GET", "/v1/models")
    assert status == 200
    assert [each["id"] for each in body["data"]] == [model.config.name, *sorted(task.name for task in TASKS)]
    assert body["data"][1]["parent"] == model.config.name
    status, body = ask("GET", "/v1/models/mood")
    assert (status, body["root"], body["versions"]) == (200, "mood", ["mood"])
    assert ask("GET", "/v1/models/nope")[0] == 404
    assert ask("GET", "/v1/nothing")[1]["error"]["message"].startswith("there is no /v1/nothing here")
    assert ask("GET", "/v1/classify")[0] == 405


def test_health_version_and_counters(ask, served):
    assert ask("GET", "/health/live") == (200, {"status": "alive"})
    assert ask("GET", "/health/ready") == (200, {"status": "ready", "tasks": len(TASKS)})
    assert set(ask("GET", "/version")[1]) == {"version", "backbone", "fingerprint"}
    ask("POST", "/v1/classify", {"model": "mood", "input": ["good", "bad"]})
    lines = httpx.get(f"{served}/metrics").text.splitlines()
    rows = next(line for line in lines if line.startswith('mptune_rows_total{task="mood"}'))
    assert float(rows.split()[1]) >= 2
    assert any(line.startswith('mptune_requests_total{route="/v1/classify",status="200"}') for line in lines)
    assert any(line.startswith("mptune_batch_rows_count") for line in lines)


def test_a_task_says_what_it_reads_and_answers(ask):
    status, mood = ask("GET", "/v1/models/mood")
    assert status == 200
    assert {"id", "object", "created", "owned_by", "root", "parent", "versions"} < set(mood)
    assert (mood["answers"], mood["template"], mood["fields"]) == ("label", "mood: {text}", ["text"])
    assert mood["labels"] == [{"label": "0", "word": "bad"}, {"label": "1", "word": "good"}]
    assert (mood["scores"], mood["calibration"], mood["prompt_length"], mood["max_input_tokens"]) == ([], None, 3, 256)
    assert [ask("GET", f"/v1/models/{name}")[1]["answers"] for name in ("free", "said")] == ["text", "text"]
    assert ask("GET", "/v1/models/pair")[1]["fields"] == ["one", "two"]


def test_what_the_model_reads_is_told(ask):
    body = {"model": "pair", "input": [{"one": "a", "two": "{one}"}, {"one": "b", "two": "c"}]}
    status, told = ask("POST", "/v1/render", body)
    assert status == 200
    assert told["data"] == [{"index": 0, "text": "a quite {one}"}, {"index": 1, "text": "b quite c"}]
    status, told = ask("POST", "/v1/render", {"model": "pair", "input": [{"one": "a"}]})
    assert (status, "input 0: no field 'two'" in told["error"]["message"]) == (400, True)


def test_tasks_come_change_and_go_while_it_runs(model, tmp_path):
    folder = prompts_folder(tmp_path / "prompts", model, [MOOD])
    with serving(folder, model) as (address, _, _), httpx.Client(base_url=address, timeout=20) as client:

        def odds(name="mood"):
            answer = client.post("/v1/classify", json={"model": name, "input": "good"}).json()
            return answer["data"][0]["probabilities"]

        first = odds()
        random_prompt(model, [MOOD], seed=8).save_pretrained(folder / "sub" / "mood2")
        new = MOOD.model_copy(update={"name": "new"})
        random_prompt(model, [new], seed=4).save_pretrained(folder / "new")
        assert client.post("/v1/tasks", json={"folder": "new"}).status_code == 201
        assert odds("new") != first
        put = client.put("/v1/tasks/mood", json={"folder": "sub/mood2"})
        assert (put.status_code, put.json()["root"]) == (200, "sub/mood2")
        assert odds() != first
        assert client.post("/v1/tasks/mood/rollback").json()["root"] == "mood"
        assert odds() == pytest.approx(first, abs=1e-6)
        assert client.put("/v1/aliases/feelings", json={"model": "mood"}).json()["parent"] == "mood"
        assert odds("feelings") == pytest.approx(first, abs=1e-6)
        assert client.delete("/v1/aliases/feelings").json()["deleted"]
        assert client.delete("/v1/tasks/mood").json() == {"id": "mood", "object": "model", "deleted": True}
        assert client.post("/v1/classify", json={"model": "mood", "input": "good"}).status_code == 404
        refused = client.put("/v1/tasks/mood", json={"folder": "../outside"})
        assert refused.status_code == 400
        assert "wants a folder inside the prompts' folder" in refused.json()["error"]["message"]


def test_a_task_that_is_replaced_all_the_time_answers_from_one_whole_version(model, tmp_path):
    """Every answer is of the one version or the other, and none is lost."""
    folder = prompts_folder(tmp_path / "prompts", model, [MOOD])
    random_prompt(model, [MOOD], seed=8).save_pretrained(folder / "sub" / "mood2")
    with serving(folder, model) as (address, _, _):
        body, found, wrong = {"model": "mood", "input": "good"}, [], []
        with httpx.Client(base_url=address, timeout=20) as client:
            one = client.post("/v1/classify", json=body).json()["data"][0]["confidence"]
            client.put("/v1/tasks/mood", json={"folder": "sub/mood2"})
            other = client.post("/v1/classify", json=body).json()["data"][0]["confidence"]
            assert one != pytest.approx(other, abs=1e-4)
            ends = threading.Event()

            def asks():
                with httpx.Client(base_url=address, timeout=20) as own:
                    while not ends.is_set():
                        answer = own.post("/v1/classify", json=body)
                        got = answer.json()["data"][0]["confidence"] if answer.status_code == 200 else -1
                        found.append(got)
                        if min(abs(got - one), abs(got - other)) > 1e-5:
                            wrong.append(answer.text)

            threads = [threading.Thread(target=asks) for _ in range(4)]
            for thread in threads:
                thread.start()
            for turn in range(200):
                assert client.put("/v1/tasks/mood", json={"folder": ["mood", "sub/mood2"][turn % 2]}).status_code == 200
            ends.set()
            for thread in threads:
                thread.join()
    assert wrong == []
    assert len(found) > 20


def test_a_generated_label_and_a_free_text_are_those_of_predict(ask, predictor):
    for name in ("free", "said"):
        status, body = ask("POST", "/v1/completions", {"model": name, "prompt": ["good", "a bad film"]})
        assert status == 200
        wanted = predictor.predict([{"task": name, "text": text} for text in ("good", "a bad film")])
        assert [each["text"] for each in body["choices"]] == [prediction.answer for prediction in wanted]


def test_a_ranked_tasks_completion_is_its_label_word(ask, predictor):
    status, body = ask("POST", "/v1/completions", {"model": "mood", "prompt": "good"})
    assert status == 200
    assert body["choices"][0]["text"] == predictor.predict([{"task": "mood", "text": "good"}])[0].answer
    assert body["choices"][0]["finish_reason"] == "stop"


def test_a_stream_says_the_same_bit_by_bit(ask, served):
    whole = ask("POST", "/v1/completions", {"model": "free", "prompt": "good", "max_tokens": 5})[1]["choices"][0]
    body = {"model": "free", "prompt": "good", "max_tokens": 5, "stream": True,
            "stream_options": {"include_usage": True}}  # fmt: skip
    with httpx.stream("POST", f"{served}/v1/completions", json=body, timeout=20) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert events[-1] == "[DONE]"
    parts = [json.loads(event) for event in events[:-1]]
    assert "".join(choice["text"] for part in parts for choice in part["choices"]) == whole["text"]
    assert [c["finish_reason"] for p in parts for c in p["choices"]][-1] == whole["finish_reason"]
    assert parts[-1]["usage"]["completion_tokens"] > 0


def test_who_hangs_up_in_a_stream_leaves_no_text_behind(folder, model):
    with serving(folder, model, max_target_tokens=4_000) as (address, engine, _):
        body = {"model": "free", "prompt": "good", "max_tokens": 4_000, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=20) as answer:
            next(answer.iter_lines())
        for _ in range(500):
            if not engine.writing and not engine.waiting:
                break
            threading.Event().wait(0.01)
        assert (engine.writing, engine.waiting) == (0, 0)


def test_the_openapi_document_names_every_route(ask):
    paths = ask("GET", "/openapi.json")[1]["paths"]
    assert {"/v1/classify", "/v1/completions", "/v1/chat/completions", "/v1/models", "/v1/tasks", "/v1/tasks/{name}",
            "/v1/models/{name}/prompt", "/v1/render",
            "/health/live", "/health/ready", "/metrics", "/version"} <= set(paths)  # fmt: skip


def test_what_fails_in_the_midst_of_a_stream_is_an_event(folder, model, monkeypatch):
    from mptune.model.stepwise import Writer

    def failing(self):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(Writer, "step", failing)
    with serving(folder, model) as (address, _, _):
        body = {"model": "free", "prompt": "good", "max_tokens": 40, "stream": True}
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=20) as answer:
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert json.loads(events[-1])["error"]["message"].startswith("something went wrong on this side")
        monkeypatch.undo()
        assert httpx.post(f"{address}/v1/completions", json={**body, "stream": False}, timeout=20).status_code == 200


def test_a_slip_of_a_stream_is_told_before_it_begins(ask):
    status, body = ask("POST", "/v1/completions", {"model": "free", "prompt": ["a", "b"], "stream": True})
    assert status == 400
    assert body["error"]["message"].startswith("stream wants one prompt and n=1")
    assert ask("POST", "/v1/completions", {"model": "free", "prompt": {"txt": "a"}, "stream": True})[0] == 400


def test_a_calibrated_task_answers_and_abstains_as_predict_does(model, tmp_path):
    folder = prompts_folder(tmp_path / "prompts", model, [MOOD])
    random_prompt(
        model, [task.model_copy(update={"name": f"m{n}"}) for n, task in enumerate([MOOD] * 3)]
    ).save_pretrained(folder / "many")
    texts = ["good", "a bad film", "red and awful", "yes"]
    for name, place in (("mood", "mood"), ("m1", "many")):
        bare = Predictor(model, [MultitaskPrompt.from_pretrained(folder / place)])
        odds = sorted(p.confidence for p in bare.predict([{"task": name, "text": text} for text in texts]))
        found = Calibration(temperature=0.5, threshold=(odds[1] + odds[2]) / 2, precision=0.9, rows=40, split="test")
        write_calibration(folder / place, {name: found})
    predictor = Predictor(model, [MultitaskPrompt.from_pretrained(folder / each) for each in ("mood", "many")])
    with serving(folder, model) as (address, _, _):
        for name in ("mood", "m1", "m2"):
            wanted = predictor.predict([{"task": name, "text": text} for text in texts])
            data = httpx.post(f"{address}/v1/classify", json={"model": name, "input": texts}, timeout=20).json()["data"]
            assert [each["abstained"] for each in data] == [p.abstained for p in wanted]
            assert [each["confidence"] for each in data] == pytest.approx([p.confidence for p in wanted], abs=1e-5)
