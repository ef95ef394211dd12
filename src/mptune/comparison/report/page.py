"""Results as one HTML page: the verdict, what was run, and the sections. Pure: same results, same bytes.

The one file that touches jinja2, which escapes every text.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mptune.comparison.intervals import Interval
from mptune.comparison.report import findings, means, sections
from mptune.comparison.report.advice import simple_rivals_ahead
from mptune.comparison.report.choosing import per_class, recommended
from mptune.comparison.report.costs import against_parameters, against_seconds
from mptune.comparison.report.findings import Gap, Verdict
from mptune.comparison.report.phrases import (
    at_shots,
    counted,
    distinct,
    ends_of,
    listed,
    number,
    shots_text,
    signed,
    spread,
)
from mptune.comparison.report.reading import MPT, Results, names
from mptune.errors import MissingExtraError

try:
    from jinja2 import Environment, PackageLoader, StrictUndefined
except ImportError:
    raise MissingExtraError("`mptune report`", "report") from None


@dataclass(frozen=True)
class Claim:
    """The verdict on one number of shots: a headline and what it rests on."""

    headline: str
    grounds: str


def page(results: Results, published: Sequence[Mapping[str, Any]]) -> str:
    """Return the report as one HTML page that needs nothing else.

    Args:
        published: the tables of published.yaml.
    """
    parts = [
        sections.scores(results),
        recommended(results),
        per_class(results),
        sections.published_tables(results, published),
        against_parameters(results),
        against_seconds(results),
        sections.few_shot_curves(results),
        sections.learning_curves(results),
        sections.similarity(results),
        sections.alarms(results),
        sections.made(results),
    ]
    environment = Environment(
        loader=PackageLoader("mptune.comparison.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template("report.html").render(
        name=results.name, claims=claims(results), facts=_facts(results), sections=[part for part in parts if part]
    )


def claims(results: Results) -> list[Claim]:
    """Return the verdict: does MPT lead every other prompt-based method, and its variants, for each number of shots?"""
    judged: list[Claim] = []
    for shots in results.shots:
        verdict, variants = findings.verdict(results, shots), findings.variants(results, shots)
        if verdict and (verdict.gaps or not variants):  # an ablation has no rivals, and needs none
            judged.append(_claim(verdict, simple_rivals_ahead(results, shots)))
        if variants:
            judged.append(_claim_of_variants(variants, shots))
    return judged or [Claim("No verdict: the results hold no run of mpt.", "")]


def _claim(verdict: Verdict, ahead: Sequence[Gap]) -> Claim:
    """Return the verdict; where simple rivals are above MPT, it begins with them.

    Args:
        ahead: MPT against each simple rival that is above it.
    """
    claim = _against_prompts(verdict)
    if not ahead:
        return claim
    named = "; ".join(f"{gap.other} by {number(-gap.mean)}" for gap in ahead)
    simple = f"Above MPT {at_shots(verdict.shots)}, at a fraction of its cost: {named}."
    return Claim(f"{simple} {claim.headline}", claim.grounds)


def _against_prompts(verdict: Verdict) -> Claim:
    at = at_shots(verdict.shots)
    absent = f" Not run: {listed(verdict.absent)}." if verdict.absent else ""
    if not verdict.gaps:
        return Claim(f"No verdict {at}: no other prompt-based method was run.", absent.strip())
    every = "every prompt-based method" + (" that was run" if verdict.absent else "")
    if verdict.leads_all:
        headline = f"MPT leads {every} {at}."
    elif any(gap.leads for gap in verdict.gaps):
        headline = f"MPT does not lead {every} {at}."
    else:
        headline = f"MPT leads no prompt-based method {at}."
    kinds = {
        "MPT leads": [g for g in verdict.gaps if g.leads],
        "It is above, but an interval reaches zero": [g for g in verdict.gaps if g.mean > 0 and not g.leads],
        "It does not lead": [g for g in verdict.gaps if g.mean <= 0],
    }
    count = len(verdict.tasks)
    sentences = [
        f"{begins}: {'; '.join(_against(g, count) for g in group)}." for begins, group in kinds.items() if group
    ]
    over = counted(count, "target task")
    if verdict.score is None:  # seeds differ from task to task
        return Claim(headline, " ".join(sentences) + absent)
    over += f" and {counted(verdict.score.count, 'seed')}"
    mean = f"Its mean over {over} is {number(verdict.score.mean)}{spread(verdict.score, ' ± ')}."
    return Claim(headline, " ".join([mean, *sentences]) + absent)


def _claim_of_variants(ranked: Sequence[tuple[Interval, Gap | None]], shots: int | None) -> Claim:
    """Return what the means of MPT and its variants show, and their order."""
    gaps = [gap for _, gap in ranked if gap]
    leads, trails = sum(gap.leads for gap in gaps), sum(gap.trails for gap in gaps)
    at, all_of_them = at_shots(shots), counted(len(gaps), "variant")
    if leads == len(gaps):
        headline = f"MPT leads its {all_of_them} {at}."
    elif not leads and not trails:
        headline = f"The results do not tell MPT from its {all_of_them} {at}."
    else:
        headline = f"Of its {all_of_them} MPT leads {leads} and trails {trails} {at}."
    tasks = max(len(gap.tasks) for gap in gaps)
    order = [f"{gap.other if gap else MPT} {number(mean.mean)}{spread(mean, ' ± ')}" for mean, gap in ranked]
    differences = "; ".join(_against(gap, tasks) for gap in gaps)
    return Claim(
        headline,
        f"In order of the mean over {counted(tasks, 'target task')}: {listed(order)}. MPT minus {differences}.",
    )


def _against(gap: Gap, tasks: int) -> str:
    """Return ``spot +3.1 (over rows +1.9 to +4.3, over seeds +0.4 to +5.8)``."""
    parts = [f"over rows {ends_of(gap.over_rows)}"] if gap.over_rows else []
    parts += [f"over seeds {ends_of(gap.over_seeds)}"] if gap.over_seeds.count > 1 else []
    parts += [f"over tasks {ends_of(gap.over_tasks)}"] if gap.tells_of_tasks else []
    parts += [f"on {len(gap.tasks)} of {tasks} tasks"] if len(gap.tasks) < tasks else []
    return f"{gap.other} {signed(gap.mean)} ({', '.join(parts) or 'one seed, no interval'})"


def _facts(results: Results) -> list[tuple[str, str]]:
    """Return what was run: from the recipe, else from the lines."""
    backbone = results.recipe.get("backbone")
    model = [str(v) for k in ("name", "dtype") if isinstance(backbone, dict) and (v := backbone.get(k))]
    seeds = {line.seed for line in results.lines}
    methods = means.compared(results)
    facts = {
        "Backbone": ", ".join(model),
        "Source tasks": ", ".join(names(results.recipe.get("sources"))),
        "Target tasks": ", ".join(results.tasks),
        "Methods": f"{len(methods)}: {', '.join(methods)}",
        "Target examples": ", ".join(shots_text(k) for k in results.shots),
        "Seeds": str(len(seeds)),
        "Runs": f"{len(results.lines):,}",
        "Commit": distinct(line.commit for line in results.lines),
        "Versions": distinct(", ".join(f"{k} {v}" for k, v in line.versions.items() if v) for line in results.lines),
        "Numbers in": distinct(line.dtype for line in results.lines),
        "Machine": distinct(line.machine for line in results.lines),
    }
    return [(name, text) for name, text in facts.items() if text]
