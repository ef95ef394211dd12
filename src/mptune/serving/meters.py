"""What a server counts, for Prometheus; of ten thousand tasks the first hundred have a line of their own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from mptune.serving.engine import Engine

MOST_TASKS = 100
OTHER = "(other)"
LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meters:
    """The counters of one server."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, engine: Engine) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter("mptune_requests", "Requests, by route and status.", ["route", "status"],
                                registry=self._registry)  # fmt: skip
        self.seconds = Histogram("mptune_request_seconds", "Seconds of a request.", ["route"], buckets=LATENCIES,
                                 registry=self._registry)  # fmt: skip
        self._rows = Counter("mptune_rows", "Rows answered, by task.", ["task"], registry=self._registry)
        powers = [2.0**n for n in range(13)]
        rows = Histogram("mptune_batch_rows", "Rows of a batch.", buckets=powers, registry=self._registry)
        tokens = Histogram("mptune_batch_tokens", "Soft tokens and tokens of a batch.", buckets=powers,
                           registry=self._registry)  # fmt: skip
        took = Histogram("mptune_batch_seconds", "Seconds of a batch.", buckets=LATENCIES, registry=self._registry)
        waiting = Gauge("mptune_queue_rows", "Rows that wait.", registry=self._registry)
        waiting.set_function(lambda: engine.waiting)
        writing = Gauge("mptune_texts", "Texts that are being written.", registry=self._registry)
        writing.set_function(lambda: engine.writing)
        self._known: set[str] = set()

        def count(batch_rows: int, batch_tokens: int, seconds: float) -> None:
            rows.observe(batch_rows)
            tokens.observe(batch_tokens)
            took.observe(seconds)

        engine.batches = count

    def answered(self, task: str, rows: int) -> None:
        """Count rows of a task."""
        if task not in self._known and len(self._known) < MOST_TASKS:
            self._known.add(task)
        self._rows.labels(task if task in self._known else OTHER).inc(rows)

    def page(self) -> bytes:
        """Return all of it, as Prometheus reads it."""
        return generate_latest(self._registry)
