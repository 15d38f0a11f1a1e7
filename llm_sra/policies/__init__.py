"""What can sit in a seat: a policy is either a name that an engine understands, or a pure function of text.

This package does not play, generate or score: `play` asks policies for replies and engines for tokens.
"""

from llm_sra.policies.base import EnginePolicy, Match, Policy, PolicyError, TextPolicy
from llm_sra.policies.scripted import Scripted

__all__ = ["EnginePolicy", "Match", "Policy", "PolicyError", "Scripted", "TextPolicy"]
