"""Prompts served by name from one frozen backbone, rows of any tasks in one batch."""
