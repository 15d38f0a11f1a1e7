"""What a task promises: every call checked as it is made, and a check of the first episode with stand-in replies."""
