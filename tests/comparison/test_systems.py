"""The systems of a comparison: where each starts, what it shares with others, and what it costs."""

from dataclasses import dataclass, replace

import pytest
import torch

from mptune.answers.evaluation import answer_rows, evaluate
from mptune.answers.metrics import score
from mptune.comparison.loaded import Loaded
from mptune.comparison.methods import METHODS, target_sections
from mptune.comparison.multitask import trained_numbers
from mptune.comparison.recipe import Recipe, recipe_model
from mptune.comparison.systems import Sources
from mptune.comparison.trials import Trial
from mptune.config import AdaptConfig, EvaluateConfig
from mptune.model.backbone import Backbone
from mptune.prompts.prompt import MultitaskPrompt, stack
from mptune.stages.run import read_metrics
from mptune.stages.teachers import teach
from mptune.tasks.data import TaskRows
from support.toys import make_task
from support.trained import trained_backbone

WORDS = {"mood": ("good", "awful"), "speed": ("fast", "slow"), "colour": ("blue", "red"), "sound": ("cat", "dog")}
SETTINGS = {
    "name": "toy",
    "out": "unused",
    "sources": ["mood", "speed", "colour"],
    "targets": ["sound", "speed"],
    "teach": {"steps": 2, "prompt_length": 4},
    "distill": {"steps": 2, "noise": 0.5},
    "budget": {"steps": 2, "validate_every": 2, "validation_shots": 0},
    "prompt_tuning": {"prompt_length": 4},
    "dept": {"prompt_length": 4, "rank": 4},
    "attempt": {"projection": 8},
    "lora": {"rank": 2},
}


@dataclass
class Bench:
    """A folder with a model, tasks and, after the first run that needs them, teachers and multitask prompts."""

    loaded: Loaded
    sources: Sources
    said: list[str]

    def recipe(self, **sections) -> Recipe:
        """The recipe with other settings, as a variant of a method has them."""
        values = self.loaded.recipe.model_dump(exclude={"budget"})
        for section, fields in sections.items():
            values[section] = {**values[section], **fields} if isinstance(fields, dict) else fields
        return recipe_model().read(values, "test")

    def trial(self, method, *tasks: str, shots=None, seed=0, source=None, lr=None, out=None, **sections) -> Trial:
        """A run of a method on some targets, with settings as a variant has them."""
        targets = tuple(self.task(name) for name in tasks or ("sound",))
        loaded = replace(self.loaded, recipe=self.recipe(**sections, methods=(method,)), targets=targets)
        return Trial(loaded.contenders[method], targets, shots, seed, source, lr, out)

    def train(self, method, *tasks, **given):
        """The systems that a method makes of some targets."""
        return METHODS[method].function(self.trial(method, *tasks, **given), self.sources)

    def task(self, name) -> TaskRows:
        return next(task for task in (*self.loaded.targets, *self.loaded.sources) if task.name == name)

    @property
    def teachers(self) -> list[MultitaskPrompt]:
        return self.sources.teachers(self.loaded.recipe)

    @property
    def multitask(self) -> MultitaskPrompt:
        return self.sources.multitask(self.loaded.recipe)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    folder, backbone = tmp_path_factory.mktemp("systems"), trained_backbone()
    backbone.model.save_pretrained(folder / "model")
    backbone.tokenizer.save_pretrained(folder / "model")
    tasks = {name: make_task(folder, name, *words) for name, words in WORDS.items()}
    recipe = recipe_model().read({**SETTINGS, "backbone": {"name": str(folder / "model"), "device": "cpu"}}, "test")
    of = [tuple(tasks[name] for name in names) for names in (recipe.sources, recipe.targets)]
    loaded, said = Loaded.of(recipe, *of), []
    return Bench(loaded, Sources(loaded, folder / "out", said.append), said)


STILL = {"prompt_tuning": {"steps": 0}}


# -- what needs no examples -------------------------------------------------------------------------------------------


def test_zero_shot_is_the_bare_backbone(bench):
    (system,) = bench.train("zero-shot")
    backbone = bench.sources.backbone(bench.loaded.recipe)
    rows = bench.task("sound")
    examples, answers = answer_rows(system.prompt, system.length, rows, system.backbone, "test", EvaluateConfig())
    assert score(rows.task, "test", examples, answers.texts) == evaluate(None, rows, backbone, split="test")
    assert (system.length, system.trained, system.stored) == (0, 0, 0)
    assert system.backbone is backbone


@pytest.mark.parametrize("number", [1, 2])
def test_the_teacher_is_the_prompt_that_was_taught_that_task(bench, number):
    name = bench.loaded.sources[number].name
    (system,) = bench.train("teacher", name)
    assert torch.equal(system.prompt, bench.teachers[number].collapse()[0])
    assert bench.teachers[number].tasks[0].name == name
    assert system.trained == system.stored == 4 * 16


def test_transfer_is_the_shared_prompt_with_the_mean_of_vectors(bench):
    (system,) = bench.train("transfer")
    made = bench.multitask
    u, v = (torch.stack(list(vectors)).detach().mean(0) for vectors in (made.u, made.v))
    torch.testing.assert_close(system.prompt, made.shared.detach() * (u @ v))
    mean_of_products = made.collapse().mean(0)
    assert not torch.allclose(system.prompt, mean_of_products, atol=1e-3)
    assert (system.length, system.trained, system.stored) == (4, 0, 0)


@pytest.mark.parametrize("number", [0, 2])
def test_from_a_source_uses_that_sources_vectors(bench, number):
    name = bench.loaded.sources[number].name
    (system,) = bench.train("from-sources", source=name)
    made = bench.multitask
    torch.testing.assert_close(system.prompt, (made.shared * (made.u[number] @ made.v[number])).detach())
    assert (system.trained, system.stored) == (0, 0)


# -- prompts ----------------------------------------------------------------------------------------------------------


def test_prompt_tuning_is_teaching_the_target(bench, tmp_path):
    (system,) = bench.train("prompt-tuning", out=tmp_path / "run", shots=3, seed=1)
    config = bench.recipe().prompt_tuning.model_copy(update={"shots": 3, "seed": 1})
    made = teach(bench.task("sound"), system.backbone, config)
    assert torch.equal(system.prompt, made.collapse()[0])
    assert system.metrics == read_metrics(tmp_path / "run") != []
    assert system.trained == system.stored == 4 * 16


@pytest.mark.parametrize(("named", "number"), [(None, 0), ("speed", 1), ("colour", 2)])
def test_spot_starts_at_the_named_teacher_or_the_first(bench, named, number):
    (system,) = bench.train("spot", spot_source=named, **STILL)
    assert torch.equal(system.prompt, bench.teachers[number].collapse()[0])


def test_spot_learns_its_prompt_by_the_budget_of_prompt_tuning(bench, tmp_path):
    (system,) = bench.train("spot", out=tmp_path / "run", lr=0.7, prompt_tuning={"steps": 3, "warmup": 0.5})
    card = MultitaskPrompt.from_pretrained(tmp_path / "run").card.config
    assert (card["steps"], card["warmup"], card["shared_lr"], card["train"]) == (3, 0.5, 0.7, "shared")
    assert not torch.equal(system.prompt, bench.teachers[0].collapse()[0])
    assert system.trained == system.stored == 4 * 16


def test_spot_closest_starts_at_the_teacher_whose_mean_token_is_most_like_the_targets(bench, tmp_path):
    found, flat = [], []
    for seed in range(8):
        (system,) = bench.train("spot-closest", seed=seed, out=tmp_path / f"run{seed}", **STILL)
        own = MultitaskPrompt.from_pretrained(tmp_path / f"run{seed}-own").collapse()[0]
        prompts = [teacher.collapse()[0] for teacher in bench.teachers]
        likeness = [float(torch.cosine_similarity(own.mean(0), p.mean(0), dim=0)) for p in prompts]
        best = likeness.index(max(likeness))
        assert torch.equal(system.prompt, prompts[best])
        assert system.chosen == {"source": bench.loaded.sources[best].name}
        found.append(best)
        flat.append(max(range(3), key=lambda k: float(torch.cosine_similarity(own.flatten(), prompts[k].flatten(), 0))))
    assert len(set(found)) > 1, "with one teacher closest to all, nothing would be shown"
    assert found != flat, "nor where every way to compare agrees"


def test_spot_closest_compares_by_a_prompt_that_has_learnt_the_target(bench, tmp_path):
    (closest,) = bench.train("spot-closest", out=tmp_path / "run")
    (tuned,) = bench.train("prompt-tuning")
    assert torch.equal(MultitaskPrompt.from_pretrained(tmp_path / "run-own").collapse()[0], tuned.prompt)
    assert bench.train("spot-closest")[0].chosen == closest.chosen, "a folder changes nothing"


# -- multitask prompts ------------------------------------------------------------------------------------------------


def test_mpt_starts_at_the_transferred_prompt(bench):
    (still,) = bench.train("mpt", adapt={"steps": 0})
    (transferred,) = bench.train("transfer")
    torch.testing.assert_close(still.prompt, transferred.prompt)
    assert still.trained == still.stored == 4 * 16 + 4 + 16


def test_a_group_shares_its_prompt_and_takes_as_many_examples_of_each_task_as_a_run_alone(bench, tmp_path):
    systems = bench.train("mpt-group", "sound", "speed", out=tmp_path / "run")
    made = MultitaskPrompt.from_pretrained(tmp_path / "run")
    assert [task.name for task in made.tasks] == ["sound", "speed"]
    for number, system in enumerate(systems):
        torch.testing.assert_close(system.prompt, (made.shared * (made.u[number] @ made.v[number])).detach())
    assert not torch.equal(systems[0].prompt, systems[1].prompt)
    assert [system.trained for system in systems] == [4 * 16 + 2 * (4 + 16)] * 2
    assert [system.stored for system in systems] == [4 * 16 / 2 + 4 + 16] * 2
    assert systems[0].metrics[-1]["step"] == 4
    group, alone = (bench.trial("mpt-group", *names).config for names in (("sound", "speed"), ("sound",)))
    assert (group.steps, group.validate_every) == (2 * alone.steps, 2 * alone.validate_every)
    assert group.batch_size == alone.batch_size


def test_numbers_of_an_adaptation_on_t5_base():
    def numbers(tasks, **config):
        class Shapes:
            shared = torch.empty(100, 768, device="meta")
            u = [torch.empty(100, 1, device="meta")] * tasks
            v = [torch.empty(1, 768, device="meta")] * tasks

        return trained_numbers(Shapes, AdaptConfig(**config))

    assert numbers(1) == 100 * 768 + 100 + 768 == 77_668
    assert numbers(8) / 8 == 100 * 768 / 8 + 100 + 768 == 10_468
    assert numbers(1, train="shared") == 76_800, "prompt tuning and SPoT"
    assert numbers(1, train="task-vectors") == 868


# -- baselines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fine-tuning", "bitfit", "adapters", "lora", "ia3", "attempt", "dept"])
def test_a_baseline_answers_with_what_it_trained_and_counts_it(bench, tmp_path, method):
    (system,) = bench.train(method, out=tmp_path / "run")
    assert system.length == (4 if method in ("attempt", "dept") else 0)
    assert system.trained == system.stored == sum(p.numel() for p in system.prompt.parameters()) > 0
    assert [line["step"] for line in system.metrics] == [2]
    rows, config = bench.task("sound"), EvaluateConfig(rows=4)
    _, answers = answer_rows(system.prompt, system.length, rows, system.backbone, "test", config)
    assert set(answers.texts) <= {"yes", "no"}
    assert not list(tmp_path.glob("run*"))


def test_attempt_mixes_the_teachers(bench):
    (system,) = bench.train("attempt")
    buffers = dict(system.prompt.named_buffers())
    assert torch.equal(buffers["reads.sources"], stack(bench.teachers))


def test_multitask_fine_tuning_is_one_model_for_all_targets(bench):
    systems = bench.train("multitask-fine-tuning", "sound", "speed", fine_tuning={"lr": 1e-3})
    first, second = systems
    assert first.prompt is second.prompt
    assert first.backbone is second.backbone
    assert first.trained == sum(p.numel() for p in trained_backbone().model.parameters())
    assert first.stored == second.stored == first.trained / 2
    assert bench.trial("multitask-fine-tuning", "sound", "speed").config.steps == 4


# -- settings ---------------------------------------------------------------------------------------------------------


def test_every_method_that_learns_from_examples_has_a_section():
    for method in METHODS.values():
        assert method.section is not None or not method.takes_examples
    assert target_sections().keys() <= recipe_model().model_fields.keys()


def test_a_run_has_its_shots_its_seed_and_the_rate_that_is_tried(bench):
    config = bench.trial("lora", shots=3, seed=2, lr=0.7).config
    assert (config.shots, config.seed, config.lr) == (3, 2, 0.7)
    config = bench.trial("mpt", lr=0.7).config
    assert (config.shared_lr, config.task_lr) == (0.7, AdaptConfig().task_lr)
    assert bench.trial("lora").config.lr == bench.loaded.recipe.lora.lr


def test_a_target_may_have_settings_of_its_own(bench):
    recipe = {"per_task": {"sound": {"max_input_tokens": 99, "steps": 7}}}
    for name, expected in (("sound", (99, 7)), ("speed", (256, 2))):
        config = bench.trial("prompt-tuning", name, **recipe).config
        assert (config.max_input_tokens, config.steps) == expected


# -- what comes before ------------------------------------------------------------------------------------------------


def fresh(bench):
    """The same folder in a new process's eyes; and what it says."""
    said = []
    return Sources(bench.loaded, bench.sources.folder, said.append), said


def test_what_systems_share_is_made_once_and_then_read_from_its_folder(bench, monkeypatch):
    made, teachers = bench.multitask, bench.teachers
    bench.train("transfer")
    bench.train("attempt")
    assert bench.multitask is made
    assert bench.sources.backbone(bench.recipe()) is bench.sources.backbone(bench.loaded.recipe)
    assert len(bench.said) == len(set(bench.said))
    assert {"teacher: mood", "teacher: speed", "teacher: colour", "source training: multitask"} <= set(bench.said)
    folders = [bench.sources.folder / "teachers" / name for name in ("mood", "speed", "colour")]
    assert all((folder / "prompt.safetensors").is_file() for folder in folders)

    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("it trained"))
    again, _ = fresh(bench)
    assert torch.equal(again.multitask(bench.loaded.recipe).collapse(), made.collapse())
    assert torch.equal(stack(again.teachers(bench.loaded.recipe)), stack(teachers))


def test_other_settings_have_folders_of_their_own(bench):
    plain = bench.multitask
    sources, said = fresh(bench)
    distilled = sources.multitask(bench.recipe(distill={"distill_weight": 0.0}))
    assert not torch.equal(distilled.shared, plain.shared)
    assert [title.partition("-")[0] for title in said if "source" in title] == ["source training: multitask"]
    assert "source training: multitask" not in said
    assert "teacher: mood" in said, "the teachers are those of the recipe"
    assert not list(bench.sources.folder.glob("teachers-*"))
    taught = sources.teachers(bench.recipe(teach={"seed": 5}))
    assert not torch.equal(stack(taught), stack(bench.teachers))
    assert len(list(bench.sources.folder.glob("teachers-*"))) == 1
    assert torch.equal(bench.multitask.shared, plain.shared)
    # A target's own settings change nothing that comes before it.
    assert torch.equal(sources.multitask(bench.recipe(adapt={"steps": 9})).shared, plain.shared)
    assert len([title for title in said if title == "source training: multitask"]) == 1


def test_seeds_take_turns_with_the_source_trainings(bench):
    recipe = bench.recipe(source_seeds=2)
    first, second, third = (bench.sources.multitask(recipe, seed) for seed in range(3))
    assert first is bench.multitask
    assert third is first
    assert not torch.equal(second.shared, first.shared)
    assert second.card.seeds["seed"] == 1
    # An adaptation starts at its seed's: without steps, it is that prompt with the mean of its vectors.
    (system,) = bench.train("mpt", seed=1, source_seeds=2, adapt={"steps": 0})
    u, v = (torch.stack(list(vectors)).detach().mean(0) for vectors in (second.u, second.v))
    torch.testing.assert_close(system.prompt, second.shared.detach() * (u @ v))


def test_no_run_changes_the_shared_backbone(bench):
    backbone = bench.sources.backbone(bench.loaded.recipe)
    assert isinstance(backbone, Backbone)
    own = trained_backbone().model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in backbone.model.state_dict().items())
    assert not any(p.requires_grad for p in backbone.model.parameters())
