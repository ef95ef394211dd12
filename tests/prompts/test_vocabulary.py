"""A model that knows a prompt as tokens: by plain transformers it answers as the model with the prompt does here."""

import json
import re

import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    T5Config,
    T5ForConditionalGeneration,
)

from mptune.answers.prediction import Predictor
from mptune.config import BackboneConfig, EvaluateConfig
from mptune.errors import BackboneError, BackboneMismatch, UnknownNameError, UsageError
from mptune.model.backbone import Backbone
from mptune.model.loading import load_backbone
from mptune.prompts import vocabulary
from mptune.prompts.vocabulary import export_vocabulary
from mptune.tasks.task import Task
from support.chat import TEMPLATES, talking
from support.families import tiny_backbone
from support.models import _T5, make_backbone, make_tokenizer, saved
from support.prompts import random_prompt

TIED, UNTIED = ["t5", "bart", "marian", "gpt2", "llama-tied"], ["t5-untied", "llama"]
ROW = "say the cat"
PLACES = ["user", "system", "first"]


def task(place=None, name="say"):
    said = {"name": name, "template": "say {text}", "target": "{text}", "metrics": "bleu", "chat": place}
    return Task.read(said, "it")


def made(family, spare=0):
    """A tiny model of a family, whose output layer is its embedding table or another one.

    Args:
        spare: rows of its table that no token has.
    """
    if family == "t5-untied":  # as T5 1.1 and FLAN have it: another table, and logits that are not scaled
        torch.manual_seed(0)
        model = T5ForConditionalGeneration(T5Config(**_T5, tie_word_embeddings=False))
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        backbone = Backbone(model, make_tokenizer(adds_eos=True), BackboneConfig(name=family, device="cpu"))
    else:
        backbone = make_backbone(family.partition("-")[0])
    if family == "llama-tied":
        backbone.model.config.tie_word_embeddings = True
        backbone.model.lm_head.weight = backbone.model.model.embed_tokens.weight
    backbone.tokenizer.add_tokens([f"<{n}>" for n in range(backbone.vocabulary - spare - len(backbone.tokenizer))])
    return backbone


@pytest.fixture(params=TIED + UNTIED)
def model(request):
    return made(request.param)


def opened(folder, backbone):
    auto = AutoModelForSeq2SeqLM if backbone.is_encoder_decoder else AutoModelForCausalLM
    return auto.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def code_of(folder, text=ROW):
    """What the code of its page holds when it has run."""
    page = (folder / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    held = {}
    exec(compile(code.replace("<this folder>", str(folder)).replace("<the text of a row>", text), "README.md", "exec"),
         held)  # fmt: skip
    return held


def logits_of(model, inputs, start):
    """The logits of the first token of an answer, by plain transformers."""
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    if model.config.is_encoder_decoder:
        given["decoder_input_ids"] = torch.tensor([[start]])
    with torch.no_grad():
        return model(**given).logits[0, -1]


def ours(backbone, prompt, text="the cat"):
    config = EvaluateConfig(max_target_tokens=10)
    return Predictor(backbone, [prompt], config).predict([{"text": text}])[0].answer


def words_of(backbone, prompt):
    """This package's logits of the first token of an answer to a row."""
    rows = vocabulary._rows(prompt.tasks[0], backbone, prompt.prompt_length)
    batch = vocabulary.collate([(0, 0)], [rows], backbone)
    with torch.no_grad():
        return backbone(prompt.collapse(), batch).logits[0, 0], rows.examples[0].input


def test_the_code_of_its_page_writes_what_is_written_here(model, tmp_path):
    prompt = random_prompt(model, [task()])
    export_vocabulary(prompt, tmp_path / "out", backbone=model)
    answers = [(code_of(tmp_path / "out", f"say {text}")["answer"].strip(), ours(model, prompt, text).strip())
               for text in ("the cat", "blue", "what is it")]  # fmt: skip
    assert all(one == other for one, other in answers)
    assert any(one for one, _ in answers)


def check_logits(backbone, prompt, folder, **near):
    wanted, text = words_of(backbone, prompt)
    held, known = code_of(folder, text), len(backbone.tokenizer)
    found = logits_of(held["model"], held["inputs"], backbone.start_token if backbone.is_encoder_decoder else None)
    torch.testing.assert_close(found[:known], wanted[:known], **(near or {"rtol": 1e-4, "atol": 1e-4}))


def test_logits_of_all_that_it_knew_are_what_they_are_here(model, tmp_path):
    prompt = random_prompt(model, [task()])
    export_vocabulary(prompt, tmp_path / "out", backbone=model)
    check_logits(model, prompt, tmp_path / "out")


def test_without_these_tokens_it_answers_as_before(model, tmp_path):
    saved(model, tmp_path / "model")
    export_vocabulary(random_prompt(model, [task()]), tmp_path / "out", backbone=model)
    answers = []
    for folder in ("model", "out"):
        bare, tokenizer = opened(tmp_path / folder, model)
        inputs = tokenizer(ROW, return_tensors="pt")
        answers.append(
            logits_of(bare, inputs, model.start_token if model.is_encoder_decoder else None)[: len(model.tokenizer)]
        )
    torch.testing.assert_close(*answers)


def test_the_copy_shares_the_tables_that_the_model_shares_and_the_model_stays_as_it_was(model, tmp_path):
    before = {name: value.clone() for name, value in model.model.state_dict().items()}
    size, tokens, how = model.vocabulary, len(model.tokenizer), model.model.generation_config.to_dict()
    tied = model.model.get_output_embeddings().weight is model.model.get_input_embeddings().weight
    export_vocabulary(random_prompt(model, [task()]), tmp_path / "out", backbone=model)
    bare, tokenizer = opened(tmp_path / "out", model)
    table, out = bare.get_input_embeddings().weight, bare.get_output_embeddings().weight
    assert (table is out) == tied
    assert len(table) == len(out) == bare.config.vocab_size == size + 3 == len(tokenizer)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] == tied
    assert (model.vocabulary, len(model.tokenizer)) == (size, tokens)
    assert model.model.generation_config.to_dict() == how
    after = model.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_soft_tokens_are_never_written_however_likely_they_are(model, tmp_path):
    """The answer's likeliest token would be a soft one: the prompt is made of what the model wants to say."""
    prompt = random_prompt(model, [task()])
    with torch.no_grad():
        for vectors in (*prompt.u, *prompt.v):
            vectors.fill_(1.0)
        prompt.shared.copy_(40 * model.embeddings[:3])
        out = model.model.get_output_embeddings().weight
        if out is not model.model.get_input_embeddings().weight:
            out[model.tokenizer.pad_token_id] = 40 * out[5]
    export_vocabulary(prompt, tmp_path / "out", backbone=model)
    bare, tokenizer = opened(tmp_path / "out", model)
    ids = tokenizer.convert_tokens_to_ids([f"<mptune-say-{n}>" for n in range(3)])
    assert bare.generation_config.suppress_tokens == ids
    held, seen = code_of(tmp_path / "out"), 0
    for text in (ROW, "blue", "the dog ran fast", "no", "maybe very good", "what"):
        inputs = tokenizer(held["soft"] + text, return_tensors="pt")
        first = logits_of(bare, inputs, model.start_token if model.is_encoder_decoder else None)
        seen += bool(first[ids].max() >= first.max() - 1e-4)
        inputs = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        for how in ({}, {"num_beams": 3}, {"do_sample": True, "top_k": 0}):
            written = bare.generate(**inputs, max_new_tokens=6, min_new_tokens=6, **how)
            assert not set(written[0, -6:].tolist()) & set(ids)
    assert bool(seen) != hasattr(bare, "final_logits_bias")  # a bias keeps them down; without one this shows something


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spaced", [False, True], ids=["plain", "spaced"])
def test_in_a_chat_template_it_writes_what_is_written_here(tmp_path, place, spaced):
    backbone = talking(TEMPLATES["begins"], spaced=spaced)
    prompt = random_prompt(backbone, [task(place)])
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    held = code_of(tmp_path / "out")
    assert held["answer"].strip() == ours(backbone, prompt).strip() != ""
    end = backbone.tokenizer.convert_tokens_to_ids("<|end|>")
    assert end in held["model"].generation_config.eos_token_id
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "Remove them from texts of strangers" in page


@pytest.mark.parametrize(("family", "place", "spot"), [
    ("llama", None, 3), ("llama", "user", 0), ("llama", "first", 3), ("t5", None, None), ("gpt2", None, None),
])  # fmt: skip
def test_the_begin_of_the_text_stands_where_this_package_has_it(tmp_path, family, place, spot):
    backbone = talking(TEMPLATES["begins"]) if place else make_backbone(family)
    export_vocabulary(random_prompt(backbone, [task(place)]), tmp_path / "out", backbone=backbone)
    held = code_of(tmp_path / "out")
    ids = held["inputs"]["input_ids"][0].tolist()
    bos = backbone.tokenizer.bos_token_id
    assert [n for n, token in enumerate(ids) if token == bos] == ([] if spot is None else [spot])
    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert ("add_special_tokens=False" in page) == ("tell it not to" in page) == (family == "llama")


def test_label_words_are_as_likely_among_themselves_as_here(model, tmp_path):
    words = {"0": "yes", "1": "no", "2": "maybe"}
    which = Task.read({"name": "say", "template": "say {text}", "verbalizer": words}, "it")
    prompt = random_prompt(model, [which])
    export_vocabulary(prompt, tmp_path / "out", backbone=model)
    likely = Predictor(model, [prompt]).predict([{"text": "the cat"}])[0].probabilities
    held = code_of(tmp_path / "out")
    logits = logits_of(held["model"], held["inputs"], model.start_token if model.is_encoder_decoder else None)
    firsts = [ids[0] for ids in vocabulary._rows(which, model, 3).label_ids]
    assert logits[firsts].softmax(0).tolist() == pytest.approx(list(likely.values()), abs=1e-4)


@pytest.mark.parametrize("more", [0, 3])
@pytest.mark.parametrize("family", TIED + UNTIED)
def test_rows_that_a_table_has_to_spare_are_taken_first(tmp_path, family, more):
    """T5's table has 28 rows more than its tokenizer has tokens."""
    backbone = made(family, spare=2)
    prompt = random_prompt(backbone, [task()], length=2 + more)
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    held = code_of(tmp_path / "out")
    for table in (held["model"].get_input_embeddings(), held["model"].get_output_embeddings()):
        assert len(table.weight) == len(held["tokenizer"]) == backbone.vocabulary + more
    check_logits(backbone, prompt, tmp_path / "out")


def test_a_decoder_with_a_table_of_its_own_keeps_it(tmp_path):
    backbone = tiny_backbone("t5gemma")  # whose output layer is the decoder's table, not the encoder's
    prompt = random_prompt(backbone, [task()])
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    check_logits(backbone, prompt, tmp_path / "out")


def test_one_task_of_several_goes_by_its_name(tmp_path):
    backbone = make_backbone("t5")
    prompt = random_prompt(backbone, [task(), task(name="x.2-b")])
    with pytest.raises(UsageError, match=r"this prompt is of several tasks: say, x\.2-b\. Name one of them"):
        export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone, task="x.2-b")
    bare, tokenizer = opened(tmp_path / "out", backbone)
    ids = tokenizer.convert_tokens_to_ids([f"<mptune-x.2-b-{n}>" for n in range(3)])
    torch.testing.assert_close(bare.get_input_embeddings().weight[ids], prompt.collapse()[1])
    for path in (tmp_path / "out").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


def test_a_task_that_reads_little_of_a_text_goes_too(tmp_path):
    backbone = make_backbone("t5")
    short = task().model_copy(update={"max_input_tokens": 3})
    export_vocabulary(random_prompt(backbone, [short]), tmp_path / "out", backbone=backbone)
    assert (tmp_path / "out" / "README.md").is_file()


# -- refused ----------------------------------------------------------------------------------------------------------


def refused(backbone, prompt, folder, kind):
    with pytest.raises(kind) as told:
        export_vocabulary(prompt, folder, backbone=backbone)
    assert not folder.exists()
    assert list(folder.parent.iterdir()) == []
    return str(told.value)


def test_an_order_that_no_text_says_is_refused(tmp_path):
    """A begin-of-text token that only the tokenizer's own program can write stands behind a prompt here."""
    backbone = make_backbone("llama")
    backbone.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="Ġthe $A", special_tokens=[("Ġthe", backbone.tokenizer.convert_tokens_to_ids("Ġthe"))]
    )
    said = refused(backbone, random_prompt(backbone, [task()]), tmp_path / "out", BackboneError)
    assert said == (
        "the tokenizer of tiny-llama reads no text as the soft tokens followed by a row, as mptune lays them out: "
        "before a text, and before the begin-of-text token that the tokenizer adds, if any. Export with --to "
        "prompt-tuning, or with --to vllm."
    )


def test_a_model_that_would_answer_otherwise_is_refused(tmp_path, monkeypatch):
    backbone, with_rows = make_backbone("llama"), vocabulary._with_rows
    monkeypatch.setattr(vocabulary, "_with_rows", lambda given, soft, ids: with_rows(given, soft.flip(0), ids))
    said = refused(backbone, random_prompt(backbone, [task()]), tmp_path / "out", BackboneError)
    assert said == (
        "a copy of tiny-llama with more tokens answers otherwise than the model with the prompt: its family reads more "
        "of a token than a row of its embedding table. Export with --to prompt-tuning, or with --to vllm."
    )


def test_few_bits_another_model_an_unknown_task_and_known_tokens_are_refused(tmp_path):
    t5, llama = make_backbone("t5"), make_backbone("llama")
    few = Backbone(t5.model, t5.tokenizer, t5.config.model_copy(update={"bits": 4}))
    assert refused(few, random_prompt(few, [task()]), tmp_path / "out", UsageError) == (
        "the backbone tiny-t5 is in 4 bits, and a copy with more tokens is made of whole weights. Name the whole model "
        "with --backbone; the prompt fits it too."
    )
    assert "was trained for tiny-llama, and a soft prompt fits no other model; got tiny-t5" in refused(
        t5, random_prompt(llama, [task()]), tmp_path / "out", BackboneMismatch
    )
    with pytest.raises(UnknownNameError, match=r"no task of this prompt is called 'sy'\. Did you mean 'say'"):
        export_vocabulary(random_prompt(t5, [task()]), tmp_path / "out", backbone=t5, task="sy")
    t5.tokenizer.add_tokens(["<mptune-say-1>"])
    assert refused(t5, random_prompt(t5, [task()]), tmp_path / "out", UsageError) == (
        "the backbone tiny-t5 has a token <mptune-say-1> already. Give the task another name, or take the model "
        "without it."
    )
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already; remove it or choose another name"):
        export_vocabulary(random_prompt(llama, [task()]), tmp_path / "out", backbone=llama)
    assert list((tmp_path / "out").iterdir()) == []


# -- other engines, and a real model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["t5", "t5-untied"])
def test_ctranslate2_writes_what_is_written_here(tmp_path, family):
    pytest.importorskip("ctranslate2", reason="CTranslate2 is no part of this package")
    import ctranslate2
    from ctranslate2.converters import TransformersConverter

    backbone = made(family)
    prompt = random_prompt(backbone, [task()])
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    TransformersConverter(str(tmp_path / "out")).convert(str(tmp_path / "converted"))
    engine = ctranslate2.Translator(str(tmp_path / "converted"), device="cpu", compute_type="float32")
    held = code_of(tmp_path / "out")
    tokenizer, names = held["tokenizer"], [f"<mptune-say-{n}>" for n in range(3)]
    read = tokenizer.convert_ids_to_tokens(held["inputs"]["input_ids"][0])
    (found,) = engine.translate_batch([read], beam_size=1, max_decoding_length=10,
                                      suppress_sequences=[[name] for name in names])  # fmt: skip
    ids = tokenizer.convert_tokens_to_ids(found.hypotheses[0])
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == ours(backbone, prompt).strip() != ""


@pytest.mark.embedded
def test_the_embedded_model_goes_too(tmp_path):
    backbone = load_backbone(BackboneConfig(device="cpu", dtype="float32"))
    prompt = random_prompt(backbone, [task()], length=40)  # more than its table has rows to spare
    with torch.no_grad():
        prompt.shared.mul_(backbone.embedding_rms)
    export_vocabulary(prompt, tmp_path / "out", backbone=backbone)
    held = code_of(tmp_path / "out")
    assert held["answer"].strip() == ours(backbone, prompt).strip() != ""
    check_logits(backbone, prompt, tmp_path / "out", rtol=1e-3, atol=1e-2)
