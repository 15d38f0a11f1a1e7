"""The lines of a model card run as they stand: Python with transformers and PEFT, and vLLM's server."""

import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from support import make_run, qwen2_folder
from test_export_generation import base_with_taste

from llm_sra import export
from llm_sra.registry import find_model, load_task

HERE = "path/to/this/folder"


def card_of(folder: Path, base: Path) -> str:
    """An export's card, with real paths in the place of those that a reader fills in."""
    text = (folder / "README.md").read_text()
    assert HERE in text
    return text.replace(HERE, str(folder)).replace(f"path/to/{base.name}", str(base))


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", card, re.DOTALL)


def run_lines(card: str, *begin: str) -> dict[str, Any]:
    """The names that a card's blocks of Python define, those that begin so; as a reader runs them, one by one."""
    scope: dict[str, Any] = {}
    for start in begin:
        [block] = [block for block in blocks(card, "python") if block.startswith(start)]
        exec(block, scope)
    return scope


LOAD = "from "  # the blocks by how they begin
ASK = ("messages = ", LOAD, "inputs = ")


@pytest.mark.parametrize("merge", [False, True])
def test_the_lines_of_python_load_what_was_trained(merge: bool, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    card = card_of(export(run, "first", tmp_path / "out", merge=merge), qwen2_folder())
    scope = run_lines(card, LOAD)
    asked = scope["tokenizer"].apply_chat_template(
        [{"role": "user", "content": "word"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = torch.tensor([[5, 60, 7, 80]])
    with torch.no_grad():
        said = scope["model"].eval()(input_ids=ids).logits
        plain = run_lines(card_of(export(run, "second", tmp_path / "other"), qwen2_folder()), LOAD)
        assert (said - plain["model"].eval()(input_ids=ids).logits).abs().max() > 0.1  # another agent
    assert scope["model"].generate(**asked, max_new_tokens=4).shape[1] > asked["input_ids"].shape[1]


@pytest.mark.parametrize("merge", [False, True])
def test_the_lines_of_python_draw_as_the_training_did_and_not_by_the_makers_taste(merge: bool, tmp_path: Path) -> None:
    base = base_with_taste(tmp_path / "base")  # which does not sample at all
    card = card_of(export(make_run(tmp_path / "run", base=base), "first", tmp_path / "out", merge=merge), base)
    scope = run_lines(card, LOAD)
    model, tokenizer = scope["model"], scope["tokenizer"]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "word"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    torch.manual_seed(0)
    said = model.generate(**asked, max_new_tokens=1, num_return_sequences=2000)[:, -1].tolist()
    with torch.no_grad():
        chances = model(**asked).logits[0, -1].softmax(-1)
    likely = int(chances.argmax())
    # 2,000 draws: 4 standard deviations around what the whole distribution says, and more than 20 different tokens.
    share, expected = said.count(likely) / 2000, float(chances[likely])
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 2000) ** 0.5
    assert len(set(said)) > 20  # the makers' top_k
    assert "takes the place of the base model's own" in card


@pytest.mark.parametrize("merge", [False, True])
def test_the_lines_of_python_ask_what_the_example_shows(
    merge: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = card_of(export(make_run(tmp_path / "run"), "first", tmp_path / "out", merge=merge), qwen2_folder())
    capsys.readouterr()
    scope = run_lines(card, *ASK)
    [problem] = load_task("worksheet").problems("test", 1)
    assert scope["messages"] == [{"role": "user", "content": f"Q: {problem.id}"}]
    printed = capsys.readouterr().out.rstrip("\n")
    assert printed == scope["tokenizer"].decode(scope["reply"], skip_special_tokens=True).rstrip("\n")
    assert 0 < len(scope["reply"]) <= 24


@dataclass(frozen=True)
class Served:
    """A server that was started by a card's line.

    Attributes:
        card: Of the export.
        name: Of the model, as the line names it.
        url: Where it answers.
    """

    card: str
    name: str
    url: str

    def request(self) -> dict[str, Any]:
        """What the card's lines ask the server; they run, and print a reply."""
        card = self.card.replace("http://localhost:8000", self.url)
        found: dict[str, Any] = run_lines(card, "messages = ", "import httpx")["request"]
        return found

    def says(self, **body: Any) -> list[dict[str, Any]]:
        """The choices of an answer to a chat request."""
        answer = httpx.post(f"{self.url}/v1/chat/completions", json={"model": self.name, **body}, timeout=120)
        assert answer.is_success, answer.text
        choices: list[dict[str, Any]] = answer.json()["choices"]
        return choices


def started(card: str) -> tuple[str, str, subprocess.Popen[bytes]]:
    """The server of a card's line; the CPU build of vLLM lacks the command `vllm serve` and has its module alone."""
    [line] = [block.replace("\\\n", "") for block in blocks(card, "bash") if block.startswith("vllm ")]
    program, command, model, *options = shlex.split(line)
    assert (program, command) == ("vllm", "serve")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = ["--host", "127.0.0.1", "--port", str(port)]
    module = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", model]
    environment = {
        **os.environ, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    names = re.findall(r"--lora-modules ([\w-]+)=|--served-model-name ([\w-]+)", line)
    [name] = [one or other for one, other in names]
    return name, f"http://127.0.0.1:{port}", subprocess.Popen([*module, *options, *here], env=environment)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Served]]:
    """An adapter whose replies are chosen from words, and a merged model whose makers knew no end of turn."""
    folder = tmp_path_factory.mktemp("cards")
    player, taste = Path(find_model("effort/player")), base_with_taste(folder / "taste")
    chooses = make_run(folder / "effort", task="effort", base=player)
    cards = {
        "adapter": card_of(export(chooses, load_task("effort").seats[0], folder / "adapter"), player),
        "merged": card_of(export(make_run(folder / "run", base=taste), "first", folder / "merged", merge=True), taste),
    }
    running = {kind: started(card) for kind, card in cards.items()}
    try:
        for _, url, process in running.values():
            wait_for(url, process)
        yield {kind: Served(cards[kind], name, url) for kind, (name, url, _) in running.items()}
    finally:
        for _, _, process in running.values():
            process.terminate()
        for _, _, process in running.values():
            process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 400
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended: the card's line does not start one"
        try:
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise AssertionError("the server did not answer in 400 s")


@pytest.mark.slow  # two servers start for them
@pytest.mark.vllm
def test_an_adapter_that_vllm_serves_by_the_cards_line_says_its_words_as_the_card_asks(
    servers: dict[str, Served], capsys: pytest.CaptureFixture[str]
) -> None:
    served, words = servers["adapter"], load_task("effort").choices
    request = served.request()
    assert capsys.readouterr().out.strip() in words
    said = served.says(n=8, **request)
    assert {choice["message"]["content"] for choice in said} <= set(words) and len(said) == 8


@pytest.mark.slow  # two servers start for them
@pytest.mark.vllm
def test_a_merged_model_that_vllm_serves_by_the_cards_line_ends_its_turns(servers: dict[str, Served]) -> None:
    served = servers["merged"]
    asked = {"messages": [{"role": "user", "content": "word"}], "n": 30, "return_token_ids": True}
    fields = {key: value for key, value in served.request().items() if key not in ("model", "messages")}
    ends = set(fields["stop_token_ids"])
    ended = 0
    for body in ({"max_tokens": 40}, {**fields, "max_tokens": 40}):
        for choice in served.says(**asked, **body):
            *before, last = choice["token_ids"]
            assert not ends & set(before)
            ended += last in ends
    assert ended > 10, ended
