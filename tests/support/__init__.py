"""What several tests share: tiny real models, toy tasks, an example of results."""
