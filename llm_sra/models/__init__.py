"""Base models: loading, LoRA adapters on one base, chat templates. Nothing is generated or trained here."""
