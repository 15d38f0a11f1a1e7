"""What training cost elsewhere: tasks of lm-eval on each agent alone, and on its base model.

- `runner` joins the steps: tasks, models, what is missing, `single.json`.
- `tasks` finds and loads lm-eval's tasks, and says what a task would execute.
- `measured` runs lm-eval on one model and one task.
- `results` compares, writes and reads.

https://github.com/EleutherAI/lm-evaluation-harness (the extra `lm-eval`)
"""
