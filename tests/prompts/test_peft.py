"""Prompts go to PEFT and come back, and answer there as they do here."""

import copy
import json
import logging
import sys
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mptune.errors import ArtifactError, BackboneMismatch, MissingArtifact, ShapeError, UnknownNameError, UsageError
from mptune.model.batch import IGNORE
from mptune.model.encoding import encode_inputs, encode_targets, pad_batch
from mptune.model.scoring import generate
from mptune.prompts.card import Calibration, Card
from mptune.prompts.peft import export_peft, import_peft
from mptune.prompts.prompt import MultitaskPrompt
from mptune.prompts.vectors import TaskVectors, compose
from mptune.tasks.task import Task
from support.models import make_backbone

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    peft = pytest.importorskip("peft", reason="PEFT is an extra")

# What PEFT and transformers deprecate in each other is theirs to mend.
pytestmark = pytest.mark.filterwarnings("ignore")

# Marian is absent: PEFT does not scale the embeddings it feeds to it, so no adapter can answer alike.
SAME_TEXT = ["t5", "mt5", "bart", "gpt2", "llama"]
LENGTH = 4

TASKS = (
    Task(name="mood", template="mood text: {text}", verbalizer={"0": "bad", "1": "good"}),
    Task(name="speed", template="speed of {text}", verbalizer={"0": "slow", "1": "fast"}),
    Task(name="say", template="{question}", target="{answer}", metrics=("exact_match",)),
)


def make_prompt(backbone, rank: int = 1, tasks=TASKS) -> MultitaskPrompt:
    """A prompt whose tasks differ from each other as much as random numbers can."""
    generator = torch.Generator().manual_seed(rank)
    count, width = len(tasks), backbone.width
    vectors = TaskVectors(
        torch.randn(count, LENGTH, rank, generator=generator), torch.randn(count, rank, width, generator=generator)
    )
    card = Card(
        stage="source",
        tasks=tasks,
        backbone=backbone.config.name,
        fingerprint=backbone.fingerprint,
        scores=tuple(
            {"task": t.name, "split": "test", "metric": "accuracy", "value": 50.0, "examples": 4} for t in tasks
        ),
        data={t.name: "0123" for t in tasks},
    )
    return MultitaskPrompt(torch.randn(LENGTH, width, generator=generator), vectors, card)


def export(prompt, folder, backbone, kind="peft", task=None):
    export_peft(prompt, folder, kind, backbone=backbone, task=task)
    return folder


def mixed_batch(backbone):
    """One example of each task, of different lengths."""
    inputs = encode_inputs(backbone, ["the sky is blue", "a cat sat", "what is it, true or false"], 20, LENGTH, 4)
    return pad_batch(backbone, [0, 1, 2], inputs, encode_targets(backbone, ["good", "very slow", "no"], 4))


def our_logits(backbone, prompts, batch):
    """The logits of every label token, example after example. [tokens, V]"""
    with torch.no_grad():
        return backbone(prompts, batch).logits[batch.labels != IGNORE]


def peft_logits(model, batch, **task_ids):
    """As `our_logits`, through PeftModel.forward."""
    counted = batch.labels != IGNORE
    if model.config.is_encoder_decoder:
        with torch.no_grad():
            out = model(input_ids=batch.input_ids, attention_mask=batch.mask, labels=batch.labels, **task_ids)
        return out.logits[counted]
    # PEFT allows no position ids, so that its examples must be padded on the right: text and labels in one row.
    texts = [ids[mask.bool()] for ids, mask in zip(batch.input_ids, batch.mask, strict=True)]
    labels = [row[c] for row, c in zip(batch.labels, counted, strict=True)]
    rows = [torch.cat(pair) for pair in zip(texts, labels, strict=True)]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, **task_ids).logits
    starts = [LENGTH + len(text) - 1 for text in texts]
    return torch.cat([logits[i, s : s + len(labels[i])] for i, s in enumerate(starts)])


def open_in_peft(backbone, folder):
    return peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder).eval()


def train_in_peft(backbone, folder, **settings):
    """Make an adapter as PEFT's users do, give it numbers as of training, and save it; return its model."""
    kind = "SEQ_2_SEQ_LM" if backbone.is_encoder_decoder else "CAUSAL_LM"
    values = {"task_type": kind, "num_virtual_tokens": LENGTH, "num_transformer_submodules": 1, **settings}
    config_of = peft.MultitaskPromptTuningConfig if "num_tasks" in settings else peft.PromptTuningConfig
    model = peft.get_peft_model(copy.deepcopy(backbone.model), config_of(**values)).eval()
    torch.manual_seed(0)
    for parameter in model.prompt_encoder.parameters():
        torch.nn.init.normal_(parameter)
    model.save_pretrained(folder)
    return model


def edit_config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(params=SAME_TEXT)
def peft_backbone(request):
    return make_backbone(request.param)


# -- the mathematics ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_compose_equals_pefts_embedding_on_the_same_numbers(backbone, rank):
    prompt = make_prompt(backbone, rank)
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_tasks=3, num_ranks=rank, num_virtual_tokens=LENGTH, token_dim=backbone.width,
        num_transformer_submodules=1,
    )  # fmt: skip
    from peft.tuners.multitask_prompt_tuning import MultitaskPromptEmbedding

    theirs = MultitaskPromptEmbedding(config, backbone.model.get_input_embeddings())
    theirs.embedding.weight.data = prompt.shared.data
    theirs.prefix_task_cols.data, theirs.prefix_task_rows.data = prompt.task_vectors.u, prompt.task_vectors.v
    task_ids = torch.tensor([2, 0, 1, 2])
    with torch.no_grad():
        composed = theirs(torch.arange(LENGTH).expand(4, -1), task_ids)
        torch.testing.assert_close(compose(prompt.shared, prompt.task_vectors)[task_ids], composed, rtol=0, atol=1e-6)
        torch.testing.assert_close(prompt(task_ids), composed, rtol=0, atol=1e-6)


# -- out ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_an_exported_prompt_answers_in_peft_as_here_for_every_task(peft_backbone, rank, tmp_path):
    prompt, batch = make_prompt(peft_backbone, rank), mixed_batch(peft_backbone)
    model = open_in_peft(peft_backbone, export(prompt, tmp_path / "out", peft_backbone))
    answers = []
    for k in range(3):
        ours = our_logits(peft_backbone, prompt([k] * 3), batch)
        theirs = peft_logits(model, batch, task_ids=torch.full((3,), k))
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
        answers.append(ours)
    assert all((answers[i] - answers[j]).abs().max() > 1e-3 for i, j in [(0, 1), (0, 2), (1, 2)])


def test_a_mixed_batch_answers_in_peft_as_here(peft_backbone, tmp_path):
    prompt, batch = make_prompt(peft_backbone), mixed_batch(peft_backbone)
    model = open_in_peft(peft_backbone, export(prompt, tmp_path / "out", peft_backbone))
    ours = our_logits(peft_backbone, prompt(batch.tasks), batch)
    torch.testing.assert_close(peft_logits(model, batch, task_ids=batch.task_ids), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["mood", "speed", "say"])
def test_a_collapsed_task_answers_in_peft_as_here(peft_backbone, name, tmp_path):
    prompt, batch = make_prompt(peft_backbone, rank=2), mixed_batch(peft_backbone)
    folder = export(prompt, tmp_path / "out", peft_backbone, "prompt-tuning", name)
    ours = our_logits(peft_backbone, prompt([prompt.task_number(name)] * 3), batch)
    torch.testing.assert_close(peft_logits(open_in_peft(peft_backbone, folder), batch), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_peft_writes_the_same_text_with_an_exported_prompt(family, tmp_path):
    backbone = make_backbone(family)
    prompt = make_prompt(backbone)
    model = open_in_peft(backbone, export(prompt, tmp_path / "out", backbone))
    settings = {"decoder_start_token_id": 0} if backbone.is_encoder_decoder else {}
    for k, text in enumerate(["the sky is blue", "a cat sat", "what is it, true or false"]):
        # One by one: PEFT counts padding on the left as positions, which sets the text apart from the prompt.
        batch = pad_batch(backbone, [k], encode_inputs(backbone, [text], 20, LENGTH, 6), [[1]])
        ids = model.generate(
            input_ids=batch.input_ids, attention_mask=batch.mask, task_ids=torch.tensor([k]), max_new_tokens=6,
            do_sample=False, eos_token_id=backbone.tokenizer.eos_token_id, pad_token_id=backbone.tokenizer.pad_token_id,
            **settings,
        )  # fmt: skip
        if not backbone.is_encoder_decoder:
            ids = ids[:, batch.input_ids.shape[1] :]  # PEFT gives the text back with the answer
        theirs = backbone.tokenizer.decode(ids[0], skip_special_tokens=True).strip()
        assert theirs
        assert [theirs] == generate(backbone, prompt(batch.tasks), batch, max_new_tokens=6)


def test_peft_adapts_an_exported_prompt_to_a_target_by_itself(backbone, tmp_path):
    prompt = make_prompt(backbone)
    folder = export(prompt, tmp_path / "out", backbone)
    config = peft.MultitaskPromptTuningConfig(
        task_type="SEQ_2_SEQ_LM", num_tasks=1, num_virtual_tokens=LENGTH, num_transformer_submodules=1,
        prompt_tuning_init="AVERAGE_SOURCE_TASKS",
        prompt_tuning_init_state_dict_path=str(folder / "adapter_model.safetensors"),
    )  # fmt: skip
    model = peft.get_peft_model(copy.deepcopy(backbone.model), config)
    model.save_pretrained(tmp_path / "target")
    target = import_peft(tmp_path / "target", backbone=backbone)
    assert torch.equal(target.shared, prompt.shared)
    torch.testing.assert_close(target.task_vectors.u[0], prompt.task_vectors.u.mean(0))
    torch.testing.assert_close(target.task_vectors.v[0], prompt.task_vectors.v.mean(0))


def test_an_adapter_of_a_local_model_names_no_path_of_this_machine(backbone, tmp_path):
    prompt = make_prompt(backbone, 2)
    prompt.card = prompt.card.model_copy(update={"backbone": "/home/somebody/models/tiny-t5"})
    folder = export(prompt, tmp_path / "out", backbone)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "./tiny-t5"
    assert b"somebody" not in b"".join(file.read_bytes() for file in folder.iterdir())


def test_an_adapter_names_its_model_and_prompts_the_encoder_only(backbone, tmp_path):
    config = json.loads(
        (export(make_prompt(backbone, 2), tmp_path / "out", backbone) / "adapter_config.json").read_text()
    )
    assert config["base_model_name_or_path"] == "tiny-t5"
    assert config["num_transformer_submodules"] == 1
    assert (config["num_tasks"], config["num_ranks"], config["num_virtual_tokens"]) == (3, 2, LENGTH)
    assert not config.get("prompt_tuning_init_state_dict_path")


def test_no_adapter_names_the_embedded_model_which_peft_cannot_load(backbone, tmp_path):
    prompt = make_prompt(backbone)
    prompt.card = prompt.card.model_copy(update={"backbone": "embedded"})
    folder = export(prompt, tmp_path / "out", backbone)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] is None


def test_the_same_prompt_is_the_same_bytes(backbone, tmp_path):
    prompt = make_prompt(backbone)
    first, second = (export(prompt, tmp_path / name, backbone) for name in ("first", "second"))
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_collapsed_task_tells_nothing_of_the_other_tasks(backbone, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone, "prompt-tuning", "speed")
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
        header = stored.metadata()
    assert set(header) == {"card"}
    assert "speed" in header["card"]
    assert "mood" not in header["card"]


def test_a_collapsed_task_keeps_its_own_calibration_alone(backbone, tmp_path):
    found = Calibration(temperature=2, precision=0.9, rows=20, split="test")
    prompt = make_prompt(backbone)
    for named in (("mood", "speed"), ("mood",)):
        prompt.card = prompt.card.model_copy(update={"calibration": dict.fromkeys(named, found)})
        folder = export(prompt, tmp_path / f"of {len(named)}", backbone, "prompt-tuning", "speed")
        import_peft(folder, backbone=backbone)  # which checks the card
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as stored:
            card = Card.model_validate_json(stored.metadata()["card"])
        assert card.calibration == ({"speed": found} if "speed" in named else None)


def test_several_tasks_cannot_collapse_without_a_name(backbone, tmp_path):
    prompt = make_prompt(backbone)
    with pytest.raises(UsageError, match=r"this prompt is of several tasks: mood, .*\. Name one of them"):
        export(prompt, tmp_path / "out", backbone, "prompt-tuning")
    with pytest.raises(UnknownNameError, match="Did you mean 'speed'"):
        export(prompt, tmp_path / "out", backbone, "prompt-tuning", "sped")
    assert not (tmp_path / "out").exists()


def test_the_only_task_collapses_without_a_name(backbone, tmp_path):
    prompt = make_prompt(backbone, tasks=TASKS[:1])
    folder = export(prompt, tmp_path / "out", backbone, "prompt-tuning")
    assert torch.equal(load_file(folder / "adapter_model.safetensors")["prompt_embeddings"], prompt.collapse()[0])


def test_a_task_cannot_be_named_for_an_adapter_of_all_tasks(backbone, tmp_path):
    with pytest.raises(UsageError, match="holds all tasks; name 'mood' with kind prompt-tuning"):
        export(make_prompt(backbone), tmp_path / "out", backbone, "peft", "mood")


def test_an_existing_folder_is_refused_and_left_alone(backbone, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="out exists already; remove it"):
        export(make_prompt(backbone), tmp_path / "out", backbone)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert not list((tmp_path / "out").iterdir())


# -- in -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3])
def test_a_prompt_comes_back_bit_identical_with_its_tasks(backbone, rank, tmp_path):
    prompt = make_prompt(backbone, rank)
    back = import_peft(export(prompt, tmp_path / "out", backbone), backbone=backbone)
    for name, tensor in prompt.tensors().items():
        assert torch.equal(back.tensors()[name], tensor), name
    assert back.tasks == prompt.tasks
    assert back.card.stage == "imported"
    back.check_backbone(backbone)


def test_a_collapsed_task_comes_back_as_a_prompt_of_one_task(backbone, tmp_path):
    prompt = make_prompt(backbone, rank=2)
    back = import_peft(export(prompt, tmp_path / "out", backbone, "prompt-tuning", "say"), backbone=backbone)
    assert torch.equal(back.collapse(), prompt.collapse()[2:])
    assert back.tasks == TASKS[2:]


@pytest.mark.parametrize("rank", [1, 2])
def test_a_multitask_adapter_of_pefts_own_answers_here_as_there_for_every_task(peft_backbone, rank, tmp_path):
    model = train_in_peft(peft_backbone, tmp_path / "adapter", num_tasks=3, num_ranks=rank)
    prompt, batch = import_peft(tmp_path / "adapter", backbone=peft_backbone), mixed_batch(peft_backbone)
    for k in range(3):
        ids = torch.full((3,), k)
        theirs = peft_logits(model, batch, task_ids=ids)
        torch.testing.assert_close(our_logits(peft_backbone, prompt(ids), batch), theirs, rtol=0, atol=1e-5)


def test_a_plain_adapter_of_pefts_own_answers_here_as_there(peft_backbone, tmp_path):
    model = train_in_peft(peft_backbone, tmp_path / "adapter")
    prompt, batch = import_peft(tmp_path / "adapter", backbone=peft_backbone), mixed_batch(peft_backbone)
    ours = our_logits(peft_backbone, prompt(torch.zeros(3, dtype=torch.long)), batch)
    torch.testing.assert_close(ours, peft_logits(model, batch), rtol=0, atol=1e-5)
    assert torch.equal(prompt.collapse()[0], prompt.shared)


def test_an_adapter_that_peft_saved_again_keeps_its_numbers(backbone, tmp_path):
    prompt = make_prompt(backbone)
    open_in_peft(backbone, export(prompt, tmp_path / "out", backbone)).save_pretrained(tmp_path / "again")
    back = import_peft(tmp_path / "again", backbone=backbone)
    assert all(torch.equal(back.tensors()[name], tensor) for name, tensor in prompt.tensors().items())
    assert [t.name for t in back.tasks] == ["task_0", "task_1", "task_2"]


def test_a_nameless_task_reads_its_text_as_it_is(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter")
    (task,) = import_peft(tmp_path / "adapter", backbone=backbone).tasks
    assert task.render({"text": "a cat", "target": "yes"}).input == "a cat"


def test_given_tasks_replace_those_of_the_file_and_leave_their_paths_behind(backbone, tmp_path, toy_tasks):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    back = import_peft(folder, backbone=backbone, tasks=toy_tasks)
    assert [t.name for t in back.tasks] == [t.name for t in toy_tasks]
    assert all(t.dataset is None for t in back.tasks)


def test_an_imported_prompt_can_be_saved_and_loaded(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", num_tasks=2)
    prompt = import_peft(tmp_path / "adapter", backbone=backbone, tasks=TASKS[:2])
    prompt.save_pretrained(tmp_path / "prompt")
    assert torch.equal(MultitaskPrompt.from_pretrained(tmp_path / "prompt").collapse(), prompt.collapse())


def test_half_precision_becomes_single_precision(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", num_tasks=2)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    halves = {name: tensor.bfloat16() for name, tensor in load_file(file).items()}
    save_file(halves, file)
    prompt = import_peft(tmp_path / "adapter", backbone=backbone)
    assert torch.equal(prompt.shared, halves["prompt_embeddings"].float())


def test_neither_way_needs_peft_itself(backbone, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "peft"]:
        monkeypatch.setitem(sys.modules, name, None)
    prompt = make_prompt(backbone)
    back = import_peft(export(prompt, tmp_path / "out", backbone), backbone=backbone)
    assert torch.equal(back.collapse(), prompt.collapse())
    with pytest.raises(ImportError):
        import peft  # noqa: F401


# -- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PREFIX_TUNING", "LORA", "P_TUNING"])
def test_another_kind_of_adapter_is_refused_by_name(backbone, kind, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    edit_config(folder, peft_type=kind)
    with pytest.raises(
        ArtifactError, match=f"an adapter of type {kind}; only MULTITASK_PROMPT_TUNING and PROMPT_TUNING"
    ):
        import_peft(folder, backbone=backbone)


def test_an_adapter_of_pefts_own_lora_is_refused_by_name(backbone, tmp_path):
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", target_modules=["q"])
    peft.get_peft_model(copy.deepcopy(backbone.model), config).save_pretrained(tmp_path / "lora")
    with pytest.raises(ArtifactError, match="an adapter of type LORA"):
        import_peft(tmp_path / "lora", backbone=backbone)


@pytest.mark.parametrize("tasks", [{}, {"num_tasks": 2}], ids=["plain", "multitask"])
def test_a_decoder_prompt_is_refused_and_explained(backbone, tasks, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", num_transformer_submodules=None, **tasks)
    with pytest.raises(
        ArtifactError, match=r"8 rows are 4 soft tokens for the encoder and as many for the decoder"
    ) as e:
        import_peft(tmp_path / "adapter", backbone=backbone)
    assert "Train it again with num_transformer_submodules=1" in str(e.value)


def test_submodules_left_out_mean_what_peft_takes_them_for(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", num_transformer_submodules=2)
    edit_config(tmp_path / "adapter", num_transformer_submodules=None)
    with pytest.raises(ArtifactError, match="num_transformer_submodules is 2"):
        import_peft(tmp_path / "adapter", backbone=backbone)


def test_a_pickle_is_refused_unopened_with_a_way_out(backbone, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"a pickle.*save_pretrained\(folder, safe_serialization=True\)"):
        import_peft(folder, backbone=backbone)


def test_a_folder_without_an_adapter_points_to_one_below(backbone, tmp_path):
    export(make_prompt(backbone), tmp_path / "adapters" / "glue", backbone)
    with pytest.raises(ArtifactError, match=r"has no adapter_config\.json\. Did you mean one of its adapters: glue\?"):
        import_peft(tmp_path / "adapters", backbone=backbone)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match=r"has no adapter_config\.json\.$"):
        import_peft(tmp_path / "empty", backbone=backbone)
    with pytest.raises(MissingArtifact, match=r"there is no folder .*nowhere with a PEFT adapter\. Check the spelling"):
        import_peft(tmp_path / "nowhere", backbone=backbone)


def test_damaged_files_are_called_so(backbone, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    tensors, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    tensors.write_bytes(tensors.read_bytes()[:-8])
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors is damaged"):
        import_peft(folder, backbone=backbone)
    tensors.unlink()
    with pytest.raises(ArtifactError, match=r"has no adapter_model\.safetensors"):
        import_peft(folder, backbone=backbone)
    for text in ("{", "[]"):
        config.write_text(text)
        with pytest.raises(ArtifactError, match=r"adapter_config\.json is damaged: it is no JSON object"):
            import_peft(folder, backbone=backbone)


def test_modules_trained_beside_the_prompt_are_not_lost_in_silence(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({**load_file(file), "lm_head.weight": torch.ones(2, 2)}, file)
    with pytest.raises(ArtifactError, match=r"nothing else; it holds lm_head\.weight, prompt_embeddings"):
        import_peft(tmp_path / "adapter", backbone=backbone)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        pytest.param("prompt_embeddings", (5, 16), r"should be \[L=4, D\]; got \[5, 16\]", id="length"),
        pytest.param("prefix_task_cols", (3, 5, 1), r"should be \[K, L=4, R\]; got \[3, 5, 1\]", id="u's length"),
        pytest.param("prefix_task_rows", (2, 1, 16), r"should be \[K=3, R=1, D=16\]; got \[2, 1, 16\]", id="tasks"),
        pytest.param("prefix_task_rows", (3, 2, 16), r"should be \[K=3, R=1, D=16\]; got \[3, 2, 16\]", id="rank"),
        pytest.param("prefix_task_rows", (3, 1, 15), r"should be \[K=3, R=1, D=16\]; got \[3, 1, 15\]", id="width"),
    ],
)
def test_tensors_that_do_not_fit_each_other_are_refused(backbone, name, shape, message, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", num_tasks=3)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({**load_file(file), name: torch.ones(shape)}, file)
    with pytest.raises(ShapeError, match=f"{name} {message}"):
        import_peft(tmp_path / "adapter", backbone=backbone)


def test_an_adapter_of_another_width_is_refused(backbone, tmp_path):
    train_in_peft(backbone, tmp_path / "adapter", token_dim=32)
    with pytest.raises(BackboneMismatch, match="embeddings are 32 wide; those of tiny-t5 are 16 wide"):
        import_peft(tmp_path / "adapter", backbone=backbone)


def test_an_adapter_of_another_architecture_is_refused(backbone, tmp_path):
    train_in_peft(make_backbone("gpt2"), tmp_path / "adapter")
    with pytest.raises(BackboneMismatch, match="as a CAUSAL_LM; tiny-t5 is a SEQ_2_SEQ_LM"):
        import_peft(tmp_path / "adapter", backbone=backbone)


def test_our_own_export_is_refused_by_another_model_of_the_same_width(backbone, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    with pytest.raises(BackboneMismatch, match="made for tiny-t5; a soft prompt fits no other, and tiny-t5 is another"):
        import_peft(folder, backbone=make_backbone("t5", seed=1))


def test_a_strangers_adapter_for_another_name_is_imported_with_a_warning(backbone, tmp_path, caplog):
    train_in_peft(backbone, tmp_path / "adapter")
    with caplog.at_level(logging.WARNING, logger="mptune"):
        edit_config(tmp_path / "adapter", base_model_name_or_path="someone/tiny-t5")
        import_peft(tmp_path / "adapter", backbone=backbone)
        assert not caplog.messages
        edit_config(tmp_path / "adapter", base_model_name_or_path="google/flan-t5-base")
        import_peft(tmp_path / "adapter", backbone=backbone)
    assert "was made for google/flan-t5-base; it is imported for tiny-t5" in caplog.text


def test_more_or_fewer_tasks_than_the_adapter_has_are_refused(backbone, tmp_path):
    folder = export(make_prompt(backbone), tmp_path / "out", backbone)
    with pytest.raises(UsageError, match=r"holds 3 tasks; got 2: mood, speed\. Name one for each"):
        import_peft(folder, backbone=backbone, tasks=TASKS[:2])
