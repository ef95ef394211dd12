"""A labelling tool's part: a project of texts, whose backend is asked for suggestions and told of labels."""

import itertools

import httpx

CHOICES = ["no", "yes"]


def label_config(choices=CHOICES, field="text", more=""):
    """A project's XML, as the tool's own templates have it."""
    offered = "".join(f'<Choice value="{each}"/>' for each in choices)
    return (
        f'<View><Header value="Which?"/><Text name="shown" value="${field}"/>{more}'
        f'<Choices name="mood" toName="shown" choice="single" showInline="true">{offered}</Choices></View>'
    )


class LabelStudio:
    """One project of the tool, whose backend lies at an address."""

    def __init__(self, backend, texts=(), config=None, key=None, field="text"):
        self.config = label_config(field=field) if config is None else config
        self.field = field
        self.tasks = [{"id": n, "data": {field: text, "secret": "of nobody's business"}, "overlap": 1}
                      for n, text in enumerate(texts, start=1)]  # fmt: skip
        self._annotations = itertools.count(1)
        # The tool joins the names of routes to the backend's address behind a slash.
        self.client = httpx.Client(base_url=backend.rstrip("/") + "/", timeout=30, auth=("tool", key) if key else None)

    def ask(self, route, body=None, method="POST"):
        """Status and body of a route."""
        answer = self.client.request(method, route, json=body)
        return answer.status_code, answer.json()

    def connect(self):
        """What a person's press on "add model" does; the version that answers."""
        status, health = self.ask("health", method="GET")
        assert (status, health["status"]) == (200, "UP"), health
        status, told = self.ask("setup", {"project": "7.1700000000", "schema": self.config, "hostname": "http://tool",
                                          "access_token": "a token", "extra_params": {"a": 1}})  # fmt: skip
        assert status == 200, told
        return told["model_version"]

    def predict(self, tasks=None):
        """Status and body of suggestions for texts."""
        return self.ask("predict", {
            "tasks": self.tasks if tasks is None else tasks, "model_version": "any", "project": "7.1700000000",
            "label_config": self.config, "params": {"login": None, "password": None, "context": None},
        })  # fmt: skip

    def least_sure_first(self):
        """The texts by ascending scores of their suggestions, as the tool orders them."""
        _, body = self.predict()
        scored = sorted(zip(self.tasks, body["results"], strict=True), key=lambda each: each[1]["score"])
        return [task["data"][self.field] for task, _ in scored]

    def tell(self, action, **payload):
        """Status and body of a webhook."""
        project = {"id": 7, "title": "moods", "label_config": self.config, "created_at": "2026-01-01T00:00:00Z"}
        return self.ask("webhook", {"action": action, "project": project, **payload})

    def annotation(self, choices, number=None, **more):
        """What somebody chose, as the tool has it."""
        region = {"id": "x1", "type": "choices", "origin": "manual", "from_name": "mood", "to_name": "shown",
                  "value": {"choices": choices}}  # fmt: skip
        number = next(self._annotations) if number is None else number
        return {"id": number, "result": [region], "was_cancelled": False, "lead_time": 1.5, "ground_truth": False,
                "completed_by": 1, "task": 1, **more}  # fmt: skip

    def label(self, task, *choices, number=None, action="ANNOTATION_CREATED", **more):
        """A person labels a text; what the backend says."""
        status, body = self.tell(action, task=task, annotation=self.annotation(list(choices), number, **more))
        assert status == 201, body
        return body

    def delete(self, *numbers):
        """A person deletes annotations."""
        status, body = self.tell("ANNOTATIONS_DELETED", annotations=[{"id": number} for number in numbers])
        assert status == 201, body
        return body

    def train(self):
        """A person presses "start training"."""
        status, body = self.tell("START_TRAINING")
        assert status == 201, body
        return body
