"""More of the same is welcome in a folder of results; anything else is refused, and named."""

import json

import pytest

from mptune.comparison.guard import note_recipe, refuse_change
from mptune.comparison.loaded import Loaded
from mptune.comparison.recipe import recipe_model
from mptune.comparison.results import FILES, Line, TrainingRecord
from mptune.errors import ResumeError
from support.toys import make_task

SETTINGS = {"name": "toy", "out": "runs/toy", "sources": ["mood", "speed"], "targets": ["colour", "sound"]}
NAMES = ("mood", "speed", "colour", "sound")


@pytest.fixture
def toy(tmp_path):
    """Return a recipe with its tasks, the targets changed by name."""

    def make(targets=("colour", "sound"), task=None, **settings):
        values = {**SETTINGS, "targets": list(targets), "variants": {}, **settings}
        tasks = {name: make_task(tmp_path, name, **(task or {} if name == "colour" else {})) for name in NAMES}
        recipe = recipe_model().read(values, "toy.yaml")
        return Loaded.of(recipe, (tasks["mood"], tasks["speed"]), [tasks[t] for t in targets], tmp_path)

    return make


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def line(task="colour", method="mpt", seed=0, **more):
    scores = [{"metric": "accuracy", "value": 50.0}]
    return Line(method=method, task=task, shots=16, seed=seed, scores=scores, **more)


@pytest.mark.parametrize("name", [name for name in FILES if name != "recipe.json"])
def test_a_folder_with_files_of_these_names_but_no_recipe_is_somebody_elses(toy, folder, name):
    (folder / name).write_text("mine")
    with pytest.raises(ResumeError) as error:
        refuse_change(folder, toy(), [])
    assert str(error.value) == (
        f"{folder} holds {name} and no recipe.json, so no comparison that can go on; choose another --out"
    )
    assert (folder / name).read_text() == "mine"


@pytest.mark.parametrize("content", ["[1", "[]", "{}", '{"name": "cake", "flour": "500 g"}', "\xff", '{"variants": 5}'])
def test_a_recipe_that_is_none_of_a_comparison_is_refused_and_kept(toy, folder, content):
    if content.startswith('{"variants"'):
        content = json.dumps({"sources": [], "targets": [], "methods": [], **json.loads(content)})
    (folder / "recipe.json").write_text(content, encoding="latin-1")
    with pytest.raises(ResumeError) as error:
        refuse_change(folder, toy(), [])
    assert str(error.value).startswith(f"{folder} holds no comparison that can go on: recipe.json ")
    assert str(error.value).endswith("; choose another --out")
    assert (folder / "recipe.json").read_text(encoding="latin-1") == content


def test_before_there_are_results_anything_may_change(toy, folder):
    note_recipe(folder, toy(adapt={"initialise": "closestt"}), [])
    refuse_change(folder, toy(adapt={"initialise": "closest"}), [])
    with pytest.raises(ResumeError, match=r'adapt\.initialise = "closestt", and now it is "closest"'):
        refuse_change(folder, toy(adapt={"initialise": "closest"}), [line()])


@pytest.mark.parametrize(
    ("method", "changes", "may"),
    [
        ("constant", {"teach": {"steps": 7}}, True),
        ("tf-idf", {"sources": ["speed", "mood"]}, True),
        ("tf-idf", {"adapt": {"steps": 7}, "lora": {"rank": 3}}, True),
        ("tf-idf", {"tf_idf": {"strength": 7.0}}, False),
        ("spot", {"adapt": {"steps": 7}}, True),
        ("spot", {"teach": {"steps": 7}}, False),
        ("from:mood", {"distill": {"steps": 7}}, False),
        ("transfer", {"sources": ["speed", "mood"]}, False),
        ("mpt", {"adapt": {"steps": 7}}, False),
        ("mpt", {"lora": {"rank": 3}}, True),
        ("taught-fine-tuning", {"adapt": {"steps": 7}}, False),
        ("of-tomorrow", {"lora": {"rank": 3}}, False),
        ("mpt", {"evaluate": {"rows": 7}}, False),
        ("mpt", {"data": "elsewhere"}, True),
    ],
)
def test_what_no_result_has_read_may_still_change(toy, folder, method, changes, may):
    note_recipe(folder, toy(), [])
    if may:
        refuse_change(folder, toy(**changes), [line(method=method)])
        return
    with pytest.raises(ResumeError, match=f"holds results with {next(iter(changes))}"):
        refuse_change(folder, toy(**changes), [line(method=method)])


def test_a_field_that_the_version_of_the_results_did_not_have_had_its_default(toy, folder):
    note_recipe(folder, toy(), [])
    noted = json.loads((folder / "recipe.json").read_text())
    del noted["multitask"], noted["tuning_rows"]
    (folder / "recipe.json").write_text(json.dumps(noted))
    refuse_change(folder, toy(), [line()])
    with pytest.raises(ResumeError, match=r"holds results with tuning_rows not set, and now it is 7\. Leave it out"):
        refuse_change(folder, toy(tuning_rows=7), [line()])


def test_a_variants_settings_are_read_as_its_methods_are(toy, folder):
    variants = {"short": {"of": "lora", "lora": {"rank": 2}}}
    note_recipe(folder, toy(variants=variants, methods=["short"]), [])
    with pytest.raises(ResumeError, match=r"holds results with lora\.steps"):
        refuse_change(folder, toy(variants=variants, methods=["short"], lora={"steps": 7}), [line(method="short")])


@pytest.mark.parametrize(("begun", "now"), [(None, "mood"), ("mood", None)])
def test_spots_source_may_be_named_or_be_the_first(toy, folder, begun, now):
    note_recipe(folder, toy(spot_source=begun), [])
    refuse_change(folder, toy(spot_source=now), [line()])
    with pytest.raises(ResumeError, match='spot_source = "mood", and now it is "speed"'):
        refuse_change(folder, toy(spot_source="speed"), [line()])


def test_a_task_may_not_change_once_it_has_results(toy, folder):
    note_recipe(folder, toy(), [])
    changed = toy(task={"metrics": ("f1_macro",), "description": "words for people"})
    refuse_change(folder, changed, [line("sound")])
    with pytest.raises(ResumeError) as error:
        refuse_change(folder, changed, [line("colour")])
    assert str(error.value) == (
        f'{folder} holds results with tasks.colour.metrics = ["accuracy"], and now it is ["f1_macro"]. '
        "Take the old value, choose another --out, or remove the folder."
    )
    with pytest.raises(ResumeError, match=r"tasks\.colour\.scoring"):
        refuse_change(folder, toy(task={"scoring": "generation"}), [line("colour")])
    refuse_change(folder, toy(task={"description": "words for people"}), [line("colour")])


def test_a_task_that_was_left_out_for_a_while_may_not_come_back_changed(toy, folder):
    note_recipe(folder, toy(), [])
    note_recipe(folder, toy(targets=("sound",)), [])
    with pytest.raises(ResumeError, match=r"tasks\.colour\.template"):
        refuse_change(folder, toy(task={"template": "other {text}"}), [line("colour")])


def of_group(method, *tasks):
    training = TrainingRecord(stage="target", config={}, data=dict.fromkeys(tasks, "hash"))
    return [line(task, method, trainings=(training,)) for task in tasks]


def test_a_group_is_what_its_lines_say_whatever_was_noted_since(toy, folder):
    note_recipe(folder, toy(targets=("colour",), methods=["mpt-group"]), [])
    note_recipe(folder, toy(methods=["mpt"]), [])
    lines = [*of_group("mpt-group", "colour"), line("sound", "mpt")]
    refuse_change(folder, toy(methods=["mpt"]), lines)
    refuse_change(folder, toy(targets=("colour",), methods=["mpt-group"]), lines)
    grouped = toy(methods=["mpt", "ours"], variants={"ours": {"of": "mpt-group"}})
    refuse_change(folder, grouped, lines)  # of the variant nothing was run
    refuse_change(folder, grouped, of_group("ours", "colour", "sound")[1:])  # a line was removed
    with pytest.raises(ResumeError, match=r"targets = colour, and now it is colour, sound \(ours learns all"):
        refuse_change(folder, grouped, [*lines, *of_group("ours", "colour")])


def test_a_variant_with_results_may_not_change_though_it_was_left_out_for_a_while(toy, folder):
    def varied(**variants):
        return toy(variants={name: {"of": "mpt", "adapt": {"steps": n}} for name, n in variants.items()})

    note_recipe(folder, varied(short=1), [])
    note_recipe(folder, varied(), [])
    refuse_change(folder, varied(short=3), [line(method="constant")])
    with pytest.raises(ResumeError, match=r"variants\.short\.adapt\.steps = 1, and now it is 3"):
        refuse_change(folder, varied(short=3, other=9), [line(method="short")])
    refuse_change(folder, varied(short=1, other=9), [line(method="short")])


def test_a_folder_of_an_earlier_version_has_no_tasks_to_compare_and_gets_none_for_its_lines(toy, folder):
    note_recipe(folder, toy(), [])
    values = json.loads((folder / "recipe.json").read_text())
    for tasks in (None, {"colour": {"template": "colour text: {text}"}}):
        del values["tasks"]
        values |= {"tasks": tasks} if tasks else {}
        (folder / "recipe.json").write_text(json.dumps(values))
        changed = toy(task={"metrics": ("f1_macro",)})
        refuse_change(folder, changed, [line()])
        note_recipe(folder, changed, [line()])
        values = json.loads((folder / "recipe.json").read_text())
        assert ("colour" in values["tasks"], "sound" in values["tasks"]) == (tasks is not None, True)


def test_the_noted_recipe_says_what_each_target_is_and_nothing_of_its_place(toy, folder, tmp_path):
    note_recipe(folder, toy(), [])
    text = (folder / "recipe.json").read_text()
    assert json.loads(text)["tasks"]["colour"]["template"] == "colour text: {text}"
    assert str(tmp_path) not in text
