"""Comparisons: trainings by setting and seed, played with the same partners and with each other, and reported.

`cells` says which trainings there are and what state they are in, `training` runs those that are missing, `evaluating`
plays and reports, `printing` writes the single commands, `ending` is what the terminal shows last. `responding` trains
best responses to a roster's partners in the same way.
"""
