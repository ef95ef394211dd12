"""Tasks are values: what a file may say, what is no task, how rows are rendered, by which names tasks are found."""

import json
import textwrap

import pytest
import yaml

from mptune.errors import ConfigError, UnknownNameError
from mptune.files import read_yaml
from mptune.tasks.cells import label_key
from mptune.tasks.dataset import Dataset, HubData
from mptune.tasks.registry import builtin_tasks, get_task, get_tasks, load_task
from mptune.tasks.task import Task


def make(**changes):
    """A valid task of classes, changed."""
    return Task.read({"name": "mood", "template": "{text}", "verbalizer": {"0": "bad", "1": "good"}, **changes}, "here")


def write(folder, text, name="mood.yaml"):
    """A YAML file."""
    file = folder / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def refusal(call, *args):
    """The text of the ConfigError that a call raises."""
    with pytest.raises(ConfigError) as error:
        call(*args)
    return str(error.value)


# -- YAML -------------------------------------------------------------------------------------------------------------


def test_a_task_file_says_data_template_label_words_and_metrics(tmp_path):
    task = load_task(
        write(
            tmp_path,
            """
            name: reviews
            description: Is the review good?
            dataset: {train: reviews.train.jsonl, validation: reviews.dev.csv, test: reviews.test.parquet}
            template: "review: {title} {text}"
            label: stars
            verbalizer:
              1: bad
              5: good
            metrics: [f1_macro, accuracy]
            """,
        )
    )
    assert task == Task(
        name="reviews",
        description="Is the review good?",
        dataset=Dataset(
            train=str(tmp_path / "reviews.train.jsonl"),
            validation=str(tmp_path / "reviews.dev.csv"),
            test=str(tmp_path / "reviews.test.parquet"),
        ),
        template="review: {title} {text}",
        label="stars",
        verbalizer={"1": "bad", "5": "good"},
        metrics=("f1_macro", "accuracy"),
    )


def test_a_task_file_of_free_text_has_a_target_in_place_of_a_verbalizer(tmp_path):
    task = load_task(
        write(
            tmp_path,
            """
            name: titles
            dataset: {train: titles.jsonl}
            template: "title of: {text}"
            target: "{title}"
            metrics: exact_match
            """,
        )
    )
    assert (task.target, task.verbalizer, task.metrics) == ("{title}", {}, ("exact_match",))
    example = task.render({"text": "the long and short of it", "title": "of it"}, 7)
    assert (example.input, example.target) == ("title of: the long and short of it", "of it")
    assert (example.label, example.references, example.row) == (None, ("of it",), 7)


def test_data_files_stand_relative_to_the_task_file_wherever_the_program_runs(tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "elsewhere").mkdir()
    file = write(
        tmp_path / "tasks",
        f"""
        name: mood
        dataset: {{train: rows/a.csv, validation: ../b.csv, test: {tmp_path / "c.csv"}}}
        template: "{{text}}"
        verbalizer: {{0: no, 1: yes}}
        """,
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in (file, "../tasks/mood.yaml"):
        dataset = load_task(path).dataset
        assert dataset.train == str(tmp_path / "tasks" / "rows" / "a.csv")
        assert dataset.validation == str(tmp_path / "b.csv")
        assert dataset.test == str(tmp_path / "c.csv")


def test_names_of_hub_splits_are_no_paths(tmp_path):
    file = write(
        tmp_path,
        """
        name: mood
        dataset:
          hub: {path: someone/moods, name: plain, revision: v2}
          train: train
          test: validation
        template: "{text}"
        verbalizer: {0: no, 1: yes}
        """,
    )
    hub = HubData(path="someone/moods", name="plain", revision="v2")
    assert load_task(file).dataset == Dataset(hub=hub, train="train", test="validation")


def test_a_hub_data_set_alone_has_splits_of_the_usual_names(tmp_path):
    file = write(
        tmp_path,
        """
        name: mood
        dataset: {hub: {path: someone/moods}}
        template: "{text}"
        verbalizer: {0: no, 1: yes}
        """,
    )
    dataset = load_task(file).dataset
    assert (dataset.train, dataset.validation, dataset.test) == ("train", "validation", "test")


SPELLINGS = [
    "yes",
    "no",
    "Yes",
    "NO",
    "true",
    "false",
    "True",
    "on",
    "off",
    "y",
    "n",
    "null",
    "~",
    "1",
    "007",
    "1e3",
    "0x1f",
    "2024-01-02",
    "12:30",
]


@pytest.mark.parametrize("word", SPELLINGS)
def test_a_label_word_is_the_word_that_was_written_whatever_yaml_makes_of_it(tmp_path, word):
    text = f"name: mood\ndataset: {{train: a.csv}}\ntemplate: '{{text}}'\nverbalizer:\n  0: {word}\n  1: other\n"
    assert load_task(write(tmp_path, text)).label_words == (word, "other")


@pytest.mark.parametrize("value", SPELLINGS)
def test_a_label_value_is_the_text_that_was_written_whatever_yaml_makes_of_it(tmp_path, value):
    text = f"name: mood\ndataset: {{train: a.csv}}\ntemplate: '{{text}}'\nverbalizer:\n  {value}: one\n  other: two\n"
    task = load_task(write(tmp_path, text))
    assert task.render({"text": "x", "label": value}).target == "one"


@pytest.mark.parametrize(
    ("written", "values"),
    [
        ("1", [1, 1.0, "1", "1.0", "1.00"]),
        ("1.0", [1, 1.0, "1", "1.0"]),
        ("-1", [-1, -1.0, "-1"]),
        ("0", [0, 0.0, "0", "0.0"]),
        ("10", [10, 10.0, "10"]),
        ("true", [True, "true", "True", "TRUE"]),
        ("False", [False, "false", "False"]),
        ("yes", ["yes"]),
        ("0.5", [0.5, "0.5"]),
        ("1.05", [1.05, "1.05"]),
    ],
)
def test_a_label_value_means_the_same_as_text_as_number_and_as_truth(written, values):
    task = make(verbalizer={written: "here", "other": "elsewhere"})
    assert {task.render({"text": "x", "label": v}).target for v in values} == {"here"}
    assert len({label_key(v) for v in (written, *values)}) == 1


def test_different_label_values_stay_different():
    values = [0, 1, 10, 100, True, False, "yes", "Yes", "no", "", 0.5, 1.5, "1.0.0", "01", "v1.0"]
    assert len({label_key(v) for v in values}) == len(values)


def test_bare_values_from_python_may_stand_in_a_verbalizer_and_in_where():
    assert make(verbalizer={False: "bad", True: "good"}).verbalizer == {"false": "bad", "true": "good"}
    assert make(verbalizer={0: "bad", 1: 5}).verbalizer == {"0": "bad", "1": "5"}
    assert Dataset(train="a.csv", where={"fold": 1, "old": False}).where == {"fold": ("1",), "old": ("false",)}


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("name: a\ntemplate: b\nname: c\n", 3, "name"),
        ("name: a\nverbalizer:\n  0: no\n  1: yes\n  0: maybe\n", 5, "0"),
        ("name: a\ndataset: {train: a, train: b}\n", 2, "train"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, text, line, key):
    file = write(tmp_path, text)
    assert refusal(load_task, file) == f"{file}: is not valid YAML in line {line}: {key!r} stands twice"


def test_half_a_character_is_refused_with_its_file(tmp_path):
    file = write(tmp_path, 'name: a\ntemplate: "half \\ud83d"\n')
    assert refusal(load_task, file) == f"{file}: has half a character, as \\ud83d alone, which no file could hold"


def test_two_spellings_of_one_label_value_are_refused():
    assert "the label 1 stands twice" in refusal(lambda: make(verbalizer={"1": "a", "1.0": "b"}))
    assert "the label true stands twice" in refusal(lambda: make(verbalizer={"True": "a", "true": "b", "x": "c"}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "wants `field: value` lines; got nothing"),
        ("# only a remark\n", "wants `field: value` lines; got nothing"),
        ("- name: a\n", "wants `field: value` lines; got a list"),
        ("just words", "wants `field: value` lines; got 'just words'"),
        ("name: 'a\n", "is not valid YAML in line 1: a quote opens there and is not closed"),
        ('name: a\ntemplate: "what?\nlabel: b\n', "is not valid YAML in line 2: a quote opens there and is not closed"),
        ('name: a\ntemplate: "\\d"\n', "is not valid YAML in line 2: found unknown escape character 'd'"),
        ("name: a\ndataset:\n\ttrain: b\n", "is not valid YAML in line 3: it begins with a tab; use blanks, not tabs"),
        (
            "name: a\nmetrics: [f1,\n  accuracy\nlabel: b\n",
            "is not valid YAML in line 4: expected ',' or ']', but got ':'; its bracket opens in line 2",
        ),
        ("name: a\n  template: b\n", "is not valid YAML in line 2: mapping values are not allowed here"),
    ],
)
def test_a_file_that_is_no_task_says_what_it_is(tmp_path, text, said):
    file = write(tmp_path, text)
    assert refusal(read_yaml, file) == f"{file}: {said}"


def test_a_task_file_that_is_missing_or_no_text_says_so(tmp_path):
    assert "mood.yaml: cannot be read (No such file or directory)" in refusal(load_task, tmp_path / "mood.yaml")
    (tmp_path / "mood.yaml").write_bytes(b"name: caf\xe9\n")
    assert "mood.yaml: cannot be read" in refusal(load_task, tmp_path / "mood.yaml")
    (tmp_path / "mood.yaml").write_bytes(b"name: a\x00b\n")
    assert "mood.yaml: is not valid YAML" in refusal(load_task, tmp_path / "mood.yaml")


def test_yaml_makes_no_objects(tmp_path):
    file = write(tmp_path, "name: !!python/object/apply:os.getcwd []\n")
    assert read_yaml(file) == {"name": []}


def test_all_unknown_and_missing_fields_of_a_task_file_are_said_at_once(tmp_path):
    file = write(
        tmp_path,
        """
        name: mood
        dataset: {trian: a.csv, test: b.csv, overlaps: drop}
        templte: "{text}"
        verbaliser: {0: no, 1: yes}
        """,
    )
    with pytest.raises(ConfigError) as error:
        load_task(file)
    assert set(error.value.problems) == {
        "dataset.trian is not a field. Did you mean 'train'?",
        "dataset.overlaps is not a field. Did you mean 'overlap'?",
        "templte is not a field. Did you mean 'template'?",
        "verbaliser is not a field. Did you mean 'verbalizer'?",
        "template is missing",
    }
    assert error.value.exit_code == 2


# -- what is no task --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["glue/sst2", "../mood", "a\\b", "", ".hidden", "-o", "a b", "mood\n", "café"])
def test_a_name_that_is_no_plain_file_name_is_refused(name):
    assert "here: name: string should match pattern" in refusal(lambda: make(name=name))


@pytest.mark.parametrize("name", ["mood", "Mood-2", "a.b_c", "7"])
def test_a_plain_name_is_taken(name):
    assert make(name=name).name == name


@pytest.mark.parametrize(
    ("template", "said"),
    [
        pytest.param("{text", "template: is no template (a { stands alone)", id="unclosed"),
        pytest.param("text}", "template: is no template (a } stands alone)", id="unopened"),
        pytest.param("{text.__class__}", "{field[key]} only; got {text.__class__}", id="attribute"),
        pytest.param("{text[a].b}", "{field[key]} only; got {text[a].b}", id="attribute of an item"),
        pytest.param("{text!r}", "{field[key]} only; got {text!r}", id="conversion"),
        pytest.param("{text:>10}", "{field[key]} only; got {text:>10}", id="format"),
        pytest.param("{text:{width}}", "is no template (a { stands alone)", id="nested format"),
        pytest.param("{text!s:>10}", "{field[key]} only; got {text!s:>10}", id="both"),
        pytest.param("{}", "{field[key]} only; got {}", id="no name"),
        pytest.param("{ }", "{field[key]} only; got { }", id="nothing but a space"),
        pytest.param("{text[]}", "{field[key]} only; got {text[]}", id="no key"),
        pytest.param("text", "names no {field} of the rows; got 'text'", id="no field"),
        pytest.param("{{text}}", "names no {field} of the rows; got '{{text}}'", id="only written braces"),
    ],
)
@pytest.mark.parametrize("where", ["template", "target"])
def test_a_template_that_could_not_be_filled_or_would_reach_further_is_refused(template, said, where):
    changes = {where: template} | ({"verbalizer": {}} if where == "target" else {})
    message = refusal(lambda: make(**changes))
    assert message.startswith(f"here: {where}: ")
    assert said.removeprefix("template: ") in message


def test_a_broken_template_says_how_to_write_braces():
    assert "write {{ and }} for braces; got 'set {a, {text}'" in refusal(lambda: make(template="set {a, {text}"))


@pytest.mark.parametrize("references", ["answers.__text__", "answers!r", "answers}"])
def test_references_reach_into_a_row_and_no_further(references):
    message = refusal(lambda: make(verbalizer={}, target="{a}", references=references))
    assert message.startswith("here: references: ")


def test_braces_may_be_written_and_what_rows_hold_is_no_template():
    task = make(template="{{mood}} of {text}")
    assert task.unlabelled({"text": "{label} {0} }"}).input == "{mood} of {label} {0} }"


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"verbalizer": {}}, id="neither"),
        pytest.param({"target": "{mood}"}, id="both"),
        pytest.param({"verbalizer": {}, "target": ""}, id="neither, with an empty target"),
    ],
)
def test_a_task_has_either_label_words_or_a_target(changes):
    assert refusal(lambda: make(**changes)) == (
        "here: a task has either a verbalizer (label value to label word) or a target (template of free text)"
    )


@pytest.mark.parametrize(
    ("verbalizer", "said"),
    [
        ({"0": "no"}, "a verbalizer needs two labels or more"),
        ({"0": "no", "1": "no"}, "two labels have the same word: {'0': 'no', '1': 'no'}"),
        ({"0": "no", "1": " "}, "a label has no word: {'0': 'no', '1': ' '}"),
        (["no", "yes"], "verbalizer: wants {field: value}; got ['no', 'yes']"),
    ],
)
def test_label_words_that_cannot_tell_labels_apart_are_refused(verbalizer, said):
    assert refusal(lambda: make(verbalizer=verbalizer)) == f"here: {said}"


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        (["accuracy", "blue", "rouge"], "got blue, rouge"),
        ("acuracy", "got acuracy"),
        ([], "got none"),
    ],
)
def test_unknown_metrics_are_refused_and_the_known_ones_listed(metrics, said):
    assert refusal(lambda: make(metrics=metrics)) == (
        "here: metrics: wants one or more of accuracy, f1, f1_macro, matthews, exact_match, squad_f1, "
        f"group_exact_match, pearson, spearman, bleu, chrf, ter, nist, meteor, rouge_l, cider; {said}"
    )


@pytest.mark.parametrize("metric", ["f1", "f1_macro", "matthews"])
def test_metrics_of_classes_are_refused_for_free_text(metric):
    message = refusal(lambda: make(verbalizer={}, target="{mood}", metrics=["accuracy", metric]))
    assert message == (
        f"here: {metric} needs a verbalizer; free text has accuracy, exact_match, squad_f1, group_exact_match, "
        "pearson, spearman, bleu, chrf, ter, nist, meteor, rouge_l, cider"
    )


def test_a_metric_of_which_less_is_better_cannot_choose_checkpoints():
    message = refusal(lambda: make(verbalizer={}, target="{mood}", metrics=["ter", "bleu"]))
    assert message == ("here: metrics: the first decides which checkpoint is best by the larger score; ter may follow")
    assert make(verbalizer={}, target="{mood}", metrics=["bleu", "ter"]).metrics == ("bleu", "ter")


def test_judging_groups_needs_to_know_them():
    assert refusal(lambda: make(metrics="group_exact_match")) == (
        "here: group_exact_match needs group: a template of what rows are judged together"
    )
    task = make(metrics="group_exact_match", group="{idx[page]}-{idx[line]}")
    assert task.render({"text": "x", "label": 1, "idx": {"page": 3, "line": 7}}).group == "3-7"


def test_a_task_is_not_called_as_the_folder_of_an_unfinished_run_is():
    assert refusal(lambda: make(name="a.partial")) == (
        "here: name: may not end in .partial, as the folder of an unfinished run does; got a.partial"
    )


def test_an_unknown_preparation_is_refused_and_the_known_ones_listed():
    assert refusal(lambda: make(prepare="mark_span")) == (
        "here: prepare: wants one of mark_spans, strip_markup, pad_punctuation, join_entities, round_similarity, "
        "write_triples, write_facts; got mark_span"
    )


def test_halves_are_of_the_test_rows_and_leave_no_place_for_a_validation_split():
    for dataset in ({"train": "a", "split": "halves"}, {"test": "a", "validation": "b", "split": "halves"}):
        assert "split: halves wants the rows to divide in test, and no validation" in refusal(
            lambda d=dataset: make(dataset=d)
        )


def test_a_data_set_names_a_split_at_least():
    for dataset in ({}, {"hub": {"path": "a/b"}}, {"train": ""}):
        assert "dataset names no split" in refusal(lambda d=dataset: make(dataset=d))


# -- rendering --------------------------------------------------------------------------------------------------------


def test_the_fields_of_a_task_are_what_rendering_reads_each_once():
    assert make(template="{a} {b[c]} {a}", label="stars").fields == ("a", "b", "stars")
    task = make(template="{a}", verbalizer={}, target="{b[0]} {a}", references="c[d]")
    assert task.fields == ("a", "b", "c")


def test_a_row_without_a_field_is_no_example():
    task = make(template="{text} {about[place]}")
    rows = [{}, {"text": "x"}, {"text": "x", "about": {}}, {"text": "x", "about": {"place": None}}, {"text": None}]
    for row in [*rows, {"text": "x", "about": "here"}, {"text": "x", "about": [1]}]:
        with pytest.raises(LookupError):
            task.unlabelled(row)


def test_input_needs_no_label():
    assert make().unlabelled({"text": "fine"}).input == "fine"


def test_a_label_that_the_verbalizer_lacks_is_no_example():
    with pytest.raises(LookupError):
        make().render({"text": "x", "label": 2})


def test_the_right_answers_are_a_list_a_single_one_or_the_target():
    task = make(verbalizer={}, target="{first}", references="right")
    assert task.render({"text": "x", "first": "a", "right": ["a", "b"]}).references == ("a", "b")
    assert task.render({"text": "x", "first": "Oslo", "right": "Oslo"}).references == ("Oslo",)
    assert task.render({"text": "x", "first": "a", "right": []}).references == ("a",)
    assert make(verbalizer={}, target="{first}").render({"text": "x", "first": "a"}).references == ("a",)


def test_a_task_without_paths_keeps_no_path_and_still_renders(tmp_path):
    dataset = Dataset(**{s: str(tmp_path / f"{s}.csv") for s in ("train", "validation", "test")})
    task = make(dataset=dataset.model_dump(exclude_none=True))
    bare = task.without_paths()
    assert str(tmp_path) in task.model_dump_json()
    assert str(tmp_path) not in bare.model_dump_json()
    assert bare.dataset is None
    row = {"text": "x", "label": 1}
    assert bare.render(row) == task.render(row)
    assert Task.read(json.loads(bare.model_dump_json()), "card") == bare


def test_a_task_is_the_same_after_a_trip_through_yaml(tmp_path):
    for task in builtin_tasks().values():
        values = task.model_dump(mode="json", exclude_none=True)
        file = write(tmp_path, yaml.safe_dump(values, sort_keys=False))
        assert load_task(file) == task


# -- names ------------------------------------------------------------------------------------------------------------


def test_a_task_is_found_by_its_name_or_by_its_file(tmp_path):
    assert get_task("sst2") is builtin_tasks()["sst2"]
    file = write(tmp_path, "name: m\ndataset: {train: a}\ntemplate: '{t}'\nverbalizer: {0: no, 1: yes}", "m.yml")
    assert get_task(str(file)).name == "m"


def test_an_unknown_task_suggests_the_nearest():
    with pytest.raises(UnknownNameError) as error:
        get_task("sst-2")
    assert str(error.value) == (
        "no task is called 'sst-2'. Did you mean 'sst2'? `mptune tasks` lists them; a task of yours is a .yaml file."
    )


def test_a_task_file_that_is_missing_is_no_unknown_name():
    assert "nowhere.yaml: cannot be read" in refusal(get_task, "nowhere.yaml")


def test_a_file_of_ones_own_is_thought_of_before_the_tasks_that_come_along(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("tickets.yaml", "sst-2.yml"):
        write(tmp_path, "name: m\ndataset: {train: a}\ntemplate: '{t}'\nverbalizer: {0: no, 1: yes}", name)
    hint = "`mptune tasks` lists them; a task of yours is a .yaml file."
    for name, own in (("tickets", "tickets.yaml"), ("Tikets", "tickets.yaml"), ("sst-2", "sst-2.yml")):
        with pytest.raises(UnknownNameError) as error:
            get_task(name)
        assert str(error.value) == f"no task is called {name!r}. Did you mean {own}? {hint}"
    assert get_task("sst2").name == "sst2"
    assert (
        refusal(get_task, "tiket.yaml")
        == "tiket.yaml: cannot be read (No such file or directory). Did you mean tickets.yaml?"
    )
    (tmp_path / "folder.yaml").mkdir()
    assert "is a folder, and a YAML file is wanted; name one in it" in refusal(get_task, "folder.yaml")


def test_a_column_that_is_missing_is_told_with_the_place_that_names_it():
    task = make(template="{Message} {about[place]}", label="team", subset="kind", group="{page}")
    row = {"id": 1, "Message Text From Customer": "x", "kind": ""}
    assert task.lacking(row, blank=True) == (
        "no Message, which template: of the task names (did you mean Message Text From Customer?), "
        "no about, which template: of the task names, no page, which group: of the task names, "
        "no team, which label: of the task names; it has id, Message Text From Customer, kind. "
        "kind is empty; fill it, or leave the row out"
    )


def test_a_protocol_stands_behind_the_name_of_a_public_task():
    paper = get_task("mnli@paper")
    assert (paper.name, paper.protocol) == ("mnli", "paper")
    assert get_task("mnli@recommended") is get_task("mnli")
    assert get_task("mnli").protocol == "recommended"
    assert [t.protocol for t in get_tasks(["mnli@paper", "rte"])] == ["paper", "recommended"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mnli@papr", "no protocol is called 'papr'. Did you mean 'paper'? Write mnli@recommended or mnli@paper."),
        ("mnli@", "no protocol is called ''. Write mnli@recommended or mnli@paper."),
        (
            "mnly@paper",
            "no task is called 'mnly'. Did you mean 'mnli'? `mptune tasks` lists them; a task of yours is a",
        ),
        ("opinions@paper", "no task of the paper is called 'opinions'. Its own are mnli, qnli, qqp, sst2, stsb, "),
    ],
)
def test_a_wrong_protocol_is_told_with_those_that_exist(name, said):
    with pytest.raises(UnknownNameError) as error:
        get_task(name)
    assert str(error.value).startswith(said)


def test_one_data_set_under_two_protocols_would_have_one_name_twice():
    assert refusal(get_tasks, ["rte", "rte@paper"]) == "tasks: rte stands twice; names must differ"


def test_several_tasks_come_in_the_order_of_their_names_each_once():
    assert [t.name for t in get_tasks(["rte", "cola"])] == ["rte", "cola"]
    message = refusal(get_tasks, ["rte", "cola", "rte"])
    assert message == "tasks: rte stands twice; names must differ"
