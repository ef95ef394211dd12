"""A folder of prompts that is looked at again and again while a server runs: what comes is served, what goes is not."""

import logging
import threading

from mptune.errors import MptuneError
from mptune.serving.store import Store

logger = logging.getLogger(__name__)


class FolderWatch:
    """Looks at a store's folder every so many seconds, on a thread of its own."""

    def __init__(self, store: Store, seconds: float) -> None:
        self._store, self._seconds = store, seconds
        self._told = dict(store.refused)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._ends.set()
        self._thread.join()

    def look(self) -> None:
        """Look once, and log what has changed; what is refused is said once for as long as it stays so."""
        try:
            came, went = self._store.look()
            refused = self._store.refused
        except MptuneError as error:  # the folder itself: what is served stays so
            came, went, refused = [], [], {"the folder of prompts": str(error)}
        for name in came:
            logger.warning("%s is served now, from %s", name, self._store.entry(name).version.folder)
        for name in went:
            logger.warning("%s is served no longer: its folder is gone", name)
        for folder, why in refused.items():
            if self._told.get(folder) != why:
                logger.warning("%s is not served: %s", folder, why)
        self._told = dict(refused)

    def _run(self) -> None:
        while not self._ends.wait(self._seconds):
            self.look()
