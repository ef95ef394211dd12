"""The OpenAPI document is true: what is asked by it, and what is asked against it, is answered as it says."""

from collections import Counter

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from support.labelstudio import label_config
from support.serving import MOOD, TASKS, prompts_folder, serving

EACH = 12  # requests of an operation that has a body, by its document and against it
CHECKS = (not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
          checks.response_headers_conformance, checks.response_schema_conformance, checks.negative_data_rejection,
          checks.unsupported_method)  # fmt: skip
SPARE = MOOD.model_copy(update={"name": "spare"})
# What the document calls a text or an object, and the server wants to know.
XML = label_config(["bad", "good"])
PATHS = {"name": ["mood", "pair"], "task": ["mood", "pair"], "alias": ["other"]}
FIELDS = {
    "model": ["mood", "pair", "free"], "folder": ["spare", "mood"], "schema": [XML], "label_config": [XML],
    "input": ["good", ["good", "bad"]], "prompt": ["good", ["good", "bad"]], "stream": [False, True], "max_tokens": [4],
    "max_completion_tokens": [4],
    "messages": [[{"role": "user", "content": "good"}]], "tasks": [[{"id": 1, "data": {"text": "good"}}]],
    "action": ["ANNOTATION_CREATED", "ANNOTATION_DELETED", "START_TRAINING", "PROJECT_UPDATED", "TASK_CREATED"],
    "annotation": [{"id": 1, "result": []}], "task": [{"data": {"text": "good"}}], "project": [{"label_config": XML}],
}  # fmt: skip


@pytest.fixture(scope="module")
def address(model, tmp_path_factory):
    """A server whose tasks may be lost."""
    folder = prompts_folder(tmp_path_factory.mktemp("openapi") / "prompts", model, [*TASKS, SPARE])
    with serving(folder, model, label="mood") as (address, _, _):
        yield address


@strategies.composite
def meant(draw, case):
    """A request by the document that also names what is there."""
    asked = draw(case)
    for place, known in ((asked.path_parameters, PATHS), (asked.body, FIELDS)):
        if isinstance(place, dict):
            for name in sorted(known.keys() & place.keys()):
                place[name] = draw(strategies.sampled_from(known[name]))
    if asked.method == "DELETE" and "name" in asked.path_parameters:
        asked.path_parameters["name"] = "spare"
    return asked


def ways(operation):
    """How an operation is asked; where there is no body, there is nothing that would be against its document."""
    by = operation.as_strategy(generation_mode=GenerationMode.POSITIVE)
    yield by
    yield meant(by)
    if operation.body:
        yield operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)


def answered(strategy):
    """Ask, look at what is answered, and return the statuses."""
    found = Counter()

    @hypothesis.settings(max_examples=EACH, derandomize=True, database=None, deadline=None,
                         suppress_health_check=list(hypothesis.HealthCheck))  # fmt: skip
    @hypothesis.given(case=strategy)
    def ask(case):
        found[case.call_and_validate(checks=CHECKS, timeout=20).status_code] += 1

    ask()
    return found


@pytest.mark.slow
def test_every_operation_answers_as_its_document_says(address):
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    asked = {}
    for each in schema.get_all_operations():
        operation = each.ok()
        asked[operation.label] = sum(map(answered, ways(operation)), Counter())
    assert sum(found.total() for found in asked.values()) > 500
    assert {label for label, found in asked.items() if not any(status < 300 for status in found)} == set()
    assert {status for found in asked.values() for status in found} <= {200, 201, 400, 404, 413, 422}
