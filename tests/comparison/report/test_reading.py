"""Reading a run's folder: what is missing is left out, what is damaged is said with file and line, all at once."""

import json
from pathlib import Path

import pytest

from mptune.comparison.report.page import page
from mptune.comparison.report.reading import read_folder, read_published
from mptune.errors import ResultsError
from support import example_run

RESULTS = Path(__file__).parents[3] / "results"
LEAST = {"method": "mpt", "task": "rte", "shots": 4, "seed": 0, "scores": [{"metric": "accuracy", "value": 61.5}]}


def folder_of(path, *lines, **files):
    """A folder with these lines of results, as objects or as text, and these other JSON files."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (path / "results.jsonl").write_text("".join(text + "\n" for text in texts))
    for name, content in files.items():
        (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_a_line_needs_no_more_than_what_was_run_and_its_score(tmp_path):
    results = read_folder(folder_of(tmp_path, {**LEAST, "of_a_later_version": 1}))
    (line,) = results.lines
    assert (line.method, line.task, line.shots, line.seed, line.value()) == ("mpt", "rte", 4, 0, 61.5)
    assert (line.credit, line.parameters, line.curve, results.recipe, results.similarity) == (None, None, (), {}, None)
    assert results.name == tmp_path.name


def test_what_a_run_does_not_have_may_be_null(tmp_path):
    nothing = dict.fromkeys(("credit", "parameters", "curve", "seconds", "dtype", "commit", "machine"))
    similarity = {"tasks": [{"name": "rte"}], "prompts": [[1.0]], "matrices": [[None]]}
    results = read_folder(folder_of(tmp_path, {**LEAST, **nothing, "versions": {"cuda": None}}, similarity=similarity))
    assert results.lines[0].curve == ()
    assert results.similarity.matrices == ((None,),)
    assert "cuda" not in (text := page(results, ()))
    assert "<td><span>–</span></td>" in text


def test_a_score_is_found_by_its_metric_and_the_first_without_a_name(tmp_path):
    scores = [{"metric": "accuracy", "value": 61.5}, {"metric": "f1_macro", "value": 40.0}]
    (line,) = read_folder(folder_of(tmp_path, {**LEAST, "scores": scores})).lines
    assert (line.value(), line.value("f1_macro"), line.value("matthews")) == (61.5, 40.0, None)


@pytest.mark.parametrize("name", ["quickstart", "small/ablation"])
def test_committed_results_of_earlier_versions_can_be_read(name):
    results = read_folder(RESULTS / name)
    assert len(results.lines) == len((RESULTS / name / "results.jsonl").read_text().splitlines())
    assert {"constant", "zero-shot", "mpt"} <= set(results.methods)


def test_tasks_and_methods_stand_in_the_recipes_order_and_only_with_results(tmp_path):
    lines = [{**LEAST, "method": m, "task": t} for m in ("other", "no-distillation", "mpt") for t in ("trec", "rte")]
    recipe = {"targets": ["rte@paper", "tasks/trec.yaml", "cb"], "methods": ["lora", "mpt"],
              "variants": {"no-distillation": {"of": "mpt"}}}  # fmt: skip
    results = read_folder(folder_of(tmp_path, *lines, recipe=recipe))
    assert results.tasks == ["rte", "trec"]
    assert results.methods == ["mpt", "no-distillation", "other"]


def test_shots_grow_and_all_training_rows_come_last(tmp_path):
    results = read_folder(folder_of(tmp_path, *({**LEAST, "shots": k} for k in (None, 16, 0, 4))))
    assert results.shots == [4, 16, None]
    assert read_folder(folder_of(tmp_path, {**LEAST, "shots": 0})).shots == [0]


def test_a_run_without_target_examples_counts_for_every_number_of_shots(tmp_path):
    results = read_folder(folder_of(tmp_path, *({**LEAST, "shots": k} for k in (0, 4, 16))))
    assert [[line.shots for line in results.of("mpt", "rte", k)] for k in (4, 16)] == [[0, 4], [0, 16]]


def test_a_last_line_that_was_cut_does_not_count(tmp_path):
    whole = json.dumps(LEAST) + "\n"
    (tmp_path / "results.jsonl").write_text(whole + whole[:30])
    assert len(read_folder(tmp_path).lines) == 1
    (tmp_path / "results.jsonl").write_text(whole + whole[:30] + "\n")  # whole, and so not cut but damaged
    with pytest.raises(ResultsError, match="line 2 is not JSON"):
        read_folder(tmp_path)


def test_every_damage_is_said_at_once_with_its_line(tmp_path):
    folder = folder_of(
        tmp_path, LEAST, "{broken", {**LEAST, "seed": 1, "scores": []}, {"task": "rte"}, LEAST, "[1]",
        {**LEAST, "seed": 2, "credit": [1, 0]}, {**LEAST, "seed": 3, "credit": [1, 0, 1]},
        {**LEAST, "seed": 4, "scores": [{"metric": "accuracy", "value": float("nan")}]},
        recipe="[]", similarity={"tasks": [{"name": "rte"}], "prompts": [[1.0, 2.0]]},
    )  # fmt: skip
    with pytest.raises(ResultsError) as error:
        read_folder(folder)
    said = str(error.value)
    assert said.startswith(f"{folder} cannot be reported on; mend or remove what is damaged:\n")
    for problem in (
        "results.jsonl line 2 is not JSON (Expecting property name enclosed in double quotes",
        "results.jsonl line 3: scores: Tuple should have at least 1 item",
        "results.jsonl line 4: method: Field required",
        "results.jsonl line 5 repeats the run of line 1; keep one of them",
        "results.jsonl line 6: Input should be a valid dictionary",
        "results.jsonl line 8 has the credit of 3 test rows of rte, line 7 of 2; runs are compared on the same rows",
        "results.jsonl line 9: scores.0.value: Input should be a finite number",
        "recipe.json wants a JSON object; got '[]'",
        "similarity.json: prompts wants 1 rows of 1 cosines, one for each task",
    ):
        assert problem in said, said
    assert error.value.exit_code == 3


def test_a_folder_without_results_is_named_with_what_to_do(tmp_path):
    with pytest.raises(ResultsError, match=r"there is no folder .*nowhere; name the one that `mptune bench`"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(ResultsError, match=r"holds no results\.jsonl; name the folder that `mptune bench`"):
        read_folder(tmp_path)
    (tmp_path / "results.jsonl").write_text("")
    with pytest.raises(ResultsError, match=r"holds no finished run; the command that began it goes on"):
        read_folder(tmp_path)


def test_a_full_folder_is_read_whole(tmp_path):
    results = read_folder(example_run.write(tmp_path / "run", seeds=2))
    assert results.name == "example"
    assert len(results.methods) == len(example_run.METHODS) + len(example_run.SOURCES)
    assert len(results.similarity.tasks) == len(results.similarity.prompts) == 14
    assert results.of("mpt", "rte", 16)[0].curve[-1].step == 30


def test_every_published_row_has_a_score_for_each_column_and_gives_its_published_mean():
    off = []
    for table in read_published():
        assert {"title", "shots", "model", "source", "confidence", "metrics", "tasks", "rows"} <= set(table)
        for row in table["rows"]:
            scores = [float(text) for text in row["scores"]]
            assert len(scores) == len(table.get("columns", table["tasks"])), (table["title"], row)
            if "mean" in row and abs(sum(scores) / len(scores) - float(row["mean"])) > 0.1:
                off.append((table["title"], table["shots"], row["method"]))
    assert off == [("Few-shot SuperGLUE", "32", "DePT (later)")]  # as its own table's confidence says


def test_every_task_of_the_paper_has_a_published_table():
    tasks = {task for table in read_published() for task in table["tasks"]}
    assert tasks == set(
        "mnli qqp qnli sst2 stsb mrpc rte cola multirc boolq wic wsc cb nq hotpotqa searchqa newsqa winogrande yelp "
        "scitail paws e2e_nlg web_nlg".split()
    )
