"""The launchable training program, the command line, and YAML recipes per model, task and arm."""
