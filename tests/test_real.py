"""`make real` with tiny models in the real one's place: the cells, the page, the perplexities, the legal replies."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import make_bank, make_run, qwen2_folder, scramble

from benchmarks import legal, real, real_page
from benchmarks.perplexity import BASE, of_adapters, perplexity, read_text
from llm_sra.evaluation.records import EvaluatedEpisode, Record, Summary
from llm_sra.evaluation.results import write_results
from llm_sra.registry import find_model
from llm_sra.trainer.parse import parse
from recipes.comparing.cells import Cell
from recipes.comparing.whole import Comparison

PARTNERS = ("self-play", "lazy", "late")
SAID = {"ippo": "pass", "srpo": "fox | `cow`"}


def test_a_seed_is_trained_by_all_arms_before_the_next_one(tmp_path: Path) -> None:
    cells = real.comparison("effort", 2, "m", tmp_path).cells
    assert [cell.name for cell in cells] == [
        f"{arm}-seed{seed}" for seed in (1, 2) for arm in ("ippo", "srpo", "adversary")
    ]
    whole = real.comparison("wordlist", 1, "m", tmp_path)
    flags = {"seed": 1, "model_name_or_path": "m", "dtype": real.dtype_here()}
    assert whole.cells[1] == Cell("srpo-seed1", "wordlist/smollm2-135m/srpo", flags, "srpo")
    assert whole.played is not None and whole.played.cross_play and whole.played.roster


@pytest.mark.parametrize("task", real.ARMS)
def test_arms_differ_in_the_objective_alone(task: str, tmp_path: Path) -> None:
    first, *others = [parse(cell.recipe)[1].to_dict() for cell in real.comparison(task, 1, "m", tmp_path).cells]
    for other in others:
        differ = {key for key in first if first[key] != other[key]}
        assert differ <= {"arm", "tau", "output_dir"}  # pure adversaries have no tau


def test_the_model_itself_is_one_of_the_strangers(tmp_path: Path) -> None:
    text = real.write_strangers("wordlist", "runs/m", tmp_path).read_text()
    assert "policy: runs/m" in text and "name: saboteur" in text


@pytest.mark.slow
def test_all_of_it_runs_with_a_tiny_model_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = {"max_steps": 1, "num_generations": 4, "dtype": "float32", "save_strategy": "no"}
    whole = real.comparison

    def small(*how: object) -> Comparison:
        made = whole(*how)
        return replace(made, cells=[replace(cell, flags={**cell.flags, **tiny}) for cell in made.cells])

    monkeypatch.setattr(real, "comparison", small)
    asked = ["--out", str(tmp_path), "--model", find_model("effort/player"), "--seeds", "1", "--tasks", "effort"]
    asked += ["--problems", "1"]
    real.main(asked)
    page = (tmp_path / "real-model.md").read_text()
    assert (
        "| effort/ippo-seed1 | effort |" in page and "exact" in page and "| untrained |" in page and "## effort" in page
    )
    trained = (tmp_path / "effort" / "ippo-seed1" / "metrics.jsonl").stat().st_mtime_ns
    real.main(asked)
    assert (tmp_path / "effort" / "ippo-seed1" / "metrics.jsonl").stat().st_mtime_ns == trained
    assert (tmp_path / "real-model.md").read_text() == page


@pytest.fixture
def part(tmp_path: Path) -> real_page.Part:
    """IPPO's first seat rests with seed 1; its agent solves nothing beside `lazy` there."""
    records, episodes = [], []
    for arm in ("ippo", "srpo"):
        for seed in (1, 2):
            run = f"real/{arm}-seed{seed}"
            make_run(tmp_path / f"{arm}-seed{seed}", seed=seed)
            for seat in ("first", "second"):
                rests = (arm, seed, seat) == ("ippo", 1, "first")
                for partner in PARTNERS:
                    rate = 0.0 if rests and partner == "lazy" else 1.0
                    work = 0.2 if rests else 2.0
                    records.append(
                        Record(run, arm, seat, partner, "sampled", 1, rate, (0.0, 1.0), rate, rate, work, 1.0)
                    )
                    turns = [
                        {"seat": "first", "step": 0, "text": SAID[arm], "finish": "stop", "tokens": 1},
                        {"seat": "second", "step": 1, "text": "pass", "finish": "stop", "tokens": 1},
                    ]
                    whose = {"run": run, "arm": arm, "seat": seat, "partner": partner, "decoding": "sampled"}
                    episodes.append({**whose, "problem": "animals/1", "solved": rate > 0, "turns": turns})
    write_results(tmp_path / "eval", Summary(tuple(records), {"idle": "lazy"}), map(EvaluatedEpisode.read, episodes))
    names = [f"{arm}-seed{seed}" for seed in (1, 2) for arm in ("ippo", "srpo")]
    return real_page.Part("wordlist", tmp_path, names, "the tables")


def test_the_page_counts_seats_that_rest(part: real_page.Part) -> None:
    assert "- ippo: in 1 of 2 seeds\n- srpo: in 0 of 2 seeds" in real_page.resting(part)


def test_the_page_quotes_the_ippo_agent_that_did_worst_beside_who_rests_and_its_srpo_fellow(
    part: real_page.Part,
) -> None:
    text = real_page.quoted(part)
    assert "`first` of real/ippo-seed1" in text and "(0.00 of the problems)" in text
    assert "| 1 | agent | `pass` | `fox \\| 'cow'` |" in text  # neither ends the cell, nor the code
    assert "| 2 | lazy | `pass` | `pass` |" in text
    assert "IPPO: not solved; SRPO: solved" in text


def test_perplexities_are_read_once(part: real_page.Part, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def made_up(model: str, adapters: dict[str, Path], text: str) -> list[tuple[str, float]]:
        asked.append(list(adapters))
        return [(BASE, 20.0), *((name, 21.0) for name in adapters)]

    monkeypatch.setattr(real_page, "of_adapters", made_up)
    first = real_page.reading(part, "m")
    assert real_page.reading(part, "m") == first and len(asked) == 1
    assert "| untrained | 20.000 |" in first and re.search(
        r"\| ippo, mean of \d agents \| 21.000 \(21.000 to 21.000\) \|", first
    )


def test_a_perplexity_is_that_of_the_tokens_probabilities(tmp_path: Path) -> None:
    bank = make_bank(qwen2_folder())
    scramble(bank, "left", seed=1)
    bank.save(tmp_path)
    text = read_text()
    ids = torch.tensor([bank_tokens(text)[:40]])
    with torch.no_grad(), bank.using(None):
        logprobs = bank.model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        by_hand = math.exp(-float(logprobs.gather(1, ids[0, 1:, None]).mean()))
        assert perplexity(bank.model, ids) == pytest.approx(by_hand, rel=1e-5)
    found = dict(of_adapters(str(qwen2_folder()), {"one": tmp_path / "left"}, text, tokens=40))
    assert found[BASE] == pytest.approx(by_hand, rel=1e-4) and found["one"] != pytest.approx(by_hand, rel=1e-3)


def bank_tokens(text: str) -> list[int]:
    """Token ids of the tests' Qwen2."""
    from llm_sra.models.loading import load_tokenizer

    return list(load_tokenizer(str(qwen2_folder()))(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("task", "reply", "counts"),
    [
        ("worksheet", "3 + 2 = 5", True),
        ("worksheet", "five", False),
        ("wordlist", "pass", True),
        ("wordlist", "xyzzy", False),
        ("kitchen", "I go up", True),
        ("kitchen", "somewhere", False),
        ("tag", "Stay.", True),
        ("tag", "run", False),
        ("hanabi", "1. play 1", True),
        ("hanabi", "play 9", False),
        ("effort", "Work.", True),
        ("effort", "both", False),
        ("gsm8k", "so it is\n#### 7", True),
        ("gsm8k", "it is 7", False),
    ],
)
def test_what_counts_as_a_legal_reply(task: str, reply: str, counts: bool, gsm8k_folder: Path) -> None:
    import random

    from llm_sra.registry import load_task

    how = legal.LEGAL[task]
    given = {"data_path": str(gsm8k_folder)} if task == "gsm8k" else {}
    made = load_task(task, {**how.options, **given})
    state = made.start(made.problems("train", 1)[0], random.Random(0))
    assert how.counts(made, state, reply) is counts


def test_legal_replies_are_counted_and_the_most_frequent_ones_shown() -> None:
    [row] = legal.measure("worksheet/pupil", ["worksheet"], replies=8)
    assert row.replies == 8 and 0 <= row.legal <= 1 and sum(count for _, count in row.often) <= 8
    assert legal.table([row]).splitlines()[2].startswith(f"| worksheet | {row.prompt} | {row.legal:.2f} of 8 | `")
