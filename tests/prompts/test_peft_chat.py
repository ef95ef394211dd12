"""A prompt inside a chat template goes to PEFT with what the template writes before it, and comes back without."""

import json
import re
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mptune.answers.prediction import Predictor
from mptune.config import BackboneConfig, EvaluateConfig
from mptune.errors import ArtifactError, UsageError
from mptune.model.chat import chat_of
from mptune.model.loading import load_backbone
from mptune.prompts.peft import export_peft, import_peft
from mptune.tasks.task import Task
from support.chat import TEMPLATES, talking
from support.models import saved
from support.prompts import random_prompt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("peft", reason="PEFT is an extra")

pytestmark = pytest.mark.filterwarnings("ignore")
PLACES = ["user", "system", "first"]


def task(place, name="say"):
    said = {"name": name, "template": "say {text}", "target": "{text}", "metrics": "bleu", "chat": place}
    return Task.read(said, "it")


@pytest.fixture(params=[False, True], ids=["plain", "spaced"])
def model(request, tmp_path):
    """A chat model in a folder, whose generation ends with a turn, as that of every trained one does."""
    backbone = talking(TEMPLATES["begins"], spaced=request.param)
    backbone.tokenizer.eos_token = "<|end|>"
    backbone.model.generation_config.eos_token_id = backbone.tokenizer.eos_token_id
    saved(backbone, tmp_path / "model")
    return load_backbone(BackboneConfig(name=str(tmp_path / "model")))


@pytest.mark.parametrize("place", PLACES)
def test_the_code_of_its_readme_answers_in_peft_as_here(model, tmp_path, monkeypatch, place):
    prompt = random_prompt(model, [task(place)])
    export_peft(prompt, tmp_path / "adapter", "prompt-tuning", backbone=model)
    page = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    begins = len(chat_of(model.tokenizer, "it", place).before)
    said = f"; the first {begins} are what the chat template writes before the prompt"
    assert (said in page) == bool(begins) == (place != "first")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("<this folder>", str(tmp_path / "adapter")).replace("<the text of a row>", "say the cat")
    monkeypatch.chdir(tmp_path)  # a card names no path: here it is ./model
    held = {}
    exec(compile(code, "README.md", "exec"), held)
    answer = Predictor(model, [prompt], EvaluateConfig(max_target_tokens=10)).predict([{"text": "the cat"}])[0].answer
    assert held["answer"].strip() == answer.strip() != ""


@pytest.mark.parametrize("place", PLACES)
def test_it_comes_back_as_it_went(model, tmp_path, place):
    prompt = random_prompt(model, [task(place)])
    export_peft(prompt, tmp_path / "adapter", "prompt-tuning", backbone=model)
    back = import_peft(tmp_path / "adapter", backbone=model)
    assert [each.chat for each in back.tasks] == [place]
    torch.testing.assert_close(back.collapse(), prompt.collapse())
    export_peft(back, tmp_path / "again", "prompt-tuning", backbone=model)
    one, two = (load_file(tmp_path / each / "adapter_model.safetensors") for each in ("adapter", "again"))
    assert all(torch.equal(one[name], two[name]) for name in one | two)


def test_an_adapter_too_short_for_its_template_is_refused(model, tmp_path):
    export_peft(random_prompt(model, [task("user")]), tmp_path / "adapter", "prompt-tuning", backbone=model)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    with safe_open(file, framework="pt") as stored:
        header = stored.metadata()
    begins = len(chat_of(model.tokenizer, "it", "user").before)
    save_file({"prompt_embeddings": load_file(file)["prompt_embeddings"][:begins].contiguous()}, file, header)
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "num_virtual_tokens": begins}))
    with pytest.raises(ArtifactError, match=f"should begin with the {begins} soft tokens .* and has {begins} in all"):
        import_peft(tmp_path / "adapter", backbone=model)


def test_task_vectors_cannot_hold_what_the_template_writes(model, tmp_path):
    with pytest.raises(UsageError) as told:
        export_peft(random_prompt(model, [task("user"), task("user", "b")]), tmp_path / "out", "peft", backbone=model)
    assert str(told.value) == (
        "an adapter of kind peft stands before everything, and the prompt of say, b inside the model's chat template. "
        "Take kind prompt-tuning, which carries what the template writes before it."
    )
    assert not (tmp_path / "out").exists()
    export_peft(random_prompt(model, [task("first"), task("first", "b")]), tmp_path / "out", "peft", backbone=model)


def test_what_peft_has_trained_stands_first(model, tmp_path):
    export_peft(random_prompt(model, [task("first")]), tmp_path / "adapter", "prompt-tuning", backbone=model)
    with pytest.raises(UsageError) as told:
        import_peft(tmp_path / "adapter", backbone=model, tasks=[task("user")])
    assert str(told.value).endswith(
        "stands before everything, as PEFT puts it. Write chat: first in the task in place of chat: user."
    )
    assert import_peft(tmp_path / "adapter", backbone=model, tasks=[task("first")]).tasks[0].chat == "first"
