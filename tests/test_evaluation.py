"""Evaluation: who is played with whom, on what, how it is counted, and what is left on disk."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import (
    ROOT,
    llama_folder,
    make_bank,
    make_engine,
    make_run,
    qwen2,
    qwen2_folder,
    qwen2_tokenizer,
    save_model,
    scramble,
)

import llm_sra.evaluation.missing
from llm_sra import evaluate, export
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.errors import UnknownNameError
from llm_sra.evaluation.runner import DevEvaluation, PolicyLoader, Record
from llm_sra.models.adapters import CARD, AdapterError
from llm_sra.partners.rosters import Entry
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import EnginePolicy, Match, Policy, PolicyError
from llm_sra.runs import Run, RunError
from llm_sra.task import Episode, Outcome, Task
from tasks.worksheet import Worksheet

STRANGER = ROOT / "tasks" / "worksheet" / "models" / "stranger"
FIELDS = (
    "run",
    "arm",
    "seat",
    "partner",
    "decoding",
    "n",
    "solve_rate",
    "solve_rate_ci95",
    "team_reward",
    "own_return",
    "effort_own",
    "effort_partner",
    "metrics",
)
SHORT = {"max_completion_length": 4}


def roster(folder: Path, *partners: str) -> Path:
    path = folder / "roster.yaml"
    path.write_text("partners: [" + ", ".join(f"{{{partner}}}" for partner in partners) + "]")
    return path


def scripted(*names: str) -> list[str]:
    return [f"name: {name}, kind: scripted, policy: {name}" for name in names]


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]


def pick(records: Sequence[Record], **which: str) -> Record:
    [record] = [r for r in records if all(getattr(r, key) == value for key, value in which.items())]
    return record


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", **SHORT)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "two", seed=1, arm="srpo", **SHORT)


@pytest.fixture(scope="module")
def evaluated(run: Run, other: Run, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Path]:
    """Both runs with three scripted partners on four problems."""
    folder = tmp_path_factory.mktemp("evaluated")
    path = roster(folder, *scripted("diligent", "lazy", "half"))
    return evaluate([run, other.path], path, folder / "out", problems=4), folder / "out"


def test_there_is_one_record_per_run_seat_partner_and_decoding(evaluated: tuple[list[Record], Path]) -> None:
    cells = [(r.run, r.arm, r.seat, r.partner, r.decoding) for r in evaluated[0]]
    expected = {
        (name, arm, seat, partner, decoding)
        for name, arm in (("study/one", "ippo"), ("study/two", "srpo"))
        for seat in ("first", "second")
        for partner in ("self-play", "diligent", "lazy", "half")
        for decoding in ("greedy", "sampled")
    }
    assert len(cells) == len(expected) == 32 and set(cells) == expected
    assert {record.n for record in evaluated[0]} == {4}


def test_what_is_written_is_what_is_returned_with_exactly_the_documented_fields(
    evaluated: tuple[list[Record], Path],
) -> None:
    records, out = evaluated
    written = json.loads((out / "results.json").read_text())["records"]
    assert {tuple(record) for record in written} == {FIELDS}
    assert [Record(**{**record, "solve_rate_ci95": tuple(record["solve_rate_ci95"])}) for record in written] == records
    assert sorted(path.name for path in out.iterdir()) == ["episodes.jsonl", "results.json", "store"]


def test_rates_rewards_and_efforts_with_scripted_partners_are_those_counted_by_hand(
    evaluated: tuple[list[Record], Path],
) -> None:
    # The agent writes three wrong lines, 0.1 each; diligent solves every sheet with two lines, lazy never.
    for seat in ("first", "second"):
        diligent = pick(evaluated[0], run="study/one", seat=seat, partner="diligent", decoding="greedy")
        assert (diligent.solve_rate, diligent.team_reward) == (1, 1)
        assert diligent.own_return == pytest.approx(0.7)
        assert (diligent.effort_own, diligent.effort_partner) == (3, 2)
        assert diligent.solve_rate_ci95 == pytest.approx((4 / (4 + 1.959964**2), 1))  # Wilson: n / (n + z²)
        lazy = pick(evaluated[0], run="study/one", seat=seat, partner="lazy", decoding="greedy")
        assert (lazy.solve_rate, lazy.team_reward) == (0, 0)
        assert lazy.own_return == pytest.approx(-0.3)
        assert (lazy.effort_own, lazy.effort_partner) == (3, 0)
        assert lazy.solve_rate_ci95 == pytest.approx((0, 1.959964**2 / (4 + 1.959964**2)))


def solved_by_hand(problem: str, said: Sequence[Sequence[str]]) -> bool:
    """Whether the chain of partial sums stands in order among the lines."""
    numbers = [int(number) for number in problem.split("+")]
    total, chain = numbers[0], []
    for number in numbers[1:]:
        chain.append(f"{total}+{number}={total + number}")
        total += number
    for _, text in said:
        if chain and text.split("\n")[0] == chain[0]:
            chain.pop(0)
    return not chain


def test_solve_rates_are_those_counted_from_what_was_said(evaluated: tuple[list[Record], Path]) -> None:
    records, out = evaluated
    counts: Counter[tuple[str, ...]] = Counter()
    for line in lines(out):
        cell = (line["run"], line["seat"], line["partner"], line["decoding"])
        counts[cell] += solved_by_hand(line["problem"], line["said"])
        assert line["solved"] == solved_by_hand(line["problem"], line["said"])
    assert {(r.run, r.seat, r.partner, r.decoding): r.solve_rate * 4 for r in records} == dict(counts)
    assert {r.solve_rate for r in records if r.partner == "half"} & {0.25, 0.5, 0.75}


def test_each_token_has_its_log_probability_and_characters_and_what_no_model_said_has_none(
    evaluated: tuple[list[Record], Path],
) -> None:
    heard = 0
    for line in lines(evaluated[1]):
        by_turn = zip(
            line["said"], line["tokens"], line["logprobs"], line["token_logprobs"], line["token_widths"], strict=True
        )
        for (who, text), tokens, mean, logprobs, widths in by_turn:
            if who != line["seat"] and line["partner"] != "self-play":
                assert (tokens, logprobs, widths) == (0, [], [])
                continue
            assert len(logprobs) == len(widths) == tokens
            assert sum(widths) == len(text)
            assert sum(logprobs) / tokens == pytest.approx(mean, abs=0.006)  # each is rounded to two digits
            heard += 1
    assert heard


def test_every_cell_of_every_run_is_played_on_the_same_held_out_problems(
    evaluated: tuple[list[Record], Path],
) -> None:
    played: dict[tuple[str, ...], list[str]] = {}
    for line in lines(evaluated[1]):
        played.setdefault((line["run"], line["seat"], line["partner"], line["decoding"]), []).append(line["problem"])
    test = [problem.id for problem in Worksheet().problems("test", 4, seed=0)]
    assert len(played) == 32 and all(problems == test for problems in played.values())


def test_a_partners_chance_is_the_same_for_every_run(evaluated: tuple[list[Record], Path]) -> None:
    # The coins of `half` do not depend on what the run's agent writes, only its lines do.
    def rests(name: str) -> list[list[bool]]:
        return [
            [text == "pass" for who, text in line["said"] if who != line["seat"]][:1]
            for line in lines(evaluated[1])
            if (line["run"], line["partner"]) == (name, "half")
        ]

    assert rests("study/one") == rests("study/two") and [True] in rests("study/one") and [False] in rests("study/one")


def test_the_agent_plays_in_its_seat_and_the_partner_in_all_others(evaluated: tuple[list[Record], Path]) -> None:
    for line in lines(evaluated[1]):
        assert [who for who, _ in line["said"]] == ["first", "second"] * 3
        if line["partner"] == "lazy":
            assert {text == "pass" for who, text in line["said"] if who != line["seat"]} == {True}
            assert {text == "pass" for who, text in line["said"] if who == line["seat"]} == {False}


def test_self_play_is_played_once_and_counted_for_each_seat(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches: Counter[str] = Counter()

    def counted(task: Task, specs: Sequence[EpisodeSpec], *args: Any, **kwargs: Any) -> list[Episode]:
        matches.update(spec.match.name for spec in specs)
        return play(task, specs, *args, **kwargs)

    monkeypatch.setattr(llm_sra.evaluation.missing, "play", counted)
    records = evaluate([run], roster(tmp_path, *scripted("lazy")), problems=2, decodings=["sampled"])
    assert matches == {"self-play/sampled": 2, "first/lazy/sampled": 2, "second/lazy/sampled": 2}
    first, second = (pick(records, seat=seat, partner="self-play") for seat in ("first", "second"))
    assert (first.effort_own, first.effort_partner) == (second.effort_partner, second.effort_own)


def test_the_same_seed_gives_the_same_results_and_another_seed_other_ones(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("half"))
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        evaluate([run], path, tmp_path / name, problems=3, decodings=["sampled"], seed=seed)
    text = {name: (tmp_path / name / "episodes.jsonl").read_text() for name in ("one", "two", "three")}
    assert text["one"] == text["two"] != text["three"]


def test_greedy_and_sampled_are_how_every_model_at_the_table_is_decoded(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, f"name: base, kind: model, policy: {qwen2_folder()}")
    for seed in (0, 1):
        evaluate([run], path, tmp_path / str(seed), problems=27, seed=seed)
    said: dict[tuple[str, ...], set[str]] = {}
    for line in lines(tmp_path / "0") + lines(tmp_path / "1"):
        cell = (line["seat"], line["partner"], line["decoding"], line["problem"])
        said.setdefault(cell, set()).add(str(line["said"]))
    twice = {cell: texts for cell, texts in said.items() if len(texts) > 1}
    assert {decoding for _, _, decoding, _ in said} == {"greedy", "sampled"}
    assert {decoding for _, _, decoding, _ in twice} == {"sampled"}


def test_replies_are_as_long_as_in_training(run: Run, tmp_path: Path) -> None:
    long = make_run(tmp_path / "study" / "long", max_completion_length=None)
    path = roster(tmp_path, *scripted("lazy"))

    def longest(run: Run, name: str) -> int:
        evaluate([run], path, tmp_path / name, problems=2, decodings=["greedy"])
        return max(len(text) for line in lines(tmp_path / name) for _, text in line["said"])

    assert longest(run, "short") < longest(long, "long")


# -- another world ---------------------------------------------------------------------------------------------------


def test_options_of_the_task_may_be_others_than_those_of_training(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    dear = make_run(tmp_path / "study" / "dear", task_args={"cost": 0.3, "turns": 4}, **SHORT)
    played = evaluate([dear], path, tmp_path / "out", problems=2, decodings=["greedy"], task_args={"cost": 0.5})
    # The agent writes a wrong line at each of its two turns of four: the option that is not named is the run's own.
    assert pick(played, seat="first", partner="lazy").own_return == pytest.approx(-1.0)
    settings = json.loads((tmp_path / "out" / "results.json").read_text())["settings"]
    assert settings["task_args"] == {"cost": 0.5}
    evaluate([run], path, tmp_path / "own", problems=1, decodings=["greedy"])
    assert set(json.loads((tmp_path / "own" / "results.json").read_text())["settings"]) == {
        "split",
        "seed",
        "roster",
        "idle",
    }


def test_episodes_of_another_world_are_kept_apart_and_played_once(run: Run, tmp_path: Path) -> None:
    path, out = roster(tmp_path, *scripted("lazy")), tmp_path / "out"

    def kept(task_args: Mapping[str, Any] | None) -> int:
        evaluate([run], path, out, problems=2, decodings=["greedy"], task_args=task_args)
        return sum(len(file.read_text().splitlines()) for file in (out / "store").glob("*.jsonl"))

    # self-play and lazy in either seat, two problems each: 6 episodes of each world
    assert [kept(None), kept({"cost": 0.5}), kept({"cost": 0.5}), kept({}), kept(None)] == [6, 12, 12, 12, 12]


def test_runs_of_unlike_worlds_compare_in_one_world(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    short = make_run(tmp_path / "study" / "short", task_args={"turns": 4, "cost": 0.3}, **SHORT)
    same = {"turns": 4, "cost": 0.2}
    played = evaluate([run, short], path, problems=1, decodings=["greedy"], task_args=same)
    assert {record.effort_own for record in played if record.partner == "lazy"} == {2}
    with pytest.raises(RunError, match="do not compare: their task_args"):
        evaluate([run, short], path, task_args={"turns": 4})  # the cost is still another


def test_options_that_the_task_does_not_have_or_that_change_the_seats_are_refused(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    with pytest.raises(ValueError, match="'runner'; for task_args, its options are: numbers, low, high"):
        evaluate([run], path, tmp_path / "out", task_args={"runner": "random"})
    four = make_run(tmp_path / "study" / "four", task="hanabi", **SHORT)
    with pytest.raises(RunError, match=r"has agents for the seats .*, but with .*'players': 2.* the task has"):
        evaluate([four], None, tmp_path / "out", task_args={"players": 2}, cross_play=False)
    assert not (tmp_path / "out").exists()


# -- partners --------------------------------------------------------------------------------------------------------


def replies(run: Run, partner: str, folder: Path, seat: str = "first") -> list[list[str]]:
    """What a partner of a roster says while the run's agent sits in `seat`."""
    evaluate([run], roster(folder, partner), folder / "out", problems=3, decodings=["greedy"])
    return [
        [text for who, text in line["said"] if who != seat]
        for line in lines(folder / "out")
        if line["seat"] == seat and line["partner"] != "self-play"
    ]


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
    itself = [line["said"] for line in lines(tmp_path / "out") if line["partner"] == "self-play"]
    assert own == [[text for who, text in said if who == "second"] for said in itself[:3]]


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
    loader.agents(run)
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
    loader.agents(run)
    for folder, base in (("copy-adapters", qwen2_folder()), ("unlike-adapters", unlike), ("elsewhere", unlike)):
        seats = loader.partner(Entry("x", "adapter", str(tmp_path / folder / "agent")))
        assert {base_of(loader, policy) for policy in seats.values()} == {base}


def test_a_path_of_any_characters_makes_an_adapters_name(tmp_path: Path) -> None:
    odd = make_run(tmp_path / "τ = 0.1 (ä)" / "a+b@c.d", **SHORT)
    twin = make_run(tmp_path / "τ = 0.1 (ä)" / "a-b-c-d", seed=1, **SHORT)
    records = evaluate([odd, twin], roster(tmp_path), problems=2, decodings=["greedy"])
    assert {record.run for record in records} == {"τ = 0.1 (ä)/a+b@c.d", "τ = 0.1 (ä)/a-b-c-d"}
    loader = PolicyLoader(Worksheet())
    assert len({*loader.agents(odd).heroes.values(), *loader.agents(twin).heroes.values()}) == 4


@pytest.mark.parametrize("folder", [llama_folder, lambda: STRANGER])
def test_a_foreign_model_plays_with_its_own_tokenizer_and_template(run: Run, tmp_path: Path, folder: Any) -> None:
    if not folder().is_dir():
        pytest.skip("the second embedded model is not there")
    loader = PolicyLoader(Worksheet())
    loader.agents(run)
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


def failing_script(folder: Path) -> str:
    (folder / "bad.py").write_text("class Bad:\n    def reply(self, messages, rng):\n        raise OSError('gone')\n")
    return "kind: scripted, policy: 'bad.py:Bad'"


@pytest.mark.parametrize(
    ("partner", "error", "message"),
    [
        ("kind: scripted, policy: lasy", UnknownNameError, "did you mean 'lazy'"),
        (failing_script, PolicyError, "'x' .Bad. failed.*gone"),
    ],
)
def test_a_partner_that_cannot_play_is_an_error_and_earlier_results_stay(
    run: Run, tmp_path: Path, partner: Any, error: type[Exception], message: str
) -> None:
    out = tmp_path / "out"
    evaluate([run], roster(tmp_path, *scripted("lazy")), out, problems=2, decodings=["greedy"])
    before = {path.name: path.read_bytes() for path in out.glob("*.json*")}
    spec = partner if isinstance(partner, str) else partner(tmp_path)
    with pytest.raises(error, match=message):
        evaluate([run], roster(tmp_path, *scripted("lazy"), f"name: x, {spec}"), out, problems=2)
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
def test_a_partner_that_cannot_be_had_is_missing_with_its_reason_and_the_others_are_played(
    run: Run, tmp_path: Path, partner: Any, reason: str
) -> None:
    spec = partner if isinstance(partner, str) else partner(tmp_path)
    path = roster(tmp_path, f"name: x, {spec}", *scripted("lazy"))
    records = evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"])
    assert {record.partner for record in records} == {"self-play", "lazy"}
    [missing] = json.loads((tmp_path / "out" / "results.json").read_text())["missing"]
    assert missing["partner"] == "x" and reason in missing["reason"]


def test_results_that_could_not_be_written_whole_leave_the_earlier_ones(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, out = roster(tmp_path, *scripted("lazy")), tmp_path / "out"
    evaluate([run], path, out, problems=2, decodings=["greedy"])
    before = (out / "results.json").read_bytes()
    write = Path.write_text

    def full_disk(self: Path, data: str, *args: Any, **kwargs: Any) -> int:
        write(self, data[:100], *args, **kwargs)
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="no space"):
        evaluate([run], path, out, problems=3, decodings=["greedy"])
    assert (out / "results.json").read_bytes() == before


# -- runs that cannot be compared, and other bad input ---------------------------------------------------------------


def test_runs_that_do_not_compare_are_refused(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("lazy"))
    longer = make_run(tmp_path / "study" / "longer", max_completion_length=8)
    bigger = make_run(tmp_path / "study" / "bigger", task_args={"numbers": 4}, **SHORT)
    twin = make_run(tmp_path / "elsewhere" / "study" / "one", **SHORT)
    for runs, message in (
        ([run, longer], "do not compare: their max_completion_length is 4 and 8"),
        ([run, bigger], "do not compare: their task_args"),
        ([run, twin], "study/one"),
        ([run, run], "study/one"),
        ([], "no run to evaluate"),
    ):
        with pytest.raises(RunError, match=message):
            evaluate(runs, path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_that_has_not_finished_is_refused(tmp_path: Path) -> None:
    unfinished = make_run(tmp_path / "study" / "unfinished")
    unfinished.adapters.rename(tmp_path / "gone")
    with pytest.raises(AdapterError, match="holds no adapter"):
        evaluate([unfinished], roster(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decodings": ["gredy"]}, "unknown decoding 'gredy'; did you mean 'greedy'"),
        ({"problems": 0}, "no problems to play: asked for 0 of the test split"),
        ({"split": "tests"}, "split must be one of"),
    ],
)
def test_options_that_make_no_evaluation_are_refused(
    run: Run, tmp_path: Path, options: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate([run], roster(tmp_path), **options)


# -- the development roster ------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> TransformersEngine:
    return make_engine(qwen2_folder(), ["first", "second"])


def test_development_gives_solve_rates_by_partner_and_seat(engine: TransformersEngine, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("diligent", "lazy"))
    heroes = {"first": "first", "second": "second"}
    numbers = DevEvaluation(Worksheet(), heroes, engine, path, problems=3, seed=0, max_reply_tokens=4)()
    assert numbers == {
        "self_play": 0,
        "effort/first": 3,
        "effort/second": 3,
        "diligent/first": 1,
        "diligent/second": 1,
        "lazy/first": 0,
        "lazy/second": 0,
        "mean_partner": 0.5,
        "worst_partner": 0,
    }


class Half(Worksheet):
    """Compares agents by half of what they solve."""

    headline = "half"

    def outcome(self, state: Any) -> Outcome:
        outcome = super().outcome(state)
        return replace(outcome, metrics={"half": outcome.solved / 2})


def test_development_gives_a_tasks_own_headline(engine: TransformersEngine, tmp_path: Path) -> None:
    path = roster(tmp_path, *scripted("diligent", "lazy"))
    heroes = {"first": "first", "second": "second"}
    numbers = DevEvaluation(Half(), heroes, engine, path, problems=3, seed=0, max_reply_tokens=4)()
    assert (numbers["diligent/first"], numbers["mean_partner"], numbers["self_play"]) == (0.5, 0.25, 0)


def test_development_plays_the_weights_as_they_are_now(
    engine: TransformersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[list[str]] = []
    seen: set[str] = set()

    def heard(task: Task, specs: Sequence[EpisodeSpec], *args: Any, **kwargs: Any) -> list[Episode]:
        episodes = play(task, specs, *args, **kwargs)
        said.append([turn.reply.text for episode in episodes for turn in episode.turns])
        seen.update(episode.problem.id for episode in episodes)
        return episodes

    monkeypatch.setattr(llm_sra.evaluation.missing, "play", heard)
    heroes = {"first": "first", "second": "second"}
    dev = DevEvaluation(Worksheet(), heroes, engine, roster(tmp_path), problems=2, seed=0, max_reply_tokens=4)
    dev()
    dev()
    scramble(engine.bank, "first", seed=9)
    dev()
    assert said[0] == said[1] != said[2]
    assert seen <= {problem.id for problem in Worksheet().problems("dev")}
