"""The method, in order: teachers, distillation, adaptation. None imports another; they meet at prompts."""
