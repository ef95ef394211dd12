"""The frozen backbone: loaded, read with prompts in front, and asked for answers. Knows nothing of what learns."""
