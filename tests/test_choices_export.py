"""Agents whose replies are chosen from words: the card says how to ask them, and its example runs."""

import re
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support import make_run
from training_support import train_tiny

from llm_sra import export
from llm_sra.exporting.choices import measure
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.loading import load_model
from llm_sra.models.renderer import Renderer
from llm_sra.registry import find_model, load_task
from llm_sra.runs import Run, RunError
from llm_sra.trainer.loss import missing_probability


def test_the_cards_example_runs_and_the_mass_is_that_of_the_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "run", task="effort", base=Path(find_model("effort/player")))
    task = load_task("effort", None)
    seat = task.seats[0]
    out = export(run, seat, tmp_path / "out")
    printed = capsys.readouterr().out
    card = (out / "README.md").read_text()
    model_name, tokenizer = load_model(str(run.config["model_name_or_path"]))
    model = PeftModel.from_pretrained(model_name, str(out)).eval()
    renderer = Renderer.of(tokenizer, run.config)
    ids = list(renderer.single_tokens(task.choices))
    messages, ask = re.findall(r"```python\n((?:messages|inputs) = .*?)```", card, re.DOTALL)
    scope: dict[str, object] = {"model": model, "tokenizer": tokenizer}
    exec(messages + ask, scope)
    assert capsys.readouterr().out.strip() in task.choices
    assert scope["allowed"] == ids and all(f"`{word}`" in card for word in task.choices)
    assert f"allowed_token_ids={ids}" in card
    # The effort game shows every problem's prompt alike: the mean is the mass at that prompt.
    with torch.no_grad():
        probabilities = model(input_ids=scope["inputs"]["input_ids"]).logits[0, -1].softmax(-1)  # type: ignore[index]
    mass = float(re.findall(r"P\(choices\) is ([0-9.]+)", printed)[0])
    assert 0 < mass < 1
    assert mass == pytest.approx(float(probabilities[ids].sum()), abs=6e-4)


def test_an_agent_that_writes_freely_has_no_such_section(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    out = export(run, "first", tmp_path / "out")
    assert "allowed" not in (out / "README.md").read_text() and "P(choices)" not in capsys.readouterr().out


def test_what_the_words_lack_has_the_gradient_of_minus_log_p() -> None:
    logits = torch.tensor([1.0, 2.0, 3.0, 0.0], requires_grad=True)
    missing = missing_probability(logits, logits[[0, 2]])
    # P(choices) = (e + e^3) / (e + e^2 + e^3 + 1) = 22.8038 / 31.1929; -log of it is 0.3133
    assert missing.item() == pytest.approx(0.3133, abs=1e-4)
    missing.backward()
    # softmax over all, minus softmax over the words: 0.0871 - 0.1192, 0.2369, 0.6439 - 0.8808, 0.0321
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx([-0.0321, 0.2369, -0.2369, 0.0321], abs=1e-4)


def mass(run: Run) -> float:
    base, tokenizer = load_model(str(run.config["model_name_or_path"]))
    bank, seat = AdapterBank(base), next(iter(run.heroes))
    bank.load(run.adapters / run.heroes[seat], "hero")
    [found] = measure(load_task("effort", None), [seat], bank.model, Renderer.of(tokenizer, run.config))
    return found.mass


def test_choices_coef_makes_the_words_likelier(tmp_path: Path) -> None:
    flags = {"task": "effort", "model_name_or_path": "effort/player", "arm": "ippo", "max_steps": 5}
    plain = mass(train_tiny(tmp_path / "plain", **flags))
    raised = mass(train_tiny(tmp_path / "raised", **flags, choices_coef=1.0))
    assert raised > plain + 0.05


def test_choices_coef_is_refused_where_there_are_no_choices(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"choices_coef is 0\.5, but the replies of task worksheet are not chosen from"):
        train_tiny(tmp_path / "run", task="worksheet", choices_coef=0.5)
