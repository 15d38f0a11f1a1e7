"""What is concluded from an evaluation, and shown: statistics, tables, pictures, the report, and the shipped rosters.

`llm_sra.evaluate` plays and `llm_sra.evaluation.results` reads what it wrote. From there: `stats` computes, `groups`
sorts runs by setting and seed, `contributions` says what each agent adds to its team, `oracle` compares with exact
equilibria. `table`, `cross_play`, `plots` and `games_plot` draw, `summary` shows one evaluation, and `report` writes a
page on several runs.
"""
