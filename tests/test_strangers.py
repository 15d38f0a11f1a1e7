"""`--strangers`: rosters made of folders of adapters and of lists of endpoints; and what partners take, said before."""

import shutil
from pathlib import Path

import pytest
import yaml
from evaluation_support import SHORT
from partners_support import roster
from support import lora, make_bank, make_run, qwen2_folder

from llm_sra.evaluation.results import read_summary
from llm_sra.partners.costs import cost_lines, in_units, weight_bytes
from llm_sra.partners.rosters import RosterError, as_item, read_roster
from llm_sra.partners.strangers import strangers
from recipes.cli import main

SEATS = ("first", "second")


def adapters(folder: Path, *names: str) -> Path:
    """Saved adapters of the tiny model, each in a folder of its own."""
    make_bank(qwen2_folder(), names, lora()).save(folder)
    return folder


def found(place: Path) -> dict[str, str]:
    """Policies by name, as seen from the place."""
    root = f"{(place if place.is_dir() else place.parent).resolve()}"
    return {entry.name: entry.policy.removeprefix(root) for entry in strangers(place, SEATS)}


# -- folders ---------------------------------------------------------------------------------------------------------


def test_every_adapter_below_a_folder_is_a_partner_sorted_by_name(tmp_path: Path) -> None:
    adapters(tmp_path, "zed", "any")
    adapters(tmp_path / "both" / "step-3", *SEATS, "adversary-of-first")
    adapters(tmp_path / ".hidden", "no")
    (tmp_path / "notes").mkdir()
    assert found(tmp_path) == {"any": "/any", "both/step-3": "/both/step-3/{seat}", "zed": "/zed"}
    assert list(found(tmp_path)) == ["any", "both/step-3", "zed"]
    assert {entry.kind for entry in strangers(tmp_path, SEATS)} == {"adapter"}


def test_a_folder_that_is_a_partner_itself_has_its_own_name(tmp_path: Path) -> None:
    adapters(tmp_path / "mine", *SEATS)
    assert found(tmp_path / "mine") == {"mine": "/{seat}"}
    assert found(tmp_path / "mine" / "first") == {"first": ""}


def test_of_a_run_its_agents_play_and_neither_adversaries_nor_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "ippo-seed1")
    adapters(run.path / "checkpoints" / "checkpoint-3", *SEATS)
    shutil.copytree(run.path / "adapters" / "first", run.path / "adapters" / "adversary-of-first")
    shared = make_run(tmp_path / "runs" / "shared")
    (shared.path / "adapters" / "first").rename(shared.path / "adapters" / "hero")
    config = yaml.safe_load((shared.path / "config.yaml").read_text())
    (shared.path / "config.yaml").write_text(yaml.safe_dump({**config, "heroes": dict.fromkeys(SEATS, "hero")}))
    assert found(tmp_path / "runs") == {
        "ippo-seed1": "/ippo-seed1/adapters/{seat}", "shared": "/shared/adapters/hero",
    }  # fmt: skip


def test_what_cannot_be_used_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RosterError, match=r"nowhere is neither a folder of adapters nor a YAML list"):
        strangers(tmp_path / "nowhere", SEATS)
    with pytest.raises(RosterError, match=r"holds no adapter: expected folders with adapter_config\.json"):
        strangers(tmp_path, SEATS)
    adapters(tmp_path / "one", "first")
    with pytest.raises(RosterError, match="one has an adapter for first and none for second"):
        strangers(tmp_path, SEATS)
    shutil.rmtree(tmp_path / "one")
    adapters(tmp_path, "old")
    (tmp_path / "old" / "adapter_model.safetensors").rename(tmp_path / "old" / "adapter_model.bin")
    with pytest.raises(RosterError, match=r"old holds no adapter_model\.safetensors: only safetensors are loaded"):
        strangers(tmp_path, SEATS)
    (tmp_path / "old" / "adapter_model.bin").rename(tmp_path / "old" / "adapter_model.safetensors")
    (tmp_path / "old" / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(RosterError, match="Nothing was played"):
        strangers(tmp_path, SEATS)
    run = make_run(tmp_path / "other" / "toy", task=f"{Path(__file__).with_name('support.py')}:Toy")
    with pytest.raises(RosterError, match="is a run with agents for the seats left, right: expected first, second"):
        strangers(run.path, SEATS)


def test_folders_without_end_and_braces_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_sra.partners.strangers.MOST", 3)
    for number in range(4):
        (tmp_path / "wide" / str(number)).mkdir(parents=True)
    with pytest.raises(RosterError, match="holds more than 3 folders"):
        strangers(tmp_path / "wide", SEATS)
    monkeypatch.undo()
    deep = tmp_path / "deep" / "/".join("abcdefghij")
    deep.mkdir(parents=True)
    with pytest.raises(RosterError, match="more than 8 deep"):
        strangers(tmp_path / "deep", SEATS)
    adapters(tmp_path / "braces", "one").joinpath("one").rename(tmp_path / "braces" / "a{seat}")
    with pytest.raises(RosterError, match="has a brace in its path"):
        strangers(tmp_path / "braces", SEATS)


# -- endpoints -------------------------------------------------------------------------------------------------------


def test_a_list_of_endpoints_is_a_roster_with_or_without_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "served.yaml"
    path.write_text(
        "- {name: two, policy: m2, base_url: 'http://localhost:8/v1', cache: said/two.jsonl}\n"
        "- {name: one, kind: endpoint, policy: m1, base_url: 'http://localhost:8/v1', token_budget: 5000}\n"
    )
    one, two = strangers(path, SEATS)
    assert (one.name, one.kind, one.policy, one.options["token_budget"]) == ("one", "endpoint", "m1", 5000)
    assert two.options["cache"] == str(tmp_path.resolve() / "said" / "two.jsonl")
    path.write_text(yaml.safe_dump({"partners": [as_item(one), as_item(two)]}))
    assert strangers(path, SEATS) == [one, two] == read_roster(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: one", "must hold a list of endpoints"),
        ("[]", "must hold a list of endpoints"),
        ("[1]", "each partner needs name, kind and policy"),
        ("[{name: one, policy: m}]", "kind endpoint needs base_url"),
        ("[{name: lazy, kind: scripted, policy: lazy}]", r"of other kinds than endpoint \(lazy\): name it as a roster"),
        ("[", "cannot be read: it is not YAML"),
    ],
)
def test_another_list_is_refused_in_a_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "served.yaml"
    path.write_text(text)
    with pytest.raises(RosterError, match=message):
        strangers(path, SEATS)


# -- what they take --------------------------------------------------------------------------------------------------


def test_bytes_are_told_in_their_largest_unit() -> None:
    told = [in_units(size) for size in (0, 1023, 1024, 1536, 1 << 20, 5 << 30)]
    assert told == ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 MiB", "5.0 GiB"]


def test_what_a_partner_takes_is_said_of_those_that_take_something(tmp_path: Path) -> None:
    adapters(tmp_path / "pair", *SEATS)
    size = sum(path.stat().st_size for path in (tmp_path / "pair").rglob("*.safetensors"))
    base = sum(path.stat().st_size for path in qwen2_folder().glob("*.safetensors"))
    assert weight_bytes(str(qwen2_folder())) == base and weight_bytes("no/such-model") is None
    path = roster(
        tmp_path,
        "name: script, kind: scripted, policy: lazy",
        "name: pair, kind: adapter, policy: './pair/{seat}'",
        f"name: noisy, kind: perturbed, how: drop, of: {{kind: model, policy: '{qwen2_folder()}'}}",
        "name: hub, kind: model, policy: no/such-model",
        "name: gone, kind: adapter, policy: ./gone",
        "name: served, kind: endpoint, policy: m, base_url: 'http://localhost:8/v1', token_budget: 5000",
        "name: free, kind: endpoint, policy: m, base_url: 'http://localhost:8/v1'",
    )
    pair, noisy, hub, gone, served, free = cost_lines(read_roster(path), SEATS)
    assert pair == (
        f"pair: adapter, {in_units(size)} of weights on the disk; its base {qwen2_folder()}, {in_units(base)} of "
        "weights on the disk, is loaded once for all that have it"
    )
    assert noisy == f"noisy: model {qwen2_folder()}, {in_units(base)} of weights on the disk"
    assert hub == "hub: model no/such-model, whose weights are not on this disk, so their size is not known"
    assert gone.startswith("gone: adapter, its weights are not there; its base (unknown)")
    assert served == "served: endpoint, no weights here; at most 5,000 tokens (token_budget)"
    assert free == "free: endpoint, no weights here; no limit of tokens (token_budget sets one)"


# -- the command -----------------------------------------------------------------------------------------------------


def test_agents_are_played_with_strangers_and_their_roster_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "runs" / "mine", **SHORT)
    adapters(tmp_path / "theirs" / "pair", *SEATS)
    out = tmp_path / "out"
    asked = ["eval", "--run", str(run.path), "--out", str(out), "--problems", "1", "--decoding", "greedy"]
    assert main([*asked, "--strangers", str(tmp_path / "theirs")]) == 0
    shown = capsys.readouterr().out
    assert shown.index("pair: adapter,") < shown.index("greedy, 1 problems")
    assert [entry.name for entry in read_roster(out / "strangers.yaml")] == ["pair"]
    summary = read_summary(out)
    assert {record.partner for record in summary.records} == {"self-play", "pair"} and not summary.missing
    assert main([*asked, "--strangers", str(tmp_path / "theirs"), "--roster", "worksheet_test"]) == 2
    assert "name either it or a --roster" in capsys.readouterr().err
    assert main([*asked, "--strangers", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
