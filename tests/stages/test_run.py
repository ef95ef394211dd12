"""A run that is killed, stopped, repeated or changed."""

import json
import math
import multiprocessing
import os
import random
import signal
import time
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mptune.config import AdaptConfig, DistillConfig
from mptune.errors import ArtifactError, ResumeError, UsageError
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.run import Run, read_metrics
from mptune.stages.teachers import teach
from support.all_stages import all_stages
from support.models import saved
from support.runs import PROMPT, Quick, interrupted_at, sha256, steps_in, stop_early
from support.toys import make_task, toy_rows, write_rows
from support.trained import trained_backbone


@pytest.fixture
def model(tmp_path):
    """The backbone's folder: another process cannot be given the backbone itself."""
    return saved(trained_backbone(), tmp_path / "model")


@pytest.fixture(scope="session")
def processes():
    """Processes that begin with everything imported, and that share no thread with this one."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[1]), prepend=os.pathsep)
        context.set_forkserver_preload([all_stages.__module__, "datasets"])
        context.Process(target=int).start()
    return context


def wait_for(path, process):
    """Return whether a file appeared while a process ran; on a busy machine it may come and go unseen."""
    while process.is_alive() and not path.exists():
        time.sleep(0.002)
    return path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [False, True])
def test_runs_that_are_killed_at_any_moment_end_with_the_same_bytes(processes, model, toy_tasks, tmp_path, dropout):
    threads = torch.get_num_threads()
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    given = (toy_tasks, dropout, threads)
    all_stages(model, whole, *given)
    stages = ("teach0", "teach1", "distill", "adapt")
    assert all(steps_in(whole / stage) == [0, 2, 4, 6, 8, 10] for stage in stages)

    struck = []
    for stage in ("teach0", "distill", "adapt"):
        process = processes.Process(target=all_stages, args=(model, killed, *given))
        process.start()
        wait_for(killed / f"{stage}.partial" / "state.safetensors", process)
        time.sleep(random.random() * 0.05)
        process.kill()
        process.join()
        struck.append((killed / f"{stage}.partial").exists())
    assert any(struck), "no run was killed before its end"
    process = processes.Process(target=all_stages, args=(model, killed, *given))
    process.start()
    process.join()
    assert process.exitcode == 0
    for stage in stages:
        assert sha256(killed / stage) == sha256(whole / stage), stage
        # Every loss and score is the same too, and no step stands twice.
        assert (killed / stage / "metrics.jsonl").read_text() == (whole / stage / "metrics.jsonl").read_text(), stage


@pytest.mark.slow
def test_a_second_process_on_one_folder_is_refused_while_the_first_trains(processes, model, toy_tasks, tmp_path):
    process = processes.Process(target=all_stages, args=(model, tmp_path / "out", toy_tasks, False, 1, 100_000))
    process.start()
    try:
        assert wait_for(tmp_path / "out" / "teach0.partial" / "metrics.jsonl", process)
        with pytest.raises(UsageError, match=r"another process is training .*teach0; wait for it, or choose another"):
            teach(toy_tasks[0], trained_backbone(), Quick(), out=tmp_path / "out" / "teach0")
        assert process.is_alive()
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_stopped_run_saves_its_state_first_and_goes_on_to_the_same_bytes(toy_task, tmp_path, monkeypatch, number):
    backbone, config = trained_backbone(), Quick(save_every=1000, dropout=True)
    teach(toy_task, backbone, config, out=tmp_path / "whole")
    handler = signal.getsignal(number)
    patch = interrupted_at(5, number)
    with pytest.raises(KeyboardInterrupt):
        teach(toy_task, backbone, config, out=tmp_path / "run")
    patch.undo()
    assert signal.getsignal(number) is handler
    assert not backbone.model.training, "dropout would spoil every later answer"
    assert not (tmp_path / "run").exists()
    assert steps_in(tmp_path / "run.partial") == [0, 2, 4]
    taken = []
    monkeypatch.setattr(torch.optim.AdamW, "step", counted(torch.optim.AdamW.step, taken))
    teach(toy_task, backbone, config, out=tmp_path / "run")
    assert len(taken) == 3  # the fifth step was ended before the run stopped
    assert sha256(tmp_path / "run") == sha256(tmp_path / "whole")
    assert not (tmp_path / "run.partial").exists()


def counted(function, calls):
    def counting(*args, **kwargs):
        calls.append(True)
        return function(*args, **kwargs)

    return counting


def test_going_on_is_silent(toy_task, tmp_path, recwarn):
    stop_early(toy_task, tmp_path / "run", Quick())
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    assert [str(w.message) for w in recwarn if "lr_scheduler" in str(w.message)] == []


def test_a_run_killed_before_its_first_state_leaves_no_step_twice(toy_task, tmp_path, monkeypatch):
    config = Quick(save_every=6)

    def die(*_):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_state", die)
        with pytest.raises(RuntimeError, match="killed"):
            teach(toy_task, trained_backbone(), config, out=tmp_path / "run")
    assert steps_in(tmp_path / "run.partial") == [0, 2, 4, 6]
    teach(toy_task, trained_backbone(), config, out=tmp_path / "run")
    assert steps_in(tmp_path / "run") == [0, 2, 4, 6, 8]


def test_half_a_line_of_metrics_is_dropped(toy_task, tmp_path):
    stop_early(toy_task, tmp_path / "run", Quick())
    with (tmp_path / "run.partial" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "valid')
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    assert steps_in(tmp_path / "run") == [0, 2, 4, 6, 8]


def test_a_folder_whose_first_file_was_being_written_is_taken_up(toy_task, tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / ".0123456789abcdef.part").write_text('{"half')
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run" / PROMPT).is_file()
    assert not list((tmp_path / "run").glob(".*")), "half a file goes"


def test_an_equal_finished_run_is_not_trained_again(toy_task, tmp_path, monkeypatch):
    out = tmp_path / "run"
    made = teach(toy_task, trained_backbone(), Quick(), out=out)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()}
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *_: pytest.fail("it trained"))
    again = teach(toy_task, trained_backbone(), Quick(), out=out)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.iterdir()} == before
    assert torch.equal(again.collapse(), made.collapse())
    assert again.card == made.card
    assert not (tmp_path / "run.partial").exists()


def test_an_empty_folder_may_be_filled(toy_task, tmp_path):
    (tmp_path / "run").mkdir()
    teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run" / PROMPT).is_file()


@pytest.mark.parametrize("finished", [False, True], ids=["unfinished", "finished"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"lr": 0.5}, r"with teach\.lr = 0\.3, and now it is 0\.5\.", id="another field"),
        pytest.param(
            {"shots": 5}, r"with teach\.shots not set, and now it is 5\. Leave --shots out,", id="a first value"
        ),
        pytest.param({"seed": 7}, r"with teach\.seed = 0, and now it is 7\.", id="another seed"),
        pytest.param({"rows": 40}, r"on other rows of toy: they have changed since\.", id="other rows"),
        pytest.param(
            {"template": "{text}"},
            r"with tasks\.0\.template = \"toy text: {text}\", and now it is \"{text}\"\.",
            id="another template",
        ),
    ],
)
def test_a_changed_run_is_refused_and_the_field_is_named(tmp_path, toy_task, finished, change, message):
    out, config, task = tmp_path / "run", Quick(steps=3), toy_task
    if finished:
        teach(task, trained_backbone(), config, out=out)
    else:
        stop_early(task, out, config, step=2)
    if "rows" in change:
        write_rows(tmp_path / "toy.train.jsonl", toy_rows("good", "bad", change["rows"]))
    elif "template" in change:
        task = make_task(tmp_path, "toy", **change)
    else:
        config = config.model_copy(update=change)
    state = r"run holds a finished run" if finished else r"run\.partial is an unfinished run"
    with pytest.raises(
        ResumeError, match=rf"(?i){state} {message} (Take the old value, )?choose another --out, or remove"
    ) as refused:
        teach(task, trained_backbone(), config, out=out)
    # What was refused is as it was, and its lock is free even while somebody looks at the error.
    teach(make_task(tmp_path, "toy"), trained_backbone(), Quick(steps=3), out=out)
    assert refused.value.exit_code == 2


def test_a_teacher_that_changed_is_another_run(toy_tasks, tmp_path):
    backbone, config = trained_backbone(), DistillConfig(steps=0)
    first, second = ([teach(t, backbone, Quick(steps=0, seed=s)) for t in toy_tasks[:2]] for s in (0, 1))
    source = distill(toy_tasks[:2], first, backbone, config, out=tmp_path / "source")
    with pytest.raises(ResumeError, match=r"source holds a finished run with teachers = "):
        distill(toy_tasks[:2], second, backbone, config, out=tmp_path / "source")
    other = distill(toy_tasks[:2], second, backbone, DistillConfig(steps=0, seed=1))
    adapt(source, toy_tasks[2], backbone, AdaptConfig(steps=0), out=tmp_path / "target")
    with pytest.raises(ResumeError, match=r"target holds a finished run with source = "):
        adapt(other, toy_tasks[2], backbone, AdaptConfig(steps=0), out=tmp_path / "target")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("notes.txt", "mine", id="somebody's folder"),
        pytest.param("config.json", '{"model_type": "t5"}', id="a model's folder"),
        pytest.param("config.json", '{"identity": {"stage": "teacher"}}', id="a run that lost its prompt"),
    ],
)
def test_a_folder_that_is_no_run_is_refused_and_kept(toy_task, tmp_path, name, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(ResumeError, match="run exists and is no run of mptune; choose another --out"):
        teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")
    assert (tmp_path / "run" / name).read_text() == content
    assert not (tmp_path / "run.partial").exists()


def test_a_file_in_the_place_of_the_folder_is_refused(toy_task, tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(ResumeError, match="run exists and is no run of mptune"):
        teach(toy_task, trained_backbone(), Quick(steps=1), out=tmp_path / "run")


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda state: state[: len(state) // 2], id="cut short"),
        pytest.param(lambda state: b"", id="empty"),
        pytest.param(lambda state: b"\0" * len(state), id="zeros"),
        pytest.param(lambda state: b"\x02\0\0\0\0\0\0\0{}", id="without the progress"),
    ],
)
def test_a_damaged_state_is_said_and_can_be_removed(toy_task, tmp_path, damage):
    stop_early(toy_task, tmp_path / "run", Quick(steps=3), step=2)
    state = tmp_path / "run.partial" / "state.safetensors"
    state.write_bytes(damage(state.read_bytes()))
    with pytest.raises(ArtifactError, match=r"state\.safetensors is damaged .*remove .*run\.partial to start over"):
        teach(toy_task, trained_backbone(), Quick(steps=3), out=tmp_path / "run")


def test_a_run_whose_result_is_kept_elsewhere_leaves_no_folder(tmp_path):
    out = tmp_path / "run"
    with closing(Run(out, {"stage": "lora"})) as run:
        run.log({"step": 1, "loss": 0.5})
        run.save_state({"a": torch.zeros(2)}, {"step": 1})
        assert run.metrics() == [{"step": 1, "loss": 0.5}]
        run.discard()
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]
    with closing(Run(out, {"stage": "another"})) as run:  # nothing of the first stands in its way
        assert run.load_state() is None
        assert run.metrics() == []


def test_a_run_in_memory_has_nothing_to_discard_and_no_metrics(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with closing(Run(None, {})) as run:
        run.log({"step": 1, "loss": 0.5})
        assert run.metrics() == []
        run.discard()
    assert not list(tmp_path.iterdir())


def test_metrics_are_read_while_a_run_lasts_and_after_it(toy_task, tmp_path):
    stop_early(toy_task, tmp_path / "run", Quick())
    assert [line["step"] for line in read_metrics(tmp_path / "run.partial")] == [0, 2, 2]
    teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")
    lines = read_metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "validation" in line] == [0, 2, 4, 6, 8]
    assert all(set(line) - {"step"} for line in lines)


def test_half_a_line_of_metrics_is_not_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_a_folder_without_metrics_has_none(tmp_path):
    assert read_metrics(tmp_path) == []
    assert read_metrics(tmp_path / "nowhere") == []


def progress(**changes):
    """The header of a state that stands at its first step."""
    return {"progress": json.dumps({"step": 1, "best": [50.0, 0.5], "kept": 0, "tensors": [], **changes})}


def test_a_state_that_lacks_a_tensor_or_a_step_is_said_and_can_be_removed(toy_task, tmp_path):
    stop_early(toy_task, tmp_path / "run", Quick())
    file = tmp_path / "run.partial" / "state.safetensors"
    whole = file.read_bytes()
    with safe_open(file, framework="pt") as stored:
        header = stored.metadata()
    old = {"progress": json.dumps({k: v for k, v in json.loads(header["progress"]).items() if k != "tensors"})}
    for name, described, says in (
        ("prompt.shared", header, r"damaged \(it lacks prompt\.shared\); remove .*run\.partial to start over"),
        ("optimizer.0.exp_avg", header, r"damaged \(it lacks optimizer\.0\.exp_avg\)"),
        ("prompt.shared", old, r"state\.safetensors is damaged \(.*\); remove"),
        (None, {"progress": '{"step": 1, "best": null, "kept": 0}'}, r"state\.safetensors is damaged"),
        (None, {"progress": '{"step": "x", "best": [1, 1], "kept": 0}'}, r"state\.safetensors is damaged"),
        (None, {"progress": "[" * 100_000}, r"state\.safetensors is damaged"),
        (None, progress(step=-1), r"damaged \(it stands at step -1, and its best at step 0"),
        (None, progress(step=10**30), r"damaged \(it stands at step 1000000"),
        (None, progress(step=math.inf), r"state\.safetensors is damaged"),
        (None, progress(kept=2), r"damaged \(it stands at step 1, and its best at step 2"),
        (None, progress(kept=-1), r"damaged \(it stands at step 1, and its best at step -1"),
        (None, progress(best=[math.nan, 0]), r"damaged \(it stands at step 1, and its best at step 0, nan, 0.0"),
        (None, progress(best=[50, math.inf]), r"damaged \(.* at step 0, 50.0, inf"),
    ):
        file.write_bytes(whole)
        tensors = {key: tensor for key, tensor in load_file(file).items() if key != name}
        save_file(tensors, file, metadata=described)
        with pytest.raises(ArtifactError, match=says):
            teach(toy_task, trained_backbone(), Quick(), out=tmp_path / "run")


def test_metrics_of_any_bytes_are_passed_over(tmp_path):
    lines = b'{"step": 1, "loss": 0.5}\n\xff\xfe\0\0\n{"step": "x"}\n[1]\n{"step": 2}\n'
    (tmp_path / "metrics.jsonl").write_bytes(lines)
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}, {"step": 2}]
