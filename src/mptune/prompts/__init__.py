"""The method's mathematics, and prompts as artifacts: cards, folders, PEFT. Knows nothing that trains."""
