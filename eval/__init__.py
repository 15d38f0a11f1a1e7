"""Evaluation with strangers, on top of `llm_sra.evaluate`: the cross-play program, statistics, tables and pictures.

`crossplay` is the program; `results` reads what an evaluation wrote, `settings` in what runs differ; `stats` computes;
`table`, `matrix` and `plots` show.
"""
