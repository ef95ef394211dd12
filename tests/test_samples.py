"""The written tasks that come with the package: their counts, their balance, and that no row was made by a script."""

import json
import re
from collections import Counter
from importlib.resources import files

import pytest

from mptune.tasks.data import load_data
from mptune.tasks.registry import builtin_tasks
from mptune.tasks.task import SPLITS

SOURCES = ("opinions", "paraphrase", "answers", "topics", "claims", "intents")
TARGETS = ("urgency", "refund", "contradiction", "teams", "aspects", "feelings")
WRITTEN = (*SOURCES, *TARGETS)

_FUNCTION = """
a an the i you he she it we they me him her us them my your his its our their this that these those there here who what
which when where why how is are was were be been being am do does did done have has had having will would can could
shall should may might must not no nor n't and or but if then than so because while although though until unless since
after before as at by for from in into of off on onto out over to under up down with without about between through
during again too very just only also even still yet already never always ever now all any both each few more most other
some such own same one two
"""
FUNCTION_WORDS = frozenset(_FUNCTION.split())


def skeleton(text):
    """Return what is left of a sentence when its content is taken out.

    Function words and punctuation stay, a number becomes #, every other run of words becomes one _. Sentences of one
    skeleton are one template filled again, or look as if they were.
    """
    parts = []
    for word in re.findall(r"[a-z']+|\d+|[.,!?;:]", text.lower()):
        part = "#" if word.isdigit() else word if word in FUNCTION_WORDS or not word[0].isalpha() else "_"
        if not (part == "_" and parts and parts[-1] == "_"):
            parts.append(part)
    return " ".join(parts)


def texts(row):
    """The texts of a row, without its label."""
    return {field: text for field, text in row.items() if field != "label"}


@pytest.fixture(params=WRITTEN)
def written(request):
    """The name of a written task, and its rows by split."""
    folder = files("mptune") / "samples"
    splits = {}
    for split in SPLITS:
        file = folder / f"{request.param}.{split}.jsonl"
        if file.is_file():
            splits[split] = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return request.param, splits


def test_the_skeleton_of_a_sentence_is_blind_to_its_content_and_not_to_its_form():
    one, two = "The red van left at 9, without us!", "The parcel came at 12, without us!"
    assert skeleton(one) == skeleton(two) == "the _ at # , without us !"
    assert skeleton("At 9 the van left without us!") != skeleton(one)


def test_there_are_six_sources_and_six_targets_and_they_come_first():
    assert sorted(WRITTEN) == list(builtin_tasks())[: len(WRITTEN)]


def test_all_sample_files_are_found_as_package_data():
    names = {file.name for file in (files("mptune") / "samples").iterdir()}
    expected = {f"{name}.{split}.jsonl" for name in WRITTEN for split in ("train", "validation")}
    assert names == expected | {f"{n}.test.jsonl" for n in TARGETS} | {f"{n}.yaml" for n in WRITTEN} | {"README.md"}


def test_a_written_task_loads_all_its_rows_without_a_complaint(written):
    name, splits = written
    data = load_data(builtin_tasks()[name], list(splits))
    for split, rows in splits.items():
        examples = getattr(data, split)
        assert [e.row for e in examples] == list(range(1, len(rows) + 1))
        assert all(text in e.input for e, row in zip(examples, rows, strict=True) for text in texts(row).values())


def test_sources_teach_from_240_rows_and_targets_adapt_from_64_and_are_tested_on_200(written):
    name, splits = written
    counts = {split: len(rows) for split, rows in splits.items()}
    if name in SOURCES:
        assert counts["train"] >= 240
        assert counts["validation"] >= 80
        assert "test" not in counts
    else:
        assert counts.pop("validation") >= 60
        assert counts == {"train": 64, "test": 200}


def test_the_classes_of_a_split_are_as_large_as_each_other(written):
    name, splits = written
    for split, rows in splits.items():
        count = Counter(row["label"] for row in rows)
        assert set(count) == set(builtin_tasks()[name].verbalizer), split
        assert len(set(count.values())) == 1, split


def test_no_row_stands_twice_within_or_across_splits(written):
    _, splits = written
    seen = Counter(
        tuple(" ".join(re.findall(r"[a-z0-9]+", text.lower())) for text in texts(row).values())
        for rows in splits.values()
        for row in rows
    )
    assert [row for row, times in seen.items() if times > 1] == []


def test_no_row_stands_in_two_tasks():
    seen = Counter()
    for file in (files("mptune") / "samples").iterdir():
        if file.name.endswith(".jsonl"):
            rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
            seen.update(" ".join(texts(row).values()).lower() for row in rows)
    assert [text for text, times in seen.items() if times > 1] == []


def test_no_skeleton_makes_more_than_two_percent_of_the_sentences_of_a_task(written):
    _, splits = written
    rows = [texts(row) for split in splits.values() for row in split]
    for field in rows[0]:
        commonest, times = Counter(skeleton(row[field]) for row in rows).most_common(1)[0]
        assert times <= 0.02 * len(rows), (field, commonest)


def test_rows_are_plain_ascii_single_lines_with_the_fields_of_their_task(written):
    name, splits = written
    fields = set(builtin_tasks()[name].fields)
    for rows in splits.values():
        for row in rows:
            assert set(row) == fields
            for text in texts(row).values():
                assert text.isascii()
                assert text.isprintable()
                assert text == text.strip() != ""


def test_the_length_of_a_text_does_not_tell_its_label(written):
    name, splits = written
    lengths = {}
    for row in (row for rows in splits.values() for row in rows):
        lengths.setdefault(row["label"], []).append(sum(len(text.split()) for text in texts(row).values()))
    means = [sum(n) / len(n) for n in lengths.values()]
    known = {"urgency": 1.4, "intents": 1.2, "feelings": 1.2}  # the data card says so
    assert max(means) / min(means) < known.get(name, 1.15)


def test_the_data_card_states_every_task_with_its_counts(written):
    name, splits = written
    card = (files("mptune") / "samples" / "README.md").read_text(encoding="utf-8")
    line = next(line for line in card.splitlines() if line.startswith(f"| `{name}` "))
    assert [int(n) for n in re.findall(r"\b\d+\b", line)[:3]] == [len(splits.get(s, [])) for s in SPLITS]
