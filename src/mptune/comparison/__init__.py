"""Multitask prompt tuning beside other methods: recipes, runs, results, reports."""
