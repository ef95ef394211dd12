"""The multitask prompt from which an adaptation starts where no other is named."""

from mptune.config import BackboneConfig
from mptune.errors import UsageError
from mptune.prompts.stored import shipped_prompts, stored_prompt


def shipped_for(backbone: str | None = None) -> str:
    """Return the name of the prompt that comes with the package for a backbone; the embedded one where none is named.

    Raises:
        UsageError: none does.
    """
    wanted = backbone or BackboneConfig().name
    for name in shipped_prompts():
        if stored_prompt(name).card.backbone == wanted:
            return name
    raise UsageError(
        f"no multitask prompt comes with the package for {wanted}; give --from PROMPT. `mptune teach` and "
        "`mptune distill` make one, from source tasks like those of `mptune prompts`"
    )
