"""Shared text tasks that ship with the project: one package each, named by its folder."""

LLM_SRA = True  # tells this package from another `tasks` that Python may find first
