"""Partners in an evaluation: scripts, adapters and models; which base an adapter gets, and those that are missing."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_support import SHORT, replies, roster, said, scripted
from support import (
    ROOT,
    llama_folder,
    make_bank,
    make_run,
    qwen2,
    qwen2_folder,
    qwen2_tokenizer,
    save_model,
)

from llm_sra import evaluate, export
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.errors import UnknownNameError
from llm_sra.evaluation.results import read_episodes
from llm_sra.models.adapters import CARD
from llm_sra.partners.loader import PolicyLoader
from llm_sra.partners.rosters import Entry
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Policy
from llm_sra.runs import Run
from tasks.worksheet import Worksheet

STRANGER = ROOT / "tasks" / "worksheet" / "models" / "stranger"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **SHORT)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "two", seed=1, arm="srpo", **SHORT)


def test_a_partner_may_be_a_users_own_class_beside_the_roster(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("class Shout:\n    def reply(self, messages, rng):\n        return 'NO'\n")
    assert replies(run, "name: shout, kind: scripted, policy: 'mine.py:Shout'", tmp_path) == [["NO"] * 3] * 3


def test_an_adapter_partner_plays_with_its_own_weights_in_the_seat_it_is_given(
    run: Run, other: Run, tmp_path: Path
) -> None:
    seated = replies(run, f"name: theirs, kind: adapter, policy: '{other.adapters}/{{seat}}'", tmp_path)
    named = replies(run, f"name: theirs, kind: adapter, policy: '{other.adapters}/second'", tmp_path)
    swapped = replies(run, f"name: theirs, kind: adapter, policy: '{other.adapters}/first'", tmp_path)
    assert seated == named != swapped
    own = replies(run, f"name: own, kind: adapter, policy: '{run.adapters}/second'", tmp_path)
    itself = [said(line.episode) for line in read_episodes(tmp_path / "out") if line.partner == "self-play"]
    assert own == [[text for who, text in talk if who == "second"] for talk in itself[:3]]


def test_an_exported_adapter_is_the_same_partner(run: Run, other: Run, tmp_path: Path) -> None:
    folder = export(other, "second", tmp_path / "exported")
    saved = replies(run, f"name: theirs, kind: adapter, policy: '{other.adapters}/second'", tmp_path)
    assert replies(run, f"name: theirs, kind: adapter, policy: {folder}", tmp_path) == saved


def base_of(loader: PolicyLoader, policy: Policy) -> Path:
    """The folder of the model that a policy plays on."""
    assert isinstance(policy, EnginePolicy)
    engine = loader.engines[policy.engine]
    assert isinstance(engine, TransformersEngine)
    return Path(engine.bank.base.name_or_path)


def test_an_adapter_of_another_base_brings_its_base_along(run: Run, tmp_path: Path) -> None:
    foreign = make_run(tmp_path / "foreign" / "llama", base=llama_folder(), **SHORT)
    loader = PolicyLoader(Worksheet())
    loader.team(run)
    seats = loader.partner(Entry("theirs", "adapter", f"{foreign.adapters}/{{seat}}"))
    assert {base_of(loader, policy) for policy in seats.values()} == {llama_folder()}
    assert len({policy.adapter for policy in seats.values()}) == len(loader.engines) == 2  # type: ignore[union-attr]
    assert len(replies(run, f"name: theirs, kind: adapter, policy: '{foreign.adapters}/{{seat}}'", tmp_path)) == 3


def test_adapters_of_equal_bases_share_one_model_and_those_of_unlike_bases_never_do(run: Run, tmp_path: Path) -> None:
    tokenizer = qwen2_tokenizer()
    copy = save_model(qwen2(tokenizer), tokenizer, tmp_path / "copy")
    unlike = save_model(qwen2(tokenizer, seed=1), tokenizer, tmp_path / "unlike")
    for base in (copy, unlike):
        make_bank(base, ["agent"]).save(tmp_path / f"{base.name}-adapters")
    make_bank(unlike, ["agent"]).save(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "agent" / CARD).unlink()  # made by plain PEFT: says by name alone what it belongs to
    loader = PolicyLoader(Worksheet())
    loader.team(run)
    for folder, base in (("copy-adapters", qwen2_folder()), ("unlike-adapters", unlike), ("elsewhere", unlike)):
        seats = loader.partner(Entry("x", "adapter", str(tmp_path / folder / "agent")))
        assert {base_of(loader, policy) for policy in seats.values()} == {base}


def test_a_path_of_any_characters_makes_an_adapters_name(tmp_path: Path) -> None:
    odd = make_run(tmp_path / "τ = 0.1 (ä)" / "a+b@c.d", **SHORT)
    twin = make_run(tmp_path / "τ = 0.1 (ä)" / "a-b-c-d", seed=1, **SHORT)
    records = evaluate([odd, twin], roster(tmp_path), problems=2, decodings=["greedy"])
    assert {record.run for record in records} == {"τ = 0.1 (ä)/a+b@c.d", "τ = 0.1 (ä)/a-b-c-d"}
    loader = PolicyLoader(Worksheet())
    assert len({*loader.team(odd).heroes.values(), *loader.team(twin).heroes.values()}) == 4


@pytest.mark.parametrize("folder", [llama_folder, lambda: STRANGER])
def test_a_foreign_model_plays_with_its_own_tokenizer_and_template(run: Run, tmp_path: Path, folder: Any) -> None:
    if not folder().is_dir():
        pytest.skip("the second embedded model is not there")
    loader = PolicyLoader(Worksheet())
    loader.team(run)
    partner = loader.partner(Entry("foreign", "model", str(folder())))["second"]
    task, [problem] = Worksheet(), Worksheet().problems("test", 1)
    match = Match("m", {"first": partner, "second": partner})
    [episode] = play(task, [EpisodeSpec(problem, match)], loader.engines, seed=0, max_reply_tokens=4)
    assert isinstance(partner, EnginePolicy) and base_of(loader, partner) == folder()
    tokenizer = loader.engines[partner.engine].renderer.tokenizer
    asked = tokenizer.decode(episode.turns[0].prompt_ids)
    assert asked == tokenizer.apply_chat_template(
        [message.as_dict() for message in episode.turns[0].view], add_generation_prompt=True, tokenize=False
    )
    assert asked.startswith("<|begin_of_text|><|start_header_id|>user<|end_header_id|>")
    assert len(replies(run, f"name: foreign, kind: model, policy: {folder()}", tmp_path)) == 3


def broken_model(folder: Path) -> str:
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    tokenizer.chat_template = None
    return f"kind: model, policy: {save_model(model, tokenizer, folder / 'mute')}"


def broken_adapter(folder: Path) -> str:
    make_bank(qwen2_folder(), ["agent"]).save(folder)
    (folder / "agent" / "adapter_model.safetensors").rename(folder / "agent" / "adapter_model.bin")
    return f"kind: adapter, policy: {folder}/agent"


def test_a_name_that_the_roster_has_wrong_is_an_error_before_play_and_earlier_results_stay(
    run: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    evaluate([run], roster(tmp_path, *scripted("lazy")), out, problems=2, decodings=["greedy"])
    before = {path.name: path.read_bytes() for path in out.glob("*.json*")}
    with pytest.raises(UnknownNameError, match="did you mean 'lazy'"):
        evaluate([run], roster(tmp_path, *scripted("lazy"), "name: x, kind: scripted, policy: lasy"), out, problems=2)
    assert {path.name: path.read_bytes() for path in out.glob("*.json*")} == before


@pytest.mark.parametrize(
    ("partner", "reason"),
    [
        ("kind: scripted, policy: 'gone.py:Class'", "no file"),
        ("kind: adapter, policy: nowhere", "holds no adapter"),
        ("kind: model, policy: ./nowhere", "no model folder"),
        (broken_model, "no chat template"),
        (broken_adapter, "only safetensors are loaded"),
    ],
)
def test_an_unavailable_partner_is_missing_with_its_reason_and_the_others_are_played(
    run: Run, tmp_path: Path, partner: Any, reason: str
) -> None:
    spec = partner if isinstance(partner, str) else partner(tmp_path)
    path = roster(tmp_path, f"name: x, {spec}", *scripted("lazy"))
    records = evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"], trust_scripts=True)
    assert {record.partner for record in records} == {"self-play", "lazy"}
    [missing] = json.loads((tmp_path / "out" / "results.json").read_text())["missing"]
    assert missing["partner"] == "x" and reason in missing["reason"]
