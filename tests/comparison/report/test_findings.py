"""What results say, on numbers small enough to work out by hand."""

from dataclasses import replace

import pytest

from mptune.comparison.methods import METHODS
from mptune.comparison.report import findings, means
from mptune.comparison.report.reading import Results
from mptune.comparison.results import Line


def line(method, task, seed, value, *, shots=4, credit=None, metric="accuracy", more=(), examples=10, **fields):
    scores = [{"metric": metric, "value": value, "examples": examples}, *({"metric": m, "value": v} for m, v in more)]
    return Line.model_validate(
        {"method": method, "task": task, "shots": shots, "seed": seed, "scores": scores, "credit": credit, **fields}
    )


def runs(method, shots=4, **tasks):
    """One line per task and seed; one number stands for a run without target examples."""
    found = []
    for task, values in tasks.items():
        if isinstance(values, list):
            found += [line(method, task, seed, value, shots=shots) for seed, value in enumerate(values)]
        else:
            found.append(line(method, task, 0, values, shots=0))
    return found


LINES = [
    *runs("constant", a=50.0, b=40.0),
    *runs("prompt-tuning", a=[50.0, 60.0, 55.0], b=[40.0, 45.0, 50.0]),
    *runs("transfer", a=58.0, b=47.0),
    *runs("mpt", a=[60.0, 69.0, 66.0], b=[50.0, 57.0, 59.0]),
]


def row(table, method):
    return next(r for r in table.rows if r.method == method)


def test_a_cell_is_the_mean_over_seeds_and_the_mean_is_over_tasks_seed_by_seed():
    table = means.score_table(Results("r", tuple(LINES)), 4)
    assert (table.tasks, table.metrics, table.examples) == (("a", "b"), ("accuracy", "accuracy"), (10, 10))
    ours = row(table, "mpt")
    assert [c.score.mean for c in ours.cells] == [65, pytest.approx(166 / 3)]
    assert ours.mean.score.mean == pytest.approx((55 + 63 + 62.5) / 3)
    assert ours.mean.score.count == 3
    assert row(table, "transfer").mean.score == findings.interval([52.5])


def test_an_interval_over_tasks_has_a_value_for_each_task():
    more = [*runs("prompt-tuning", c=[20.0, 30.0, 40.0]), *runs("mpt", c=[26.0, 36.0, 46.0])]
    gap = findings.gap(Results("r", (*LINES, *more)), "mpt", "prompt-tuning", 4)
    # Tasks' means: 10, 31/3 and 6 points; seeds agree far better than tasks do.
    assert gap.over_tasks == findings.interval([10.0, (10 + 12 + 9) / 3, 6.0])
    assert (gap.over_tasks.low < 3, gap.over_seeds.low > 8) == (True, True)
    assert gap.tells_of_tasks
    assert not findings.gap(Results("r", tuple(LINES)), "mpt", "prompt-tuning", 4).tells_of_tasks


def test_the_mean_takes_only_seeds_that_every_task_has():
    lines = [one for one in LINES if (one.method, one.task, one.seed) != ("mpt", "b", 2)]
    table = means.score_table(Results("r", tuple(lines)), 4)
    assert row(table, "mpt").mean.score.mean == pytest.approx((55 + 63) / 2)
    lines = [one for one in LINES if (one.method, one.task) != ("mpt", "b")]
    table = means.score_table(Results("r", tuple(lines)), 4)
    assert row(table, "mpt").cells[1].score is None
    assert row(table, "mpt").mean.score is None


def test_the_best_of_a_column_is_marked_and_neither_constant_nor_teacher_can_be_it():
    lines = [*LINES, *runs("constant", c=90.0), *runs("teacher", a=65.0, b=99.0), *runs("mpt", c=[80.0, 81.0, 82.0])]
    table = means.score_table(Results("r", tuple(lines)), 4)
    assert {(r.method, t) for r in table.rows for t, c in zip(table.tasks, r.cells, strict=True) if c.best} == {
        ("mpt", "a"), ("mpt", "b"), ("mpt", "c"),
    }  # fmt: skip


def test_a_score_is_doubtful_unless_its_whole_interval_is_above_the_constant():
    table = means.score_table(Results("r", tuple(LINES)), 4)
    # mpt on a: 65 ± 11.4 against 50; prompt tuning: 55 ± 12.4. On b, against 40: 55.3 ± 11.7, and 45 ± 12.4.
    assert [c.doubtful for c in row(table, "mpt").cells] == [False, False]
    assert [c.doubtful for c in row(table, "prompt-tuning").cells] == [True, True]
    assert not any(c.doubtful for c in row(table, "constant").cells)
    equal = means.score_table(Results("r", (*runs("constant", a=50.0), *runs("zero-shot", a=50.0))), 0)
    assert row(equal, "zero-shot").cells[0].doubtful


def test_a_score_far_above_the_constant_is_learning_with_two_seeds_too():
    def table(first, second, rows):
        ours = [line("mpt", "a", seed, value, examples=rows) for seed, value in enumerate((first, second))]
        return Results("r", (*ours, line("constant", "a", 0, 33.3, shots=0, examples=rows)))

    def doubtful(*given):
        return row(means.score_table(table(*given), 4), "mpt").cells[0].doubtful

    far = table(79.7, 83.7, 60)  # 81.7 ± 25.4
    assert means.score_table(far, 4).score("mpt", "a").low > 33.3
    wide = table(76.7, 86.7, 60)  # 81.7 ± 63.5
    assert means.score_table(wide, 4).score("mpt", "a").low < 33.3
    assert not doubtful(76.7, 86.7, 60)
    assert not row(means.score_table(wide, 4), "mpt").mean.doubtful
    assert not findings.alarms(wide)
    # Of 6 rows so much may be luck; and of 60, 12 points may. Where rows are not counted, seeds alone tell.
    assert doubtful(76.7, 86.7, 6)
    assert doubtful(40.3, 50.3, 60)
    assert doubtful(76.7, 86.7, 0)
    assert findings.alarms(table(40.3, 50.3, 60))


def test_parameters_are_the_fewest_and_the_most_over_tasks():
    lines = [line("mpt", task, 0, 50.0, parameters={"trained": 20, "stored": n}) for task, n in (("a", 10), ("b", 12))]
    assert (row(means.score_table(Results("r", tuple(lines)), 4), "mpt").trained) == (20, 20)
    assert (row(means.score_table(Results("r", tuple(lines)), 4), "mpt").stored) == (10, 12)


def test_macro_f1_has_a_table_where_a_task_has_it_beside_another_first_metric():
    lines = [line("mpt", "a", 0, 60.0, more=[("f1_macro", 44.0)]), line("mpt", "b", 0, 70.0)]
    table = means.balanced_table(Results("r", tuple(lines)), 4)
    assert (table.tasks, table.metrics) == (("a",), ("f1_macro",))
    assert row(table, "mpt").cells[0].score.mean == 44
    assert means.balanced_table(Results("r", (line("mpt", "a", 0, 60.0, metric="f1_macro"),)), 4) is None
    assert means.balanced_table(Results("r", (line("mpt", "a", 0, 60.0),)), 4) is None


def test_a_difference_pairs_seeds_and_repeats_a_run_without_examples():
    results = Results("r", tuple(LINES))
    found = findings.gap(results, "mpt", "prompt-tuning", 4)
    assert found.mean == pytest.approx((10 + 10.5 + 10) / 3)  # (10, 9, 11) on a, (10, 12, 9) on b
    assert found.over_seeds.count == 3
    assert found.leads
    assert not found.trails
    assert findings.gap(results, "mpt", "transfer", 4).over_seeds == findings.interval([2.5, 10.5, 10.0])


def test_a_trained_method_with_one_finished_seed_is_paired_with_that_seed_alone():
    lines = [one for one in LINES if one.method != "mpt" or one.seed == 1]
    found = findings.gap(Results("r", tuple(lines)), "mpt", "prompt-tuning", 4)
    assert (found.mean, found.over_seeds.count) == (pytest.approx(10.5), 1)
    assert not found.leads  # one seed and no credits: no interval


def test_methods_are_compared_on_the_tasks_that_both_have():
    lines = [*LINES, *runs("mpt", c=[99.0] * 3), *runs("dept", a=[50.0] * 3)]
    assert findings.gap(Results("r", tuple(lines)), "mpt", "prompt-tuning", 4).tasks == ("a", "b")
    assert findings.gap(Results("r", tuple(lines)), "mpt", "dept", 4).tasks == ("a",)
    assert findings.gap(Results("r", tuple(lines)), "mpt", "lora", 4) is None


def test_credits_are_averaged_over_seeds_before_rows_are_drawn():
    lines = [line("mpt", "a", s, 50.0, credit=c) for s, c in enumerate(([1, 0, 1, 0], [0, 1, 0, 1]))]
    lines += [line("spot", "a", s, 25.0, credit=[0.25] * 4) for s in range(2)]
    found = findings.gap(Results("r", tuple(lines)), "mpt", "spot", 4)
    assert (found.over_rows.mean, found.over_rows.low, found.over_rows.high) == (25, 25, 25)
    without = [one.model_copy(update={"credit": None}) if one.method == "spot" else one for one in lines]
    assert findings.gap(Results("r", tuple(without)), "mpt", "spot", 4).over_rows is None
    one_less = [lines[0], lines[1].model_copy(update={"credit": None}), *lines[2:]]
    assert findings.gap(Results("r", tuple(one_less)), "mpt", "spot", 4).over_rows is None


def test_to_lead_every_interval_must_lie_above_zero():
    # Over seeds MPT is 10 points above each time; over rows one of four differs, which may never be drawn.
    lines = [line("mpt", "a", s, 60.0, credit=[1, 1, 0, 0]) for s in range(3)]
    lines += [line("spot", "a", s, 50.0, credit=[1, 0, 0, 0]) for s in range(3)]
    found = findings.gap(Results("r", tuple(lines)), "mpt", "spot", 4)
    assert found.over_seeds.low == 10
    assert found.over_rows.low == 0
    assert not found.leads
    verdict = findings.verdict(Results("r", tuple(lines)), 4)
    assert not verdict.leads_all
    assert findings.verdict(Results("r", tuple(LINES)), 4).gaps[1].other == "transfer"


def test_the_verdict_holds_every_rival_that_was_run_and_names_the_others():
    verdict = findings.verdict(Results("r", tuple(LINES)), 4)
    assert [g.other for g in verdict.gaps] == ["prompt-tuning", "transfer"]
    assert verdict.absent == ("spot", "spot-closest", "attempt", "dept")
    assert verdict.score.mean == pytest.approx((55 + 63 + 62.5) / 3)
    assert not verdict.leads_all  # transfer +2.5, +10.5, +10: the interval reaches below zero
    assert findings.verdict(Results("r", tuple(runs("spot", a=[1.0]))), 4) is None


def test_what_the_verdict_and_alarms_make_of_a_method_is_said_by_its_row(monkeypatch):
    lines = [*LINES, *runs("fresh", a=[90.0] * 3, b=[90.0] * 3)]
    said = {"rival": (True, False, True), "suspect": (False, True, True), "ranked": (False, False, False)}
    for field, (verdict, alarms, best) in said.items():
        monkeypatch.setitem(METHODS, "fresh", replace(METHODS["lora"], **{field: field != "ranked"}))
        results = Results("r", tuple(lines))
        assert ("fresh" in [g.other for g in findings.verdict(results, 4).gaps]) == verdict
        assert ("fresh" in {alarm.gap.other for alarm in findings.alarms(results)}) == alarms
        assert row(means.score_table(results, 4), "fresh").mean.best == best


OF_MPT = {"variants": {"half": {"of": "mpt"}, "more": {"of": "mpt"}, "tuned-5": {"of": "prompt-tuning"}}}


def test_variants_of_mpt_stand_with_it_in_the_order_of_their_means():
    lines = [*LINES, *runs("half", a=[50.0] * 3, b=[50.0] * 3), *runs("more", a=[90.0] * 3, b=[50.0] * 3)]
    results = Results("r", (*lines, *runs("tuned-5", a=[99.0] * 3)), OF_MPT)
    found = findings.variants(results, 4)
    assert [gap.other if gap else "mpt" for _, gap in found] == ["more", "mpt", "half"]
    assert [mean.mean for mean, _ in found] == [pytest.approx(v) for v in (70, (55 + 63 + 62.5) / 3, 50)]
    assert [gap.mean for _, gap in found if gap] == [pytest.approx(v) for v in (-59 / 6, 61 / 6)]
    assert findings.variants(Results("r", tuple(LINES), OF_MPT), 4) == []
    assert findings.variants(Results("r", tuple(lines)), 4) == []  # no recipe says whose variants they are
    alone = [one for one in lines if one.method != "mpt"]
    assert findings.variants(Results("r", tuple(alone), OF_MPT), 4) == []


def test_variants_are_ranked_on_the_tasks_of_all_and_left_out_where_none_is_shared():
    lines = [*LINES, *runs("half", a=[50.0] * 3), line("more", "a", 9, 99.0)]
    assert findings.variants(Results("r", tuple(lines), OF_MPT), 4) == [
        (findings.interval([60.0, 69.0, 66.0]), None),
        (findings.interval([50.0] * 3), findings.gap(Results("r", tuple(lines)), "mpt", "half", 4, ["a"])),
    ]  # `more` has no seed of MPT's


def test_every_seed_is_paired_with_the_unadapted_prompt_of_its_source_training():
    unadapted = [line("transfer", "a", seed, value, shots=0) for seed, value in ((0, 50.0), (1, 60.0))]
    lines = [*unadapted, *runs("mpt", a=[51.0, 62.0, 53.0])]  # seeds 0 and 2 began with the first
    assert findings.gap(Results("r", tuple(lines)), "mpt", "transfer", 4).over_seeds == findings.interval(
        [1.0, 2.0, 3.0]
    )
    row_of = row(means.score_table(Results("r", tuple(lines)), 4), "transfer")
    assert (row_of.mean.score.mean, row_of.mean.score.count) == (55, 2)


def test_what_a_source_gives_a_target_is_the_mean_over_source_trainings():
    lines = [*runs("zero-shot", a=40.0), line("from:s", "a", 0, 50.0, shots=0), line("from:s", "a", 1, 56.0, shots=0)]
    assert findings.gains(Results("r", tuple(lines))) == (["s"], ["a"], [[13.0]])


def test_each_number_of_shots_has_its_own_verdict():
    lines = [*LINES, *runs("mpt", shots=16, a=[10.0, 11.0]), *runs("prompt-tuning", shots=16, a=[90.0, 91.0])]
    results = Results("r", tuple(lines))
    assert findings.verdict(results, 16).gaps[0].mean == -80
    assert findings.verdict(results, 16).gaps[0].trails
    assert findings.verdict(results, 4).gaps[0].mean > 0


def test_alarms_are_the_tasks_below_prompt_tuning_transfer_teacher_or_not_above_the_constant():
    lines = [
        *runs("constant", a=50.0, b=50.0, c=10.0),
        *runs("prompt-tuning", a=[70.0, 71.0], b=[40.0, 41.0], c=[1.0, 2.0]),
        *runs("transfer", a=30.0, b=30.0, c=30.0),
        *runs("teacher", c=60.0),
        *runs("mpt", a=[60.0, 60.5], b=[50.0, 52.0], c=[50.0, 50.0]),
    ]
    found = {(a.task, a.gap.other): a for a in findings.alarms(Results("r", tuple(lines)))}
    assert set(found) == {("a", "prompt-tuning"), ("b", "constant"), ("c", "teacher")}
    assert found["a", "prompt-tuning"].gap.mean == pytest.approx(-10.25)
    assert found["a", "prompt-tuning"].certain
    assert not found["b", "constant"].certain  # above it on the mean, but not with its interval
    assert found["c", "teacher"].certain


def test_tasks_ahead_counts_the_tasks_on_which_the_mean_is_above():
    results = Results("r", (*LINES, *runs("mpt", c=[10.0, 10.0, 10.0]), *runs("prompt-tuning", c=[20.0, 20.0, 20.0])))
    assert findings.gap(results, "mpt", "prompt-tuning", 4).tasks_ahead == 2


def test_curves_average_seeds_at_each_step_and_leave_out_what_was_not_validated():
    first, last = {"step": 0, "validation": 50, "validation_loss": 0.7}, {"step": 10, "validation": 60}
    points = [
        [first, {"step": 5, "loss": 1.0}, last],
        [{"step": 0, "validation": 54, "validation_loss": float("nan")}, {"step": 10, "validation": 70}],
    ]
    lines = [line("mpt", "a", s, 50.0, curve=c) for s, c in enumerate(points)]
    (curve,) = findings.curves(Results("r", tuple(lines)), "a", 4)
    assert curve.steps == (0, 10)
    assert [i.mean for i in curve.scores] == [52, 65]
    assert [i and i.mean for i in curve.losses] == [0.7, None]


def test_a_gain_is_the_source_prompts_score_minus_that_of_no_prompt():
    lines = [
        *runs("zero-shot", a=50.0, b=40.0), *runs("from:x", a=53.0, b=38.5), *runs("from:y", a=49.0), *LINES[5:8],
    ]  # fmt: skip
    assert findings.gains(Results("r", tuple(lines))) == (["x", "y"], ["a", "b"], [[3, -1.5], [-1, None]])
    assert "from:x" not in means.compared(Results("r", tuple(lines)))


def test_a_task_of_which_only_source_prompts_were_asked_has_no_column():
    results = Results("r", (*runs("from:x", a=53.0, b=38.5), *runs("zero-shot", a=50.0)))
    assert means.score_table(results, 0).tasks == ("a",)
    assert means.score_table(Results("r", tuple(runs("from:x", a=53.0))), 0).tasks == ()
