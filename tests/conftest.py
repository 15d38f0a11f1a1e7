"""What all tests share: nothing is fetched, one thread per process, and where the real data lies."""

import os

os.environ.update(
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    TRL_EXPERIMENTAL_SILENCE="1",
)

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_endpoint import FakeEndpoint

torch.set_num_threads(1)
_STATE = tempfile.TemporaryDirectory(prefix="llm-sra-state-")  # the key that marks runs as one's own
os.environ["XDG_STATE_HOME"] = _STATE.name

ROOT = Path(__file__).resolve().parent.parent
# Whose few tests take longest. They are handed out first, or one process would still be at them when all else is done.
LONGEST = ("test_oracle_ppo.py", "test_oracle.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files of `LONGEST` go first; the others keep their order."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session")
def gsm8k_folder() -> Path:
    """The folder of GSM8K's jsonl files: LLM_SRA_GSM8K, or shared/data/gsm8k beside the checkout."""
    folder = Path(os.environ.get("LLM_SRA_GSM8K", ROOT.parent / "shared" / "data" / "gsm8k"))
    if not any(folder.rglob("*.jsonl")):
        pytest.skip(f"no jsonl files of GSM8K in {folder}: name their folder in LLM_SRA_GSM8K")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, an endpoint is asked a second time after half a second."""
    monkeypatch.setattr("llm_sra.policies.chat_client.FIRST_PAUSE", 0.01)


@pytest.fixture
def server() -> Iterator[FakeEndpoint]:
    """An OpenAI-like server that fails as told."""
    with FakeEndpoint() as fake:
        yield fake
