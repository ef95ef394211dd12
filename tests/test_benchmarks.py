"""The benchmarks run as a user runs them, on a tiny model, and end in one JSON object with the keys they promise."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
        assert 0 < result["shapes"][0]["share_of_floor"] < 1
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


def test_graphs_are_refused_in_one_line_where_there_is_no_gpu(program, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as refused:
        program("cuda_graphs", "--quick").main()
    said = "cuda_graphs needs a GPU of NVIDIA's: CUDA records its graphs there, and none was found."
    assert refused.value.code == said  # which Python prints, and ends with 1


@pytest.mark.slow
@pytest.mark.embedded
def test_graphs_are_compared_step_by_step_with_what_they_replay(model, program, monkeypatch):
    # Without a GPU nothing is recorded: the "graph" is the model itself, and all else is what runs on one.
    cuda_graphs = program("cuda_graphs")
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda passes, sample, allow_unused_input: passes)
    found = cuda_graphs.compare(str(model), 2, 3, 2, None)
    assert found["loss_differs_by"] == found["gradient_differs_by"] == 0
    assert found["padded_to"] % 32 == 0
    assert 0 < found["eager_vs_graphed"]["low"] <= found["eager_vs_graphed"]["high"]


def test_the_quartiles_of_a_ratio_lie_within_its_rounds(program):
    program("train_step")
    common = importlib.import_module("common")
    assert common.ratio([1, 9], [1, 1]) == {"median": 5, "low": 1, "high": 9}  # exclusive quartiles: -1 and 11
    assert common.ratio([2], [1]) == {"median": 2, "low": 2, "high": 2}
    assert common.ratio([1, 2, 3, 4, 5], [1] * 5) == {"median": 3, "low": 1.5, "high": 4.5}
