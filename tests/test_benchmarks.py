"""The benchmarks run as a user runs them, on a tiny model, and end in one JSON object with the keys they promise."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from support.graphs import recorded

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def program(monkeypatch):
    """Import a benchmark into this process, which costs no second import of torch, and give it its arguments."""

    def imported(name, *arguments):
        monkeypatch.syspath_prepend(str(BENCHMARKS))
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        return importlib.import_module(name)

    return imported


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny random T5 with the embedded backbone's tokenizer: label words must differ in it."""
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    from mptune.model.embedded import build_embedded

    folder = tmp_path_factory.mktemp("bench") / "model"
    torch.manual_seed(0)
    config = T5Config(vocab_size=32_128, d_model=16, d_kv=4, d_ff=32, num_layers=1, num_heads=2,
                      decoder_start_token_id=0, feed_forward_proj="gated-gelu")  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(build_embedded()).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize(
    ("name", "ratios"),
    [
        ("train_step", [("shapes", 0, "vs_peft_documented"), ("shapes", 0, "vs_peft_best")]),
        ("distillation_step", [("kept_vs_teacher_step",), ("asked_vs_teacher_step",)]),
        ("scoring", [("kinds", 0, "rate_vs_one_task", "64"), ("kinds", 0, "vs_peft_best")]),
        ("adaptation", [("side_by_side", "together_vs_one")]),
        ("memory", []),
        ("neighbour", [("kinds", 0, "brief_beside_vs_one_thread_alone"), ("kinds", 1, "spinning_vs_brief_beside")]),
    ],
)
def test_a_benchmark_ends_in_one_json_object(name, ratios, model, tmp_path):
    out = tmp_path / "result.json"
    command = [
        sys.executable,
        str(BENCHMARKS / f"{name}.py"),
        "--quick",
        "--backbone",
        str(model),
        "--out",
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result == json.loads(out.read_text())
    assert result["benchmark"] == name
    assert {"commit", "processor", "threads", "versions", "date"} <= set(result)
    assert "No --data" in result["notes"][0]
    for path in ratios:
        found = result
        for key in path:
            found = found[key]
        assert 0 < found["low"] <= found["median"] <= found["high"]
    if name == "train_step":
        # Below one on a quiet machine only: here other tests slow the products by which the limit is measured.
        assert result["shapes"][0]["share_of_floor"] > 0
    if name == "adaptation":
        (run,) = result["runs"]
        assert 0 <= run["best_after"] <= run["seconds"]
        assert run["best"] >= run["start"]
    if name == "memory":
        assert result["mib"]["imports alone"] < result["mib"]["backbone loaded"] <= result["mib"]["adaptation"]


@pytest.mark.slow
@pytest.mark.embedded
def test_a_profile_says_where_all_of_a_steps_time_goes(model, tmp_path):
    command = [sys.executable, str(BENCHMARKS / "train_step.py"), "--quick", "--profile", "--backbone", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    shares = json.loads(done.stdout.splitlines()[-1])["shapes"][0]["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert 0 < shares["matrix products"] < 1


def test_two_runs_of_a_recipe_are_compared_pair_by_pair(program, tmp_path, capsys):
    for name, shift in (("a", 0), ("b", 2)):
        lines = [
            {"method": "mpt", "task": task, "shots": 4, "seed": seed, "seconds": 1, "dtype": name,
             "scores": [{"metric": "accuracy", "value": 50 + 10 * seed + shift}]}
            for task in ("x", "y") for seed in (0, 1)
        ]  # fmt: skip
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    program("precision", tmp_path / "a", tmp_path / "b").main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])["methods"]["mpt"]
    assert figures["means"] == [55, 57]
    assert figures["difference"].startswith("-2.0 [-2.0, -2.0]")
    with pytest.raises(SystemExit, match="have no run in common"):
        program("precision", tmp_path / "a", tmp_path).main()


@pytest.mark.embedded
def test_a_recorded_step_stands_beside_one_that_is_not(model, program, monkeypatch):
    # Without a GPU nothing is recorded: the "graph" is the pass itself, and all else is what runs on one.
    train_step = program("train_step")
    monkeypatch.setattr(train_step, "ours", lambda folder: recorded(ours(folder)))
    ours = importlib.import_module("common").ours
    found = train_step.compare(str(model), "mnli", 3, 2, None, 2)
    assert {"ours", "unrecorded"} < set(found["ms"])
    assert 0 < found["vs_unrecorded"]["low"] <= found["vs_unrecorded"]["high"]


def test_what_is_carried_in_portions_arrives_as_it_was(program, tmp_path):
    carry = program("carry")
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "a.jsonl").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "wheel.whl").write_bytes(b"wheel")
    portions = carry.pack(tmp_path / "parts", [tmp_path / "rows", tmp_path / "wheel.whl"], most=0.01)
    assert len(portions) > 2
    assert all(sum(file.stat().st_size for file in portion.iterdir()) < 11_000 for portion in portions)
    carry.unpack(tmp_path / "parts", tmp_path / "there")
    assert (tmp_path / "there" / "rows" / "a.jsonl").read_bytes() == bytes(range(256)) * 100
    assert sorted(path.name for path in (tmp_path / "there").iterdir()) == ["rows", "wheel.whl"]


def test_a_portion_that_is_missing_or_damaged_is_named(program, tmp_path):
    carry = program("carry")
    (tmp_path / "rows").write_bytes(b"x" * 30_000)
    _, second, *_ = carry.pack(tmp_path / "parts", [tmp_path / "rows"], most=0.01)
    (part,) = second.glob("part-*")
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"?")
    with pytest.raises(SystemExit, match=r"are not what was packed\. Bring them again\."):
        carry.unpack(tmp_path / "parts", tmp_path / "there")
    part.unlink()
    with pytest.raises(SystemExit, match=rf"lacks {part.name}\. Bring them too\."):
        carry.unpack(tmp_path / "parts", tmp_path / "there")
    with pytest.raises(SystemExit, match="should hold the portions of one archive; got those of 0"):
        carry.unpack(tmp_path / "there", tmp_path / "elsewhere")


def test_the_quartiles_of_a_ratio_lie_within_its_rounds(program):
    program("train_step")
    common = importlib.import_module("common")
    assert common.ratio([1, 9], [1, 1]) == {"median": 5, "low": 1, "high": 9}  # exclusive quartiles: -1 and 11
    assert common.ratio([2], [1]) == {"median": 2, "low": 2, "high": 2}
    assert common.ratio([1, 2, 3, 4, 5], [1] * 5) == {"median": 3, "low": 1.5, "high": 4.5}


@pytest.mark.sweep
def test_what_a_gpu_is_for_runs_in_one_script_and_leaves_its_files(model, program, tmp_path):
    """On a processor, with a tiny model and sample rows: every part but the long trainings, which have their own."""
    (tmp_path / "rows").write_text("any file")
    program("carry").pack(tmp_path / "parts", [tmp_path / "rows"], 1)
    program("carry").unpack(tmp_path / "parts", tmp_path / "carried")
    command = [
        "bash",
        str(BENCHMARKS / "gpu.sh"),
        str(tmp_path / "carried"),
        str(tmp_path / "results"),
        "300",
        sys.executable,
    ]
    told = {"CARD": "--quick", "LONG": "", "BACKBONE": str(model)}
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, check=True)
    names = ("tests", "train_step", "distillation_step", "scoring", "adaptation")
    assert [line.partition(" after")[0] for line in done.stdout.splitlines()[:5]] == [
        f"{n}: ended with 0" for n in names
    ]
    for name in names[1:]:
        assert json.loads((tmp_path / "results" / f"{name}.json").read_text())["benchmark"] == name


@pytest.mark.slow
@pytest.mark.embedded
def test_an_instruction_is_compared_with_the_prompt_that_learnt_from_it(model, tmp_path):
    instruction = BENCHMARKS.parent / "recipes" / "instruction" / "question-types.txt"
    command = [sys.executable, str(BENCHMARKS / "instruction.py"), "teams", str(instruction), "--backbone", str(model),
               "--rows", "40", "--steps", "2", "--length", "3", "--out", str(tmp_path / "run")]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["instruction_tokens"] >= 300, "the issue of instructions is that they are long"
    assert (result["soft_tokens"], result["rows_learnt_from"], result["rows_held_out"]) == (3, 28, 8)
    assert all(0 <= result[name] <= 100 for name in ("same_answer", "teacher", "student", "bare", "commonest"))
    assert result["teacher_ms"] > result["student_ms"] > 0
    assert {"commit", "processor", "threads", "versions", "date"} <= set(result)
