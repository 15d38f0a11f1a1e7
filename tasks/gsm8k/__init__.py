"""GSM8K: two seats relay one solution of a grade-school mathematics problem in turns."""

from tasks.gsm8k.task import GSM8K

__all__ = ["GSM8K"]
