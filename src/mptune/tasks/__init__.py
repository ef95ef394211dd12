"""What a task is, the tasks that come with the package, and their rows. Knows nothing of models."""
