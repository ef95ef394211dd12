"""Answers to the rows of tasks, and their scores."""
