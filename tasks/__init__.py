"""Shared text tasks that ship with the project, one package each. `starting_model` makes their models."""

LLM_SRA = True  # tells this package from another `tasks` that Python may find first
