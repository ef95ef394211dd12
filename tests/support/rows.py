"""Rows in files of every format, tasks over them, and what is said of what is wrong."""

import csv
import gzip
import json

import pyarrow
import pytest
from pyarrow import parquet

from mptune.errors import DataError
from mptune.tasks.data import load_data
from mptune.tasks.dataset import Dataset
from mptune.tasks.task import Task

ROWS = [{"text": "a calm day", "label": "good"}, {"text": "a flat tyre", "label": "bad"}]


def write(path, rows):
    """Write rows in the format that the path's ending names."""
    ending = path.name.removesuffix(".gz").rpartition(".")[2]
    if ending == "parquet":
        columns = {k: [r.get(k) for r in rows] for k in (rows[0] if rows else ("text", "label"))}
        parquet.write_table(pyarrow.table(columns), path)
        return path
    opened = gzip.open if path.name.endswith(".gz") else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if ending == "csv":
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["text", "label"])
            writer.writeheader()
            writer.writerows(rows)
        elif ending == "json":
            json.dump(rows, file, ensure_ascii=False)
        else:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return path


def mood(verbalizer=None, template="mood: {text}", relabel=None, **dataset):
    """A task of classes over files."""
    dataset = {k: v if k in ("hub", "where", "overlap", "train_rows") else str(v) for k, v in dataset.items()}
    words = verbalizer or {"bad": "no", "good": "yes"}
    return Task(name="mood", template=template, verbalizer=words, relabel=relabel or {}, dataset=Dataset(**dataset))


def free(**dataset):
    """A task of free text over files."""
    dataset = Dataset(**{k: str(v) for k, v in dataset.items()})
    return Task(name="titles", template="{text}", target="{title[0]}", dataset=dataset, metrics="exact_match")


def problems(task, splits=("train",), data_dir=None, code=3):
    """What load_data says of a task."""
    with pytest.raises(DataError) as error:
        load_data(task, splits, data_dir)
    assert error.value.exit_code == code
    return list(error.value.problems)
