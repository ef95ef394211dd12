"""Teachers asked once answer as teachers asked at every step."""

import shutil

import pytest
import torch

from mptune.config import DistillConfig, TeachConfig, TrainingConfig
from mptune.model.backbone import Backbone
from mptune.model.batch import IGNORE
from mptune.model.encoding import collate, encode
from mptune.stages.distillation import distill
from mptune.stages.teacher_outputs import TeacherOutputs
from mptune.stages.teachers import teach
from mptune.tasks.data import load_data
from support.models import rms
from support.toys import make_task
from support.trained import trained_backbone

GIB = 2**30


@pytest.fixture
def data_of(tmp_path):
    """Rows of two tasks, with label words of one and of several tokens."""
    words = {"mood": ("good", "awful"), "length": ("not very long", "short")}
    tasks = [make_task(tmp_path, n, *w, verbalizer=dict(zip("10", w, strict=True))) for n, w in words.items()]

    def encoded(backbone):
        return [encode(t, load_data(t, ["train"]).train, backbone, TrainingConfig(), 4) for t in tasks]

    return encoded


def teachers_of(backbone, count=2, length=4):
    prompts = torch.randn(count, length, backbone.width, generator=torch.Generator().manual_seed(3))
    return prompts * rms(backbone.embeddings)


@pytest.fixture
def passes(monkeypatch):
    """How often the backbone is asked."""
    seen, forward = [], Backbone.__call__
    monkeypatch.setattr(Backbone, "__call__", lambda *a: seen.append(1) or forward(*a))
    return seen


PICKS = [(0, 3), (1, 0), (1, 7), (0, 3), (0, 1), (1, 2)]


@pytest.mark.parametrize("layers", [(), (-1,), (-1, 0)])
def test_kept_outputs_are_those_of_asking_again(any_backbone, data_of, layers, passes):
    data, prompts = data_of(any_backbone), teachers_of(any_backbone)
    kept = TeacherOutputs(any_backbone, prompts, data, layers, [*PICKS, (0, 5)], room=GIB)
    batch = collate(PICKS, data, any_backbone)
    asked = any_backbone(prompts[list(batch.tasks)], batch, layers)
    before = len(passes)
    found = kept(PICKS, batch)
    assert len(passes) == before
    counted = batch.labels != IGNORE
    torch.testing.assert_close(found.logits[counted], asked.logits[counted], atol=1e-5, rtol=1e-5)
    masks = [batch.mask.bool()] * len(layers) + [counted] * len(layers)
    assert len(found.hidden) == len(asked.hidden) == len(masks)
    for mine, theirs, mask in zip(found.hidden, asked.hidden, masks, strict=True):
        assert mine.shape == theirs.shape
        torch.testing.assert_close(mine[mask], theirs[mask], atol=1e-5, rtol=1e-5)


def test_rows_are_asked_once_however_often_they_are_needed(data_of, passes):
    backbone = trained_backbone()
    passes.clear()
    TeacherOutputs(backbone, teachers_of(backbone), data_of(backbone), (-1,), PICKS * 50, room=GIB)
    assert len(passes) == 1


@pytest.mark.parametrize("room", [0, 100])
def test_where_outputs_do_not_fit_every_batch_is_asked(data_of, passes, room):
    backbone = trained_backbone()
    data, prompts = data_of(backbone), teachers_of(backbone)
    outputs = TeacherOutputs(backbone, prompts, data, (-1,), PICKS, room=room)
    batch = collate(PICKS, data, backbone)
    asked = backbone(prompts[list(batch.tasks)], batch, (-1,))
    passes.clear()
    for _ in range(2):
        assert torch.equal(outputs(PICKS, batch).logits, asked.logits)
    assert len(passes) == 2


def test_room_is_counted_in_the_type_of_the_backbone(data_of, passes):
    backbone = trained_backbone()
    data = data_of(backbone)
    read, written = len(data[0].inputs[0]), len(data[0].targets[0])
    needed = 4 * (written * backbone.vocabulary + (read + written) * backbone.width)
    for room, asked in ((needed, 1), (needed - 1, 0)):
        passes.clear()
        TeacherOutputs(backbone, teachers_of(backbone), data, (-1,), [(0, 0)], room=room)
        assert len(passes) == asked


def test_no_more_than_half_of_a_free_disk_is_taken(data_of, passes, monkeypatch):
    backbone = trained_backbone()
    data = data_of(backbone)
    usage = shutil.disk_usage("/")._replace(free=1_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    passes.clear()
    TeacherOutputs(backbone, teachers_of(backbone), data, (-1,), PICKS, room=GIB)
    assert passes == []


def test_outputs_have_no_gradient_and_the_file_no_name(data_of, tmp_path):
    backbone = trained_backbone()
    data, folder = data_of(backbone), tmp_path / "run"
    folder.mkdir()
    outputs = TeacherOutputs(
        backbone, teachers_of(backbone).requires_grad_(), data, (-1,), PICKS, room=GIB, folder=folder
    )
    assert list(folder.iterdir()) == []
    found = outputs(PICKS, collate(PICKS, data, backbone))
    assert not any(t.requires_grad for t in (found.logits, *found.hidden))


def test_a_student_of_kept_teachers_is_that_of_teachers_asked_at_every_step(toy_tasks):
    backbone = trained_backbone()
    taught = [teach(t, backbone, TeachConfig(prompt_length=4, steps=0, seed=n)) for n, t in enumerate(toy_tasks)]
    students = [
        distill(toy_tasks, taught, backbone, DistillConfig(steps=12, validate_every=4, teacher_cache=cache))
        for cache in (0, 1)
    ]
    for one, other in zip(students[0].parameters(), students[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    start = distill(toy_tasks, taught, backbone, DistillConfig(steps=0))
    assert not torch.allclose(start.shared, students[0].shared, atol=1e-2)


def test_with_kept_teachers_a_step_is_one_pass_of_the_student(toy_tasks, passes):
    backbone = trained_backbone()
    taught = [teach(t, backbone, TeachConfig(prompt_length=4, steps=0)) for t in toy_tasks]
    counts = {}
    for steps in (0, 10, 20):
        passes.clear()
        distill(toy_tasks, taught, backbone, DistillConfig(steps=steps, validate_every=99, batch_size=48))
        counts[steps] = len(passes)
    assert counts[20] - counts[10] == 10
