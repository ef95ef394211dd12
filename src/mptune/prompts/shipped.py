"""The multitask prompts that come with the package: what an adaptation starts from where no other is named."""

from importlib.resources import files
from pathlib import Path

from mptune.config import BackboneConfig
from mptune.errors import UsageError
from mptune.prompts.folder import PROMPT_FILE
from mptune.prompts.prompt import MultitaskPrompt


def shipped_prompts() -> dict[str, Path]:
    """Return the folders of the prompts that come with the package, by name."""
    folder = Path(str(files("mptune"))) / "trained"
    return {each.name: each for each in sorted(folder.iterdir()) if (each / PROMPT_FILE).is_file()}


def shipped_for(backbone: str | None = None) -> Path:
    """Return the folder of the prompt that comes for a backbone; the embedded one where none is named.

    Raises:
        UsageError: none does.
    """
    name = backbone or BackboneConfig().name
    for folder in shipped_prompts().values():
        if MultitaskPrompt.from_pretrained(folder).card.backbone == name:
            return folder
    raise UsageError(
        f"no multitask prompt comes with the package for {name}; give --from PROMPT. `mptune teach` and "
        "`mptune distill` make one, from source tasks like those of `mptune prompts`"
    )
