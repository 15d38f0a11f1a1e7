"""Shared text tasks that ship with the project: one package each, named by its folder; `starting_model` is theirs."""

LLM_SRA = True  # tells this package from another `tasks` that Python may find first
