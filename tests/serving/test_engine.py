"""Rows of any tasks in one batch: each answered as alone, none lost, none held up."""

import threading
import time

import pytest

from mptune.answers.prediction import Predictor, rendered_row
from mptune.config import EvaluateConfig
from mptune.model.stepwise import Draft
from mptune.prompts.prompt import MultitaskPrompt
from mptune.serving import engine as engine_module
from mptune.serving.engine import Busy, Draining, Sampling, TooLate
from support.serving import FREE, TASKS, opened

TEXTS = ["good", "a bad film that is not good", "red , blue and awful", "yes"]


def rows_of(task, count=4):
    fields = task.text_fields
    return [{field: TEXTS[(n + k) % len(TEXTS)] for k, field in enumerate(fields)} for n in range(count)]


@pytest.fixture
def run(folder, model):
    """A store and a running engine."""
    store, engine, _ = opened(folder, model)
    engine.start()
    yield store, engine
    engine.drain()


def examples(store, name, rows):
    return [rendered_row(store.ready(name).task, row, n) for n, row in enumerate(rows)]


def sampling(store, name, most=6):
    words = store.ready(name).words.label_ids
    return Sampling(max(map(len, words), default=most))


def test_rows_of_all_tasks_at_once_are_answered_as_by_predict(run, folder, model):
    store, engine = run
    predictor = Predictor(model, [MultitaskPrompt.from_pretrained(folder / t.name) for t in TASKS],
                          EvaluateConfig(max_target_tokens=6))  # fmt: skip
    asked = []
    for task in TASKS * 3:
        how = sampling(store, task.name) if task in (FREE, TASKS[-1]) else None
        asked += [(task, engine.submit(store.ready(task.name), examples(store, task.name, rows_of(task)), how))]
    for task, rows in asked:
        wanted = predictor.predict([{"task": task.name, **row} for row in rows_of(task)])
        for row, prediction in zip(rows, wanted, strict=True):
            answer = row.answer.result(20)
            if prediction.probabilities:
                assert answer.probabilities == pytest.approx(tuple(prediction.probabilities.values()), abs=1e-5)
            else:
                assert answer.text == prediction.answer


def test_rows_of_different_tasks_share_a_pass(folder, model):
    store, engine, _ = opened(folder, model)
    sizes = []
    engine.batches = lambda rows, tokens, seconds: sizes.append(rows)
    rows = [row for name in ("mood", "pair", "long") for row in
            engine.submit(store.ready(name), examples(store, name, rows_of(store.ready(name).task)))]  # fmt: skip
    engine.start()
    for row in rows:
        row.answer.result(20)
    engine.drain()
    assert sizes == [12]


def test_a_batch_has_no_more_tokens_than_its_budget_and_a_longer_row_is_alone(folder, model):
    store, engine, _ = opened(folder, model, max_batch_tokens=20)
    seen = []
    engine.batches = lambda rows, tokens, seconds: seen.append((rows, tokens))
    ready = store.ready("mood")
    long = rendered_row(ready.task, {"text": "good " * 60})
    rows = engine.submit(ready, [*examples(store, "mood", rows_of(ready.task)), long])
    engine.start()
    for row in rows:
        row.answer.result(20)
    engine.drain()
    assert sum(count for count, _ in seen) == 5
    assert all(tokens <= 20 or count == 1 for count, tokens in seen)
    assert len(seen) > 2


def test_labels_do_not_wait_for_long_texts(folder, model, monkeypatch):
    store, engine, _ = opened(folder, model)
    step, steps = engine_module.Writer.step, []
    monkeypatch.setattr(engine_module.Writer, "step", lambda self: (steps.append(time.sleep(0.02)), step(self)))
    monkeypatch.setattr(engine, "_heard", lambda rows: None)  # no text ends
    endless = engine.submit(store.ready("free"), examples(store, "free", rows_of(FREE)), Sampling(10**6))
    monkeypatch.setattr(engine_module, "Draft", lambda most, ends, *how: Draft(most, frozenset(), *how))
    engine.start()
    while not steps:
        time.sleep(0.001)
    before = len(steps)
    (row,) = engine.submit(store.ready("mood"), examples(store, "mood", [{"text": "good"}]))
    row.answer.result(5)
    assert len(steps) - before <= 2
    assert not any(each.answer.done() for each in endless)
    time.sleep(0.1)
    assert len(steps) > before + 1, "the texts go on meanwhile"
    monkeypatch.undo()
    for each in endless:
        each.line.most = 0
    engine.drain()


def test_behind_a_batch_of_labels_a_text_is_written_for_a_share_of_its_time(folder, model, monkeypatch):
    """One token for each batch, and a text would take as long as fifty of them."""
    store, engine, _ = opened(folder, model, max_batch_tokens=1)  # a row is a batch
    rank, step, told = engine._rank, engine_module.Writer.step, []
    monkeypatch.setattr(engine, "_rank", lambda rows: (told.append("labels"), time.sleep(0.2), rank(rows)))
    monkeypatch.setattr(engine_module.Writer, "step", lambda self: (told.append("token"), time.sleep(0.01), step(self)))
    monkeypatch.setattr(engine_module, "Draft", lambda most, ends, *how: Draft(most, frozenset(), *how))
    text = engine.submit(store.ready("free"), examples(store, "free", rows_of(FREE, 1)), Sampling(40))
    labels = engine.submit(store.ready("mood"), examples(store, "mood", rows_of(TASKS[0])))
    engine.start()
    for row in labels:
        row.answer.result(20)
    engine.drain()
    assert len(text[0].answer.result(20).text) > 0
    behind = "".join(each[0] for each in told).split("l")[1:4]  # between two batches
    assert all(2 <= len(tokens) <= 6 for tokens in behind), behind  # 0.2 s allow 0.05 of them, 0.01 each


def test_more_rows_than_may_wait_are_refused_and_the_others_answered(folder, model):
    store, engine, _ = opened(folder, model, max_queue=5)
    ready = store.ready("mood")
    rows = engine.submit(ready, examples(store, "mood", rows_of(ready.task)))
    with pytest.raises(Busy, match=r"4 rows wait already; come again in 1 s"):
        engine.submit(ready, examples(store, "mood", rows_of(ready.task)))
    engine.start()
    assert all(row.answer.result(20) for row in rows)
    engine.drain()


def test_a_row_that_waited_too_long_is_told_and_one_that_nobody_wants_is_not_read(folder, model):
    store, engine, _ = opened(folder, model, timeout=0.05)
    seen = []
    engine.batches = lambda rows, tokens, seconds: seen.append(rows)
    ready = store.ready("mood")
    late, gone = engine.submit(ready, examples(store, "mood", rows_of(ready.task, 2)))
    gone.answer.cancel()
    time.sleep(0.1)
    engine.start()
    with pytest.raises(TooLate, match=r"no answer within 0\.05 s"):
        late.answer.result(20)
    engine.drain()
    assert seen == []


def test_who_ends_answers_what_was_accepted_and_takes_no_more(folder, model):
    store, engine, _ = opened(folder, model)
    ready = store.ready("mood")
    rows = engine.submit(ready, examples(store, "mood", rows_of(ready.task)))
    texts = engine.submit(store.ready("free"), examples(store, "free", rows_of(FREE)), Sampling(20))
    engine.start()
    engine.drain()
    assert all(row.answer.done() for row in [*rows, *texts])
    with pytest.raises(Draining, match="the server ends, and takes no more rows"):
        engine.submit(ready, examples(store, "mood", rows_of(ready.task)))


def test_a_batch_that_fails_is_told_and_the_next_is_answered(run, monkeypatch, caplog):
    store, engine = run
    ready, right = store.ready("mood"), engine_module.label_scores

    def failing(*_):
        raise RuntimeError("the model broke")

    monkeypatch.setattr(engine_module, "label_scores", failing)
    (row,) = engine.submit(ready, examples(store, "mood", [{"text": "good"}]))
    with pytest.raises(RuntimeError, match="the model broke"):
        row.answer.result(20)
    monkeypatch.setattr(engine_module, "label_scores", right)
    (row,) = engine.submit(ready, examples(store, "mood", [{"text": "good"}]))
    assert row.answer.result(20).probabilities


def test_a_text_ends_before_what_stops_it_and_says_so(run):
    store, engine = run
    ready = store.ready("free")
    (whole,) = engine.submit(ready, examples(store, "free", [{"text": "good"}]), Sampling(6))
    text = whole.answer.result(20).text
    stop = text[len(text) // 2 :].strip()[:1]
    (row,) = engine.submit(ready, examples(store, "free", [{"text": "good"}]), Sampling(6, stop=(stop,)))
    answer = row.answer.result(20)
    assert answer.text == text.partition(stop)[0].strip()
    assert answer.ended


def test_many_threads_ask_and_each_gets_its_own_answer(run, folder, model):
    store, engine = run
    ready = store.ready("mood")
    wanted = dict.fromkeys(TEXTS)
    for text in TEXTS:
        (row,) = engine.submit(ready, examples(store, "mood", [{"text": text}]))
        wanted[text] = row.answer.result(20).probabilities
    wrong = []

    def asks(number):
        for turn in range(20):
            text = TEXTS[(number + turn) % len(TEXTS)]
            (row,) = engine.submit(ready, examples(store, "mood", [{"text": text}]))
            if row.answer.result(20).probabilities != pytest.approx(wanted[text], abs=1e-5):
                wrong.append(text)

    threads = [threading.Thread(target=asks, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
