"""Which method for which task, what stood still, what simple rivals win, and which classes are mistaken."""

from mptune.comparison.report.advice import advice, simple_rivals_ahead, stood_still
from mptune.comparison.report.choosing import confusion, per_class, recommended
from mptune.comparison.report.markdown import results_page
from mptune.comparison.report.page import claims
from mptune.comparison.report.reading import Results
from mptune.comparison.results import Line


def line(method, seed, value, *, task="a", shots=4, rows=4, **fields):
    scores = [{"metric": "accuracy", "value": value, "examples": rows}]
    return Line.model_validate(
        {"method": method, "task": task, "shots": shots, "seed": seed, "scores": scores, **fields}
    )


def results(*lines, **recipe):
    return Results("r", lines, recipe)


RIVALS = results(
    *(line("mpt", seed, 80 + seed, seconds=12) for seed in range(3)),
    *(line("linear-probe", seed, 81 + seed % 2, seconds=2) for seed in range(3)),
    *(line("lora", seed, 60 + seed, seconds=20) for seed in range(3)),
    line("constant", 0, 50, shots=0),
    methods=["constant", "lora", "linear-probe", "mpt"],
)


def test_the_best_is_advised_with_what_is_not_told_apart_from_it():
    (advised,) = advice(RIVALS, 4)
    assert (advised.best.method, [c.method for c in advised.level]) == ("linear-probe", ["mpt"])
    assert str(advised) == "a: linear-probe 81.3 ± 1.4, 2 s. Not told apart: mpt 81.0 ± 2.5, 12 s"
    assert advised.constant is None


def test_a_best_that_is_not_above_the_commonest_label_is_called_unlearnt():
    poor = results(*(line("mpt", s, 50 + s) for s in range(3)), *(line("lora", s, 30) for s in range(3)),
                   line("constant", 0, 50.5, shots=0))  # fmt: skip
    (advised,) = advice(poor, 4)
    assert str(advised).endswith(". Nothing is surely learnt: the commonest label alone has 50.5")
    assert "constant 50.5: nothing is surely learnt" in recommended(poor).blocks[0].groups[0][1][0][1][0].text


def test_a_best_of_two_seeds_that_is_far_above_the_commonest_label_is_learnt():
    def of_rows(rows):
        ours = [line("mpt", seed, value, rows=rows) for seed, value in enumerate((76.7, 86.7))]
        lora = [line("lora", seed, 30, rows=rows) for seed in range(2)]
        return results(*ours, *lora, line("constant", 0, 33.3, shots=0, rows=rows))

    assert advice(of_rows(60), 4)[0].constant is None
    assert advice(of_rows(6), 4)[0].constant == 33.3


def test_nothing_is_advised_of_a_task_with_one_method():
    assert advice(results(line("mpt", 0, 70), line("constant", 0, 50, shots=0)), 4) == []


def test_the_verdict_begins_with_a_simple_rival_that_is_above():
    assert [(gap.other, round(gap.mean, 1)) for gap in simple_rivals_ahead(RIVALS, 4)] == [("linear-probe", -0.3)]
    headline = claims(RIVALS)[0].headline
    assert headline.startswith("Above MPT at 4 shots per class, at a fraction of its cost: linear-probe by 0.3.")
    below = results(*(line("mpt", s, 90) for s in range(2)), *(line("tf-idf", s, 80) for s in range(2)))
    assert simple_rivals_ahead(below, 4) == []
    assert not claims(below)[0].headline.startswith("Above MPT")


def curve(*validations):
    return [{"step": 5 * n, "validation": v, "validation_loss": 1.0} for n, v in enumerate(validations)]


def test_a_method_whose_best_state_is_its_first_stood_still():
    still = results(
        *(line("lora", s, 50, curve=curve(60, 60, 55)) for s in range(2)),
        *(line("ia3", s, 50, curve=curve(60, 61, 55)) for s in range(2)),
        line("bitfit", 0, 50, curve=curve(60, 55)), line("bitfit", 1, 50, curve=curve(60, 65)),
    )  # fmt: skip
    assert stood_still(still, 4) == {"lora": ["a"]}
    assert "**Kept the start, training did not help:** lora on a." in results_page(still, [])
    assert any("Kept the start" in block.caption for block in recommended(still).blocks)


def test_without_validation_a_method_that_answers_as_untrained_stood_still():
    variants = {"slow": {"of": "lora"}, "bold": {"of": "lora"}, "shy": {"of": "mpt"}}
    still = results(
        line("zero-shot", 0, 50, shots=0, credit=[1, 0, 1, 0]), line("transfer", 0, 25, shots=0, credit=[0, 0, 1, 0]),
        line("slow", 0, 50, credit=[1, 0, 1, 0]), line("bold", 0, 75, credit=[1, 1, 1, 0]),
        line("shy", 0, 25, credit=[0, 0, 1, 0]), line("prompt-tuning", 0, 50, credit=[1, 0, 1, 0]),
        line("tf-idf", 0, 50, credit=[1, 0, 1, 0]), variants=variants,
    )  # fmt: skip
    assert stood_still(still, 4) == {"slow": ["a"], "shy": ["a"]}  # a prompt's start answers otherwise than no prompt


COUNTS = [[[3, 1, 0], [0, 2, 2]], [[4, 0, 0], [2, 2, 0]]]


def test_confusions_add_up_over_seeds_and_give_recall_and_precision():
    tasks = {"a": {"verbalizer": {"0": "no", "1": "yes"}}}
    made = results(*(line("mpt", s, 60, confusion=COUNTS[s]) for s in range(2)), tasks=tasks)
    assert confusion(made, "mpt", "a", 4) == [[7, 1, 0], [2, 4, 2]]
    (grid,) = per_class(made).blocks
    assert [name for name, _ in grid.columns] == ["recall", "precision", "rows", "no", "yes", "no label"]
    cells = {name: [entry.text for entry in row] for name, row in grid.groups[0][1]}
    assert cells == {"no": ["87.5", "77.8", "8", "7", "1", "0"], "yes": ["50.0", "80.0", "8", "2", "4", "2"]}


def test_lines_without_confusions_have_no_scores_per_class():
    assert per_class(RIVALS) is None
