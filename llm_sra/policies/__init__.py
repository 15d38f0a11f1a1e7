"""What can sit in a seat: a model that an engine runs, a pure function of text, or one of these perturbed.

This package does not play, generate or score: `playing` asks policies for replies and engines for tokens.
"""

from llm_sra.policies.base import (
    BatchPolicy,
    EnginePolicy,
    Match,
    Place,
    PlacedPolicy,
    Policy,
    PolicyError,
    TextPolicy,
    UnavailableError,
    Wrapper,
    decoded,
    innermost,
    speaker,
)
from llm_sra.policies.chat_client import ChatClient
from llm_sra.policies.endpoint import Endpoint
from llm_sra.policies.perturbed import Perturbed
from llm_sra.policies.recorded import Recorded
from llm_sra.policies.replayed import Replayed
from llm_sra.policies.scripted import Scripted

__all__ = [
    "BatchPolicy",
    "ChatClient",
    "Endpoint",
    "EnginePolicy",
    "Match",
    "Perturbed",
    "Place",
    "PlacedPolicy",
    "Policy",
    "PolicyError",
    "Recorded",
    "Replayed",
    "Scripted",
    "TextPolicy",
    "UnavailableError",
    "Wrapper",
    "decoded",
    "innermost",
    "speaker",
]
