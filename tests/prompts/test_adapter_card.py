"""What stands in an adapter's README opens it, and answers as the prompt does."""

import re
import warnings

import pytest

from mptune.answers.prediction import Predictor
from mptune.config import BackboneConfig, EvaluateConfig
from mptune.model.loading import load_backbone
from mptune.prompts.modelcard import adapter_card
from mptune.prompts.peft import export_peft
from mptune.tasks.task import Task
from support.models import make_backbone, saved
from support.prompts import random_prompt

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("peft", reason="PEFT is an extra")

pytestmark = pytest.mark.filterwarnings("ignore")
TASKS = [Task.read({"name": f"say-{n}", "template": f"say {n} {{text}}", "target": "{text}", "metrics": "bleu"}, "")
         for n in "ab"]  # fmt: skip
ROW = {"text": "the cat"}


@pytest.fixture(params=["t5", "llama"])
def model(request, tmp_path):
    """A backbone in a folder, as transformers opens it."""
    backbone = make_backbone(request.param)
    if request.param == "t5":
        backbone.model.generation_config.decoder_start_token_id = 0  # as every trained one has
    saved(backbone, tmp_path / "model")
    return load_backbone(BackboneConfig(name=str(tmp_path / "model")))


@pytest.mark.parametrize("kind", ["peft", "prompt-tuning"])
def test_its_code_runs_and_answers_alike(model, tmp_path, monkeypatch, kind):
    prompt = random_prompt(model, TASKS)
    one = None if kind == "peft" else "say-a"
    export_peft(prompt, tmp_path / "adapter", kind, backbone=model, task=one)
    page = (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    code = code.replace("<this folder>", str(tmp_path / "adapter")).replace("<the text of a row>", "say a the cat")
    monkeypatch.chdir(tmp_path)  # a card names no path: here it is ./model
    held = {}
    exec(compile(code, "README.md", "exec"), held)
    config = EvaluateConfig(max_target_tokens=10)
    answer = Predictor(model, [prompt], config).predict([{**ROW, "task": "say-a"}])[0].answer
    assert held["answer"].strip() == answer.strip()


def test_it_has_every_template_and_no_path(model, tmp_path):
    prompt = random_prompt(model, TASKS)
    page = adapter_card(prompt.card, prompt.prompt_length, model.is_encoder_decoder)
    assert "| 0: say-a | `say a {text}` | free text |" in page
    assert "| 1: say-b | `say b {text}` | free text |" in page
    assert str(tmp_path) not in page


def test_the_embedded_backbone_is_loaded_by_this_package():
    prompt = random_prompt(make_backbone("t5"), TASKS[:1])
    card = prompt.card.model_copy(update={"backbone": "embedded"})
    page = adapter_card(card, 3, True)
    assert "from mptune import load_backbone" in page
    assert "task_ids" not in page
