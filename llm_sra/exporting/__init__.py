"""Export of trained policies: PEFT adapters and merged models, their model cards, and the hub."""
