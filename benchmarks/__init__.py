"""What is measured about the project, and the commands that measure it."""
