"""Evaluation: who meets whom, playing what is missing, the store, and the results.

Statistics over runs, tables and pictures are `eval`'s.
"""
