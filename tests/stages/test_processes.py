"""Several processes that train one prompt, as torchrun and `accelerate launch` start them."""

import json
import subprocess
import sys

import pytest

from mptune.comparison.bench import run_recipe
from mptune.errors import UsageError
from mptune.prompts.prompt import MultitaskPrompt
from mptune.stages.run import Run, first_process
from support.models import saved
from support.recipes import loaded
from support.toys import task_yaml
from support.trained import trained_backbone

STAGES = """
teach --tasks mood.yaml,speed.yaml --out {out}/teachers --backbone model --set teach.prompt_length=4
distill --teachers {out}/teachers --out {out}/source --set distill.hidden_weight=0
adapt --from {out}/source --task colour.yaml --out {out}/target
"""
COMMANDS = """
import sys
import time
from mptune.cli import main
from mptune.prompts.prompt import MultitaskPrompt
at_once = MultitaskPrompt.write_files
def slowly(prompt, folder):  # whoever does not wait for the end of a stage finds no prompt for the next
    time.sleep(1)
    at_once(prompt, folder)
MultitaskPrompt.write_files = slowly
for line in open("commands").read().splitlines():
    sys.argv = ["mptune", *line.split()]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
"""


def stages(folder, out, launcher):
    """Run the stages by one or several processes; return prompts, a teacher's metrics, and what was said."""
    lines = [line.format(out=out) for line in STAGES.split("\n") if line]
    few = "--set {0}.steps=4 --set {0}.validate_every=2 --set {0}.batch_size=8"
    (folder / "commands").write_text("\n".join(f"{line} {few.format(line.split()[0])}" for line in lines))
    done = subprocess.run(
        [sys.executable, *launcher, "commands.py"], cwd=folder, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    names = ("teachers/mood", "teachers/speed", "source", "target")
    prompts = [MultitaskPrompt.from_pretrained(folder / out / name).collapse() for name in names]
    metrics = [json.loads(line) for line in (folder / out / names[0] / "metrics.jsonl").read_text().splitlines()]
    assert not list((folder / out).rglob("*.part*"))
    return prompts, metrics, done.stdout + done.stderr


@pytest.mark.slow
def test_two_processes_make_of_every_stage_what_one_makes(tmp_path):
    saved(trained_backbone(), tmp_path / "model")
    for name, good, bad in (("mood", "good", "awful"), ("speed", "fast", "slow"), ("colour", "blue", "red")):
        task_yaml(tmp_path, name, good, bad)
    (tmp_path / "commands.py").write_text(COMMANDS)
    one, told, _ = stages(tmp_path, "one", [])
    two, told_by_two, said = stages(
        tmp_path, "two", ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    )
    assert said.count("two/teachers/mood: mood accuracy") == 1
    assert [line["step"] for line in told_by_two] == [line["step"] for line in told] == [0, 2, 2, 4, 4]
    for line, other in zip(told, told_by_two, strict=True):
        assert other == pytest.approx(line, rel=1e-4)  # the loss too is that of all rows
    # The distance of hidden states is left out: a mean of two halves is not the mean where texts differ in length.
    for alone, together in zip(one, two, strict=True):
        assert (alone - together).norm() < 1e-5 * alone.norm()


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert first_process()  # alone, whatever number a cluster gave it
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = Run(tmp_path / "out", {"seed": 0})
    run.log({"step": 0})
    run.save_state({}, {})
    run.forget_after(0)
    run.discard()
    run.close()
    assert run.metrics() == []
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_by_several_processes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError) as error:
        run_recipe(loaded(tmp_path))
    assert str(error.value) == "a comparison runs in one process; start it without torchrun or accelerate launch"
    assert not (tmp_path / "out").exists()
