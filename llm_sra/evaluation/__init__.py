"""Evaluation: plan who meets whom, play what is missing, count and write.

- `runner` joins the steps, from `options` and `settings`: what is asked, and what all episodes share.
- `matches` and `plan`: who meets whom, and the keys of the episodes.
- `play_missing` and `store`: play, and keep.
- `records` and `results`: count, write and read.
- `divergence` measures partners; `development` plays agents in training.

`llm_sra.partners` reads rosters and loads policies; `llm_sra.episodes` is the form of an episode on disk. Statistics,
tables and pictures are `eval`'s.
"""
