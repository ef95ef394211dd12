"""Batches: whose prompt stands before which row, whatever is done to the rows."""

import pytest
import torch

from mptune.model.batch import IGNORE, Batch

ROWS = [7, 2, 7, 5]  # the tasks of four rows, by number


def batch(row_tasks=ROWS, *, left=False, added=False):
    """Rows of one to four tokens with labels of one to three; each token is ten times its row, and its place."""
    lengths, rooms = [2, 1, 4, 3][: len(row_tasks)], [1, 3, 2, 1][: len(row_tasks)]
    width = max(lengths)
    ids, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width, dtype=torch.long)
    labels = torch.full((len(rooms), max(rooms)), IGNORE)
    for row, (length, room) in enumerate(zip(lengths, rooms, strict=True)):
        text = slice(width - length, None) if left else slice(length)
        ids[row, text], mask[row, text] = 10 * row + torch.arange(length), 1
        labels[row, :room] = 100 * row + torch.arange(room)
    batch = Batch.of_tasks(row_tasks, ids, mask, labels)
    return Batch(**{**vars(batch), "added": ids[:, :, None] * torch.ones(2)}) if added else batch


def table(tasks):
    """A prompt for each task, of the task's number. [K, 3, 2]"""
    return torch.tensor(tasks, dtype=torch.float)[:, None, None].expand(-1, 3, 2)


def test_tasks_stand_once_in_growing_order_and_every_row_finds_its_own():
    made = batch()
    assert made.tasks == (2, 5, 7)
    assert made.task_ids.tolist() == [2, 0, 2, 1]
    assert table(made.tasks)[made.task_ids][:, 0, 0].tolist() == ROWS


def test_one_prompt_for_all_rows_is_a_table_of_one():
    one = batch().of_one_prompt()
    assert one.tasks == (0,)
    assert one.task_ids.tolist() == [0, 0, 0, 0]
    assert torch.equal(one.input_ids, batch().input_ids)


def test_a_prompt_for_each_row_is_a_table_of_as_many_rows():
    own = batch().of_own_prompts()
    assert own.tasks == (0, 1, 2, 3)
    assert own.task_ids.tolist() == [0, 1, 2, 3]
    assert torch.equal(own.labels, batch().labels)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize(
    ("rows", "tasks", "kept"),
    [
        pytest.param([0, 2], (7,), [2], id="of one task"),
        pytest.param([3, 1], (2, 5), [0, 1], id="in another order"),
        pytest.param([1, 0], (2, 7), [0, 2], id="of two tasks of three"),
    ],
)
def test_some_rows_keep_their_texts_labels_and_prompts_and_no_more(rows, tasks, kept, left):
    whole = batch(left=left, added=True)
    part, of_prompts = whole.only(rows, left=left)
    assert (part.tasks, of_prompts) == (tasks, kept)
    assert table(whole.tasks)[of_prompts][part.task_ids][:, 0, 0].tolist() == [ROWS[row] for row in rows]
    for own, row in enumerate(rows):
        text, old_text = part.mask[own] == 1, whole.mask[row] == 1
        assert part.input_ids[own][text].tolist() == whole.input_ids[row][old_text].tolist()
        assert torch.equal(part.added[own][text], whole.added[row][old_text])
        counted, old_counted = part.labels[own] != IGNORE, whole.labels[row] != IGNORE
        assert part.labels[own][counted].tolist() == whole.labels[row][old_counted].tolist()
    assert part.input_ids.shape[1] == part.mask.shape[1] == part.added.shape[1] == int(part.mask.sum(1).max())
    assert part.labels.shape[1] == int((part.labels != IGNORE).sum(1).max())


def test_rows_of_rows_know_their_tasks_still():
    half, first = batch().only([3, 0, 1], left=False)
    one, second = half.only([0], left=False)
    assert (one.tasks, one.task_ids.tolist()) == ((5,), [0])
    assert [batch().tasks[first[k]] for k in second] == [5]


def test_another_device_takes_every_tensor_and_leaves_the_rest():
    there = batch(added=True).to(torch.device("meta"))
    assert there.tasks == (2, 5, 7)
    tensors = [each for each in vars(there).values() if isinstance(each, torch.Tensor)]
    assert len(tensors) == 5
    assert {each.device.type for each in tensors} == {"meta"}


@pytest.mark.parametrize("added", [False, True])
def test_labels_behind_a_text_that_is_named_twice_have_it_twice_when_texts_are_spread(added):
    made = batch(added=added)
    labels = torch.tensor([[1, 2], [3, IGNORE], [4, 5]])
    behind = made.behind([2, 0, 2], labels)
    assert torch.equal(behind.input_ids, made.input_ids)  # each text once, until
    spread = behind.spread()
    assert spread.texts is None
    assert torch.equal(spread.input_ids, made.input_ids[[2, 0, 2]])
    assert torch.equal(spread.mask, made.mask[[2, 0, 2]])
    assert torch.equal(spread.labels, labels)
    assert [made.tasks[k] for k in spread.task_ids] == [7, 7, 7]
    assert not added or torch.equal(spread.added, made.added[[2, 0, 2]])
    assert made.spread() is made
