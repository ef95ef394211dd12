"""A folder of results: the names of its files, and of the runs in them. What fills it and what reads it share these."""

RESULTS = "results.jsonl"  # a line for each run and task
TABLE = "results.md"
RECIPE = "recipe.json"
SIMILARITY = "similarity.json"  # cosines between the tasks' prompts
SOURCES = "sources.jsonl"  # a line for each teacher and multitask prompt that runs began with
MULTITASK = "multitask"  # folder of the multitask prompt by the recipe's own settings; others have a hash behind it
TEACHERS = "teachers"  # folder of its teachers, likewise

FROM = "from:"  # and a source task: its own prompt, unadapted, on a target; `from-sources` of a recipe stands for these
