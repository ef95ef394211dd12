"""What multitask prompts are compared with: one module an idea, trained by the loop of the stages.

Prompt tuning is `stages.teachers`, and SPoT is `stages.adaptation` from one teacher; neither needs code of its own.
"""
