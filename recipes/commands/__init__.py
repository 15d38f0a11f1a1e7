"""The commands of `llm-sra`, one file each."""
