"""Whether the hub of models and data sets answers: asked once, so that what is missing is said at once."""

import logging
from functools import cache

SECONDS = 2.0  # for one answer; its libraries would try for half a minute, for every file anew


@cache
def hub_answers() -> bool:
    """Return whether the hub can be reached; where not, its libraries read what they have kept, and ask nothing."""
    import huggingface_hub
    from huggingface_hub import constants

    logging.getLogger("huggingface_hub").handlers.clear()  # else its lines come twice, its own way and as ours
    if not constants.HF_HUB_OFFLINE:
        try:
            huggingface_hub.get_session().head(constants.ENDPOINT, timeout=SECONDS)
        except Exception:  # whatever its transport raises: no name, no route, no answer in time
            constants.HF_HUB_OFFLINE = True
    return not constants.HF_HUB_OFFLINE
