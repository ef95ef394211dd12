"""Rivals that train nothing of the model: word counts, a probe of its features, rows in the context, SetFit."""

import pytest
import torch

from mptune.comparison.baselines.in_context import BETWEEN, InContext, in_turn, moved
from mptune.comparison.baselines.setfit import bare
from mptune.comparison.config import InContextConfig
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS
from mptune.comparison.recipe import recipe_model
from mptune.comparison.systems import Sources
from mptune.comparison.trials import Trial
from mptune.config import EvaluateConfig, ExamplesConfig
from mptune.errors import BackboneError, ConfigError
from mptune.model.encoding import encode
from mptune.model.scoring import text_features
from mptune.tasks.data import TaskRows
from mptune.tasks.task import Task
from support.models import make_backbone, saved, sentence_encoder
from support.toys import make_task, task_yaml, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("beside")
    saved(make_backbone("t5"), path / "model")
    return path


@pytest.fixture(scope="module")
def rows(folder):
    return TaskRows(make_task(folder, "mood"))


def trained(method, rows, folder, *, shots=None, **section):
    """What a method makes of a toy task, and the sources it asked."""
    name = METHODS[method].section.name
    values = {"name": "toy", "out": "unused", "sources": ["mood", "speed"], "targets": ["mood"], "methods": [method],
              "backbone": {"name": str(folder / "model"), "device": "cpu"}, name: section}  # fmt: skip
    loaded = Loaded(recipe_model().read(values, "test"), (rows,), (rows,))
    trial = Trial(loaded.contenders[method], (rows,), shots, seed=0)
    (system,) = METHODS[method].function(trial, Sources(loaded, folder / "out", print))
    return system


def accuracy(system, rows):
    examples, answers = system.answer(rows, "test", EvaluateConfig())
    return sum(e.target == a for e, a in zip(examples, answers, strict=True)) / len(examples)


def test_word_counts_find_the_word_that_decides(rows, folder):
    system = trained("tf-idf", rows, folder, strength=100)
    assert accuracy(system, rows) == 1
    assert system.trained == system.stored == system.prompt.pipeline[-1].n_features_in_ + 1


def test_what_chooses_nothing_on_validation_rows_trains_on_them_too(rows, folder):
    few = trained("tf-idf", rows, folder, shots=3)
    many = trained("tf-idf", rows, folder, shots=3, validation_shots=3)
    vocabulary = [system.prompt.pipeline[0].vocabulary_ for system in (few, many)]
    assert vocabulary[0].keys() < vocabulary[1].keys()
    assert few.cards[0].seeds["shot_rows"] == many.cards[0].seeds["shot_rows"]


def test_the_probe_reads_features_of_the_frozen_model(rows, folder):
    system = trained("linear-probe", rows, folder, strength=1)
    assert system.trained == system.stored == system.backbone.width + 1
    assert accuracy(system, rows) > 0.6
    assert not any(p.requires_grad for p in system.backbone.model.parameters())


def test_features_are_the_mean_of_the_encoders_last_states_or_a_decoders_last_one(any_backbone, rows):
    data = encode(rows.task, rows.data("test").test[:5], any_backbone, ExamplesConfig(), 0)
    features = text_features(any_backbone, data, batch_size=2)
    model = any_backbone.model
    for row, ids in enumerate(data.inputs):
        of_text = torch.tensor([list(ids)], device=any_backbone.device)
        with torch.no_grad():
            if any_backbone.is_encoder_decoder:
                wanted = model.get_encoder()(input_ids=of_text).last_hidden_state[0].mean(0)
            else:
                wanted = model(input_ids=of_text, output_hidden_states=True).hidden_states[-1][0, -1]
        torch.testing.assert_close(features[row], wanted.float().cpu(), atol=1e-4, rtol=1e-4)


def test_rows_in_the_context_show_all_classes_in_turn(rows):
    shown = in_turn(rows.data("train").train[:9], torch.Generator().manual_seed(0))
    assert len(shown) == 9
    assert {e.label for e in shown[:2]} == {e.label for e in shown[2:4]} == {"0", "1"}
    assert shown != in_turn(rows.data("train").train[:9], torch.Generator().manual_seed(1))


def test_as_many_rows_stand_before_a_text_as_fit_and_the_text_stays_whole(rows, backbone):
    examples, text = rows.data("train").train[:6], rows.data("test").test[0].input
    for most, fit in ((10_000, 6), (1, 0)):
        reads = InContext(examples, rows.task, backbone, InContextConfig(max_input_tokens=most))
        assert reads.behind(text, 0 if fit else most).count(BETWEEN) == fit
        assert reads.behind(text, 0 if fit else most).endswith(text)
    reads = InContext(examples, rows.task, backbone, InContextConfig(max_input_tokens=10_000))
    half = InContext(examples, rows.task, backbone, InContextConfig(max_input_tokens=sum(reads.lengths[:3]) + 7))
    assert half.behind(text, 7) == BETWEEN.join([*(f"{e.input} {e.target}" for e in examples[:3]), text])
    assert half.behind(text, 8).count(BETWEEN) == 2


def test_a_text_behind_rows_keeps_its_fields_in_their_places(rows):
    example = rows.data("test").test[0]
    behind = moved(example, f"some rows{BETWEEN}{example.input}")
    (span,), (before,) = behind.spans, example.spans
    assert behind.input[span.start : span.end] == example.input[before.start : before.end] != ""


def test_the_context_is_read_and_nothing_learns(rows, folder):
    system = trained("in-context", rows, folder, shots=2, max_input_tokens=200)
    assert (system.trained, system.stored) == (0, 0)
    assert set(system.answer(rows, "test", EvaluateConfig(rows=4))[1]) <= {"no", "yes"}
    other = trained("in-context", rows, folder, shots=2, max_input_tokens=8)
    assert system.prompt.behind("text", 8) != other.prompt.behind("text", 8) == "text"


def test_a_sentence_encoder_reads_a_row_without_the_templates_own_words():
    template = "Note: {note} From this, is {claim} true? {{yes}}"
    task = Task(name="t", template=template, verbalizer={"0": "no", "1": "yes"})
    text = task.unlabelled({"note": "It rains. Note: bring a coat", "claim": "it pours"}).input
    assert bare(task, text) == "It rains. Note: bring a coat it pours"


@pytest.mark.slow
def test_setfit_tunes_its_encoder_and_names_labels(rows, folder):
    encoder = str(sentence_encoder(folder / "encoder"))
    system = trained("setfit", rows, folder, shots=8, encoder=encoder, iterations=2, lr=1e-2)
    still = trained("setfit", rows, folder, shots=8, encoder=encoder, iterations=1, lr=1e-9)
    assert set(system.answer(rows, "test", EvaluateConfig())[1]) <= {"no", "yes"}
    weights = [next(s.prompt.model.model_body.parameters()) for s in (system, still)]
    assert (weights[0] - weights[1]).abs().max() > 1e-3
    assert system.trained == sum(p.numel() for p in system.prompt.model.model_body.parameters())


@pytest.mark.slow
def test_an_encoder_that_is_none_is_named(rows, folder):
    with pytest.raises(BackboneError, match=r"setfit\.encoder wants a sentence encoder's folder or hub name; got /no/"):
        trained("setfit", rows, folder, shots=2, encoder="/no/such/encoder")


def test_what_chooses_among_labels_is_refused_where_text_is_wanted(tmp_path):
    task_yaml(tmp_path, "mood")
    task_yaml(tmp_path, "mood2")
    write_rows(tmp_path / "t.jsonl", [{"a": "x", "b": "y"}])
    (tmp_path / "free.yaml").write_text('name: free\ndataset: {train: t.jsonl}\ntemplate: "{a}"\ntarget: "{b}"\n')
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\nout: out\nsources: [mood.yaml, mood2.yaml]\ntargets: [mood.yaml, free.yaml]\n"
        "methods: [tf-idf, in-context]\n"
    )
    with pytest.raises(ConfigError, match=r"tf-idf chooses among labels, and free wants text; leave one of them away"):
        Loaded.from_file(recipe)


def test_a_budget_is_spread_to_those_who_have_its_fields_and_a_slip_is_named():
    values = {"name": "r", "out": "o", "sources": ["mood", "speed"], "targets": ["mood"], "methods": ["tf-idf", "lora"]}
    recipe = recipe_model().read({**values, "budget": {"steps": 7, "max_input_tokens": 33}}, "test")
    assert (recipe.section("tf_idf").max_input_tokens, recipe.section("lora").steps) == (33, 7)
    with pytest.raises(ConfigError, match=r"lora\.stepz is not a field\. Did you mean 'steps'"):
        recipe_model().read({**values, "budget": {"stepz": 7}}, "test")


def test_a_rate_is_tried_where_there_is_one():
    values = {"name": "r", "out": "o", "sources": ["mood", "speed"], "targets": ["mood"], "methods": ["tf-idf"]}
    assert recipe_model().read({**values, "rates": {"tf-idf": [1, 10]}}, "test").rates_of("tf-idf") == (1, 10)
    with pytest.raises(ConfigError, match=r"rates\.in-context: it does not learn from a target's examples"):
        recipe_model().read({**values, "rates": {"in-context": [64, 128]}}, "test")
