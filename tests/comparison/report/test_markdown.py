"""The page of results is a pure function of the lines, and every number on it can be worked out from them."""

import subprocess
import sys

from mptune.answers.metrics import Score
from mptune.comparison.report.markdown import results_page, standing_table
from mptune.comparison.report.reading import Results
from mptune.comparison.results import Line


def line(method, task, seed, value, shots=4, metrics=("accuracy",)):
    scores = tuple(Score(task, "test", metric, value / n, 10) for n, metric in enumerate(metrics, start=1))
    return Line(method=method, task=task, shots=shots, seed=seed, scores=scores)


def page_of(lines, methods, notes=()):
    """results.md of a recipe with these methods."""
    return results_page(Results("toy", tuple(lines), {"methods": list(methods)}), notes)


def standing(lines):
    return standing_table(Results("toy", tuple(lines)))


LINES = [
    *[line("prompt-tuning", "a", s, v) for s, v in enumerate((50.0, 60.0, 55.0))],
    *[line("prompt-tuning", "b", s, v) for s, v in enumerate((40.0, 45.0, 50.0))],
    *[line("mpt", "a", s, v) for s, v in enumerate((60.0, 69.0, 66.0))],
    *[line("mpt", "b", s, v) for s, v in enumerate((50.0, 57.0, 59.0))],
    line("zero-shot", "a", 0, 51.0, shots=0),
    line("zero-shot", "b", 0, 49.0, shots=0),
]
METHODS = ("zero-shot", "prompt-tuning", "mpt")


def test_cells_are_means_with_intervals_over_seeds():
    page = page_of(LINES, METHODS, ["Backbone: embedded, weights in float32."])
    assert page.splitlines()[6:12] == [
        "| method | a | b | **mean** |",
        "|---|---|---|---|",
        "| *metric* | accuracy | accuracy |  |",
        "| *test rows* | 10 | 10 |  |",
        "| zero-shot | 51.0 | 49.0 | **50.0** |",
        "| prompt-tuning | 55.0 ± 12.4 | 45.0 ± 12.4 | **50.0 ± 10.8** |",
    ]
    assert "a FLAN-T5-small derivative" in page


def test_a_difference_is_that_of_means_over_tasks_seed_by_seed():
    page = page_of(LINES, METHODS)
    # Seeds 0 to 2: 10, 10.5 and 10 points; a half-width of 4.303 * 0.2887 / sqrt(3).
    assert "- mpt minus prompt-tuning: +10.2 [+9.4, +10.9], 3 seeds\n" in page
    assert "zero-shot minus" not in page


def test_what_the_backbone_has_seen_is_marked_and_left_out_of_a_second_mean():
    page = results_page(Results("toy", tuple(LINES), {"methods": list(METHODS), "seen": ["a"]}), ())
    assert page.splitlines()[5:13] == [
        "| method | a | b | **mean** | of the unseen |",
        "|---|---|---|---|---|",
        "| *metric* | accuracy | accuracy |  |  |",
        "| *test rows* | 10 | 10 |  |  |",
        "| *seen by the backbone* | yes | no |  |  |",
        "| zero-shot | 51.0 | 49.0 | **50.0** | 49.0 |",
        "| prompt-tuning | 55.0 ± 12.4 | 45.0 ± 12.4 | **50.0 ± 10.8** | 45.0 ± 12.4 |",
        "| mpt | 65.0 ± 11.4 | 55.3 ± 11.7 | **60.2 ± 11.1** | 55.3 ± 11.7 |",
    ]
    assert "mpt minus prompt-tuning: +10.2 [+9.4, +10.9], 3 seeds; of the 1 unseen +10.3" in page


def test_where_all_is_seen_there_is_no_second_mean():
    page = results_page(Results("toy", tuple(LINES), {"methods": list(METHODS), "seen": ["a", "b"]}), ())
    assert "| *seen by the backbone* | yes | yes |  |" in page
    assert "unseen" not in page
    assert "backbone" not in page_of(LINES, METHODS)


def test_a_difference_on_some_of_the_tasks_says_so_and_one_seed_has_no_interval():
    page = page_of([*LINES, line("dept", "a", 1, 61.0)], (*METHODS, "dept"))
    assert "- dept minus prompt-tuning: +1.0, one seed, 1 of 2 tasks\n" in page
    page = page_of([*LINES, line("mpt", "c", 0, 99.0)], METHODS)
    assert "- mpt minus prompt-tuning: +10.2 [+9.4, +10.9], 3 seeds, 2 of 3 tasks\n" in page


def test_a_difference_on_three_tasks_or_more_has_an_interval_over_tasks():
    lines = [*LINES, *(line(m, "c", s, v + s) for m, v in (("mpt", 36.0), ("prompt-tuning", 30.0)) for s in range(3))]
    # 8.67, 9 and 8.67 seed by seed; 10, 10.33 and 6 task by task.
    assert "- mpt minus prompt-tuning: +8.8 [+8.3, +9.3], 3 seeds; over tasks [+2.8, +14.8]\n" in page_of(
        lines, METHODS
    )


def test_the_order_of_lines_does_not_matter_to_a_cell_and_a_missing_method_is_a_dash():
    page = page_of(LINES, (*METHODS, "transfer"))
    assert "| mpt | 65.0 ± 11.4 | 55.3 ± 11.7 | **60.2 ± 11.1** |" in page
    assert "| transfer | – | – | – |" in page
    again = page_of(sorted(LINES, key=lambda one: (one.task, -one.seed)), (*METHODS, "transfer"))
    assert page == again


def test_each_number_of_shots_has_its_own_table():
    more = [line("mpt", "a", 0, 80.0, shots=16), line("prompt-tuning", "a", 0, 79.0, shots=16)]
    page = page_of([*LINES, *more], METHODS)
    assert page.index("## 4 shots per class") < page.index("## 16 shots per class")
    many = page[page.index("## 16 shots") :]
    assert "| prompt-tuning | 79.0 | – | – |" in many
    assert "| mpt | 80.0 | – | – |" in many
    assert "| zero-shot | 51.0 | 49.0 | **50.0** |" in many  # takes no examples, and stands beside both


def test_a_method_without_examples_is_paired_with_every_seed():
    lines = [*LINES, line("transfer", "a", 0, 58.0, shots=0), line("transfer", "b", 0, 47.0, shots=0)]
    page = page_of(lines, ("prompt-tuning", "transfer"))
    assert "- transfer minus prompt-tuning: +2.5 [-8.3, +13.3], 3 seeds" in page  # 7.5, 0 and 0


def test_the_unadapted_prompts_of_several_source_trainings_are_taken_in_turn():
    lines = [*LINES, *(line("transfer", t, s, 50.0 + 9 * s, shots=0) for t in "ab" for s in (0, 1))]
    page = page_of(lines, (*METHODS, "transfer"))
    # 50 - 45, 59 - 52.5 and 50 - 52.5.
    assert "- transfer minus prompt-tuning: +3.0 [-9.0, +15.0], 3 seeds" in page


def test_a_reference_without_results_is_none():
    lines = [one for one in LINES if one.method != "prompt-tuning"]
    assert "- lora minus mpt: " in page_of([*lines, line("lora", "a", 0, 1.0)], (*METHODS, "lora"))


def test_a_method_that_is_not_finished_is_compared_on_the_seeds_that_are():
    lines = [one for one in LINES if one.method != "mpt" or one.seed == 0]
    assert "- mpt minus prompt-tuning: +10.0, one seed\n" in page_of(lines, METHODS)


def test_without_prompt_tuning_the_others_are_compared_with_mpt():
    renamed = [one.model_copy(update={"method": one.method.replace("prompt-tuning", "neither")}) for one in LINES]
    page = page_of(renamed, ("zero-shot", "mpt", "neither"))
    assert "- neither minus mpt: -10.2 [-10.9, -9.4], 3 seeds" in page
    assert page.count(" minus ") == 1


def test_the_results_so_far_keep_numbers_of_shots_apart():
    more = [
        line("mpt", "a", 0, 80.0, shots=16),
        line("mpt", "a", 1, 90.0, shots=None),
        line("from:a", "a", 0, 1, shots=0),
    ]
    assert standing(LINES[6:] + more) == [
        ["method", "runs", "a", "b"],
        ["mpt, 4 shots", "6", "65.0", "55.3"],
        ["zero-shot", "2", "51.0", "49.0"],
        ["mpt, 16 shots", "1", "80.0", ""],
        ["mpt, all shots", "1", "90.0", ""],
    ]
    assert standing(LINES[6:9])[1] == ["mpt", "3", "65.0"]
    assert standing([]) == []


def test_macro_f1_has_a_table_of_its_own_where_every_line_holds_it():
    both = [line(*one.key[:2], one.seed, one.value(), one.shots, ("accuracy", "f1_macro")) for one in LINES]
    page = page_of(both, METHODS)
    accuracy, macro = page.split("The same answers by macro-F1:")
    assert "| mpt | 65.0 ± 11.4 | 55.3 ± 11.7 | **60.2 ± 11.1** |" in accuracy
    assert "| *metric* | f1_macro | f1_macro |  |" in macro
    assert "| mpt | 32.5 ± 5.7 | 27.7 ± 5.9 | **30.1 ± 5.6** |" in macro
    assert "mpt minus prompt-tuning: +10.2" in accuracy
    assert "mpt minus prompt-tuning: +5.1" in macro
    assert "macro-F1" not in page_of([*both, LINES[0]], METHODS)


def test_macro_f1_is_not_shown_twice():
    lines = [line(*one.key[:2], one.seed, one.value(), one.shots, ("f1_macro",)) for one in LINES]
    assert "The same answers" not in page_of(lines, METHODS)


def test_markdown_needs_no_more_than_the_lines():
    """Of the libraries that draw the page none, and no model: a comparison writes its table where neither is there."""
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['jinja2', 'matplotlib']))\n"
        "import mptune.comparison.report.markdown\n"
        "print([m for m in ('torch', 'transformers', 'mptune.stages') if m in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
