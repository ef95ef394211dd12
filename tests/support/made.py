"""A folder in which every stage has run once, for what is asked of commands."""

from mptune.config import AdaptConfig, DistillConfig, TeachConfig
from mptune.model.loading import load_backbone
from mptune.stages.adaptation import adapt
from mptune.stages.distillation import distill
from mptune.stages.teachers import teach
from mptune.tasks.registry import get_task
from support.models import make_backbone
from support.toys import toy_rows, write_rows

HUB_TASK = """
name: {name}
dataset: {{hub: {{path: nobody/nothing}}}}
template: "{name} text: {{text}}"
verbalizer: {{0: no, 1: yes}}
"""


def save_model(folder, seed):
    backbone = make_backbone("t5", seed)
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)


def hub_task(folder, name, good, bad):
    """A task of the hub, which no test can reach, with its rows in ``folder / rows``."""
    (folder / "rows").mkdir(exist_ok=True)
    for split, start in (("train", 0), ("validation", 100), ("test", 200)):
        write_rows(folder / "rows" / f"{name}.{split}.jsonl", toy_rows(good, bad, 16, start))
    (folder / f"{name}.yaml").write_text(HUB_TASK.format(name=name))
    return get_task(str(folder / f"{name}.yaml"))


def make_all(folder):
    """Two models, two tasks of the hub with local rows, teachers, a multitask prompt and a target prompt."""
    save_model(folder / "model", seed=0)
    save_model(folder / "other", seed=1)
    tasks = [hub_task(folder, "mood", "good", "awful"), hub_task(folder, "speed", "fast", "slow")]
    target = hub_task(folder, "colour", "blue", "red")
    backbone, rows = load_backbone(str(folder / "model")), folder / "rows"
    few = TeachConfig(steps=1, prompt_length=4)
    teachers = [teach(t, backbone, few, out=folder / "teachers" / t.name, data_dir=rows) for t in tasks]
    source = distill(tasks, teachers, backbone, DistillConfig(steps=1), out=folder / "multitask", data_dir=rows)
    adapt(source, target, backbone, AdaptConfig(steps=1), out=folder / "colour", data_dir=rows)
    return folder
