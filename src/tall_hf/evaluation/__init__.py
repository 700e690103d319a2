"""Evaluation: the missing-word task, the approaches to it, and what is made of their answers."""
