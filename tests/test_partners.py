"""Partners of every kind in rosters and evaluations, and partners that cannot be had."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from evaluation_support import said
from fake_endpoint import FakeEndpoint, answer, says
from partners_support import APPLE, PEAR, endpoint, recording, roster
from support import Says, Toy, make_engine, make_run, qwen2_folder

from eval.summary import write_summary
from llm_sra import evaluate
from llm_sra.evaluation.development import DevEvaluation
from llm_sra.evaluation.records import Record
from llm_sra.evaluation.results import merge, read_episodes, read_results
from llm_sra.partners.loader import PolicyLoader, Team
from llm_sra.partners.rosters import Entry, RosterError, read_roster
from llm_sra.playing import EpisodeSpec, play
from llm_sra.policies import Endpoint, Match, Perturbed, Policy, Scripted, UnavailableError
from llm_sra.runs import Run

pytestmark = pytest.mark.usefixtures("quick")


# -- a lost partner --------------------------------------------------------------------------------------------------


def test_play_goes_on_without_a_partner_that_is_lost(server: FakeEndpoint) -> None:
    lasting, quiet = Scripted("lasting", Says("hm")), Scripted("quiet", Says(""))
    server.faults = [says(200, answer("fine"))] * 2 + [says(400)] * 9  # its second turns fail
    hosted = endpoint(server)
    lost: list[tuple[Policy, str]] = []
    matches = [
        Match("one", {"left": quiet, "right": lasting}),
        Match("two", {"left": quiet, "right": Perturbed("p", hosted, "cut")}),
        Match("three", {"left": lasting, "right": quiet}),
        Match("four", {"left": quiet, "right": hosted}),
    ]
    specs = [EpisodeSpec(problem, match) for match in matches for problem in (APPLE, PEAR)]
    episodes = play(Toy(turns=4), specs, {}, seed=0, on_lost=lambda policy, error: lost.append((policy, str(error))))
    assert [(e.match, e.problem.id) for e in episodes] == [
        (name, word) for name in ("one", "three") for word in ("apple", "pear")
    ]
    assert [policy for policy, _ in lost if policy is not hosted] == [matches[1].seats["right"]]
    assert len(lost) == 2  # whichever of them is told first
    assert all("400 from" in reason for _, reason in lost)
    with pytest.raises(UnavailableError, match="400 from"):
        play(Toy(turns=4), specs, {}, seed=0)


# -- rosters ---------------------------------------------------------------------------------------------------------


ENDPOINT = "name: a, kind: endpoint, policy: m"
URL = "base_url: 'http://127.0.0.1:1/v1'"


def test_the_new_kinds_are_read(tmp_path: Path) -> None:
    path = roster(
        tmp_path,
        f"{ENDPOINT}, {URL}, key_env: A_KEY, cache: c/x.jsonl, token_budget: 10, temperature: 0.5, timeout: 3",
        "name: b, kind: recorded, policy: r.jsonl, field: x.y, key: q, rewrite: {a: b}",
        "name: c, kind: perturbed, how: cut, probability: 0.5, seed: 3, of: {kind: adapter, policy: x, base: ./y}",
        f"name: d, kind: perturbed, how: temperature, temperature: 2, of: {{{ENDPOINT}, {URL}}}",
    )
    options = {"base_url": "http://127.0.0.1:1/v1"}
    more = {"key_env": "A_KEY", "cache": f"{tmp_path}/c/x.jsonl", "token_budget": 10, "temperature": 0.5, "timeout": 3}
    inner = Entry("c", "adapter", f"{tmp_path}/x", {"base": f"{tmp_path}/y"})
    assert read_roster(path) == [
        Entry("a", "endpoint", "m", options | more),
        Entry("b", "recorded", f"{tmp_path}/r.jsonl", {"field": "x.y", "key": "q", "rewrite": {"a": "b"}}),
        Entry("c", "perturbed", "", {"how": "cut", "probability": 0.5, "seed": 3, "of": inner}),
        Entry(
            "d", "perturbed", "", {"how": "temperature", "temperature": 2, "of": Entry("a", "endpoint", "m", options)}
        ),
    ]


@pytest.mark.parametrize(
    ("partner", "message"),
    [
        (ENDPOINT, "kind endpoint needs base_url"),
        (f"{ENDPOINT}, {URL}, retires: 3", "unknown key 'retires'; did you mean 'retries'"),
        (f"{ENDPOINT}, {URL}, retries: -1", "`retries` must be a whole number of 0 or more, got -1"),
        (f"{ENDPOINT}, {URL}, retries: true", "`retries` must be a whole number"),
        (f"{ENDPOINT}, {URL}, concurrency: 0", "`concurrency` must be a whole number of 1 or more"),
        (f"{ENDPOINT}, {URL}, timeout: .nan", "`timeout` must be a number above 0"),
        (f"{ENDPOINT}, {URL}, timeout: .inf", "`timeout` must be a number above 0"),
        (f"{ENDPOINT}, {URL}, requests_per_minute: '60'", "`requests_per_minute` must be a number above 0, got '60'"),
        (f"{ENDPOINT}, {URL}, token_budget: 1.5", "`token_budget` must be a whole number of 1 or more"),
        (f"{ENDPOINT}, base_url: 'file:///etc/passwd'", "`base_url` must be http"),
        (f"{ENDPOINT}, base_url: 3", "`base_url` must be http"),
        ("name: a, kind: recorded, policy: x, field: 3", "`field` must be text"),
        ("name: a, kind: recorded, policy: x, field: y, rewrite: {'(': b}", "`rewrite` must be a mapping of regular"),
        ("name: a, kind: recorded, policy: x, field: y, rewrite: {a: '\\2'}", "`rewrite` must be a mapping of regular"),
        ("name: a, kind: model, policy: x, trust_remote_code: 'no'", "`trust_remote_code` must be true or false"),
        ("name: a, kind: perturbed, how: drop", "kind perturbed needs of"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}", "kind perturbed needs how"),
        ("name: a, kind: perturbed, policy: x, of: {kind: scripted, policy: x}, how: drop", "unknown key 'policy'"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}, how: dorp", "`how` must be one of drop, cut"),
        ("name: a, kind: perturbed, of: {kind: scripted, policy: x}, how: drop, probability: 2", "`probability` must"),
        ("name: a, kind: perturbed, of: {kind: scripted}, how: drop", "each partner needs name, kind and policy"),
        ("name: a, kind: perturbed, of: {kind: script, policy: x}, how: drop", "unknown kind 'script'"),
        ("name: a, kind: perturbed, of: {kind: model, policy: x}, how: temperature", "`temperature` goes with `how"),
        (
            "name: a, kind: perturbed, of: {kind: model, policy: x}, how: temperature, temperature: 1",
            "`temperature` must be a number above 1",
        ),
        (
            "name: a, kind: perturbed, how: temperature, temperature: 2, "
            "of: {kind: perturbed, how: drop, of: {kind: recorded, policy: x, field: y}}",
            "a recorded partner has no temperature to raise",
        ),
    ],
)
def test_a_roster_that_gets_a_kind_wrong_is_explained(tmp_path: Path, partner: str, message: str) -> None:
    with pytest.raises(RosterError, match=f"{message}"):
        read_roster(roster(tmp_path, partner))


@pytest.mark.parametrize(
    "key",
    [
        "base_url: 'https://user:SECRET@host/v1'",  # pragma: allowlist secret
        f"{URL}, key_env: SECRET-KEY",
    ],
)
def test_a_secret_in_a_roster_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    with pytest.raises(RosterError, match="must be") as error:
        read_roster(roster(tmp_path, f"{ENDPOINT}, {key}"))
    assert "SECRET" not in str(error.value)


# -- evaluation ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two agents on the worksheet that write nonsense."""
    return make_run(tmp_path_factory.mktemp("runs") / "study" / "one", max_completion_length=4)


def results(folder: Path) -> tuple[set[str], dict[str, str]]:
    """Who was played, and why others were not."""
    written = json.loads((folder / "results.json").read_text())
    missing = {item["partner"]: item["reason"] for item in written["missing"]}
    return {record["partner"] for record in written["records"]}, missing


def said_by(folder: Path, partner: str, decoding: str = "greedy") -> list[str]:
    chosen = [line for line in read_episodes(folder) if (line.partner, line.decoding) == (partner, decoding)]
    return [text for line in chosen for who, text in said(line.episode) if who != line.seat]


def without_surprise(record: Record) -> Record:
    """A record without what comes from log-probabilities."""
    kept = {name: value for name, value in record.metrics.items() if not name.startswith("surprise")}
    return replace(record, metrics=kept)


def test_every_kind_is_played_and_unavailable_partners_are_missing_with_their_reasons(
    run: Run, server: FakeEndpoint, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = run_problems(3)
    recording(tmp_path, *({"question": f"Q: {text}", "reply": "1+1=2"} for text in problems))
    (tmp_path / "few.jsonl").write_text(json.dumps({"question": f"Q: {problems[0]}", "reply": "1+1=2"}))
    hosted = f"kind: endpoint, policy: m, base_url: '{server.url}'"
    path = roster(
        tmp_path,
        f"name: hosted, {hosted}, cache: cache.jsonl",
        "name: recorded, kind: recorded, policy: replies.jsonl, field: reply",
        "name: perturbed, kind: perturbed, how: drop, of: {kind: scripted, policy: diligent}",
        f"name: hot, kind: perturbed, how: temperature, temperature: 2, of: {{kind: model, policy: {qwen2_folder()}}}",
        f"name: hot-hosted, kind: perturbed, how: temperature, temperature: 2, of: {{{hosted}}}",
        "name: gone, kind: recorded, policy: gone.jsonl, field: reply",
        "name: few, kind: recorded, policy: few.jsonl, field: reply",
        "name: down, kind: endpoint, policy: m, base_url: 'http://127.0.0.1:9/v1', retries: 0",
        "name: deaf, kind: perturbed, how: drop, of: {kind: model, policy: ./nowhere}",
        f"name: poor, {hosted}, token_budget: 200, concurrency: 1",
    )
    records = evaluate([run], path, tmp_path / "out", problems=3)
    played, missing = results(tmp_path / "out")
    assert played == {"self-play", "hosted", "recorded", "perturbed", "hot", "hot-hosted"}
    assert len(records) == 6 * 2 * 2 and all(record.n == 3 for record in records)
    reasons = {
        "gone": "cannot read the recorded replies",
        "few": "none of the 1 questions",
        "down": "no connection to",
        "deaf": "no model folder",
        "poor": "the budget of 200 tokens is spent",
    }
    assert set(missing) == set(reasons) and all(reasons[name] in missing[name] for name in reasons)
    assert {body["temperature"] for body in server.asked} == {0, 1, 2}
    assert {body["max_tokens"] for body in server.asked} == {4}  # as long as in training
    assert set(said_by(tmp_path / "out", "hosted")) == {"hm"}
    assert set(said_by(tmp_path / "out", "recorded")) == {"1+1=2"}
    assert set(said_by(tmp_path / "out", "perturbed")) == {""}

    write_summary([run], tmp_path / "out")
    shown = " ".join(capsys.readouterr().out.split())
    shown_table = (tmp_path / "out" / "table.md").read_text()
    assert "Not played: down: partner 'down': no connection to" in shown and "- Not played: poor:" in shown_table
    read = read_results(tmp_path / "out")
    assert read.missing == missing == merge([read]).missing

    server.asked.clear()  # what was cached is not asked for again, and gives the same
    again = evaluate([run], roster(tmp_path, f"name: hosted, {hosted}, cache: cache.jsonl"), problems=3)
    assert server.asked == []
    mine = [record for record in records if record.partner in ("self-play", "hosted")]
    assert [without_surprise(record) for record in mine] == [without_surprise(record) for record in again]
    for one, other in zip(mine, again, strict=True):  # of batches of another size: equal up to float error
        assert one.metrics == pytest.approx(other.metrics, abs=1e-3)


def run_problems(count: int) -> list[str]:
    from tasks.worksheet import Worksheet

    return ["+".join(map(str, p.data["numbers"])) for p in Worksheet().problems("test", count)]


def test_without_any_partner_there_is_still_self_play(run: Run, tmp_path: Path) -> None:
    path = roster(tmp_path, "name: gone, kind: recorded, policy: gone.jsonl, field: reply")
    records = evaluate([run], path, tmp_path / "out", problems=2, decodings=["greedy"])
    assert {record.partner for record in records} == {"self-play"} and len(records) == 2
    assert set(results(tmp_path / "out")[1]) == {"gone"}


def test_a_partner_that_is_missing_when_training_begins_is_an_error_and_one_that_fails_later_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from tasks.worksheet import Worksheet

    engine = make_engine(qwen2_folder(), ["first", "second"])
    team = Team("training", "", {"first": "first", "second": "second"}, {"first": "main", "second": "main"})
    path = roster(tmp_path, "name: gone, kind: recorded, policy: gone.jsonl, field: reply")
    with pytest.raises(UnavailableError, match="cannot read"):
        DevEvaluation(Worksheet(), team, {"main": engine}, path, problems=1, seed=0)
    path = roster(tmp_path, "name: down, kind: endpoint, policy: m, base_url: 'http://127.0.0.1:9/v1', retries: 0")
    dev = DevEvaluation(Worksheet(), team, {"main": engine}, path, problems=1, seed=0)
    numbers = dev()
    assert "partner down failed, and the training goes on without it this time" in caplog.text
    assert math.isnan(numbers["worst_partner"])
    assert {"self_play", "effort/first", "effort/second"} <= numbers.keys()
    assert "down/first" not in numbers


def test_the_loader_gives_endpoints_the_tasks_stop_and_limit(server: FakeEndpoint) -> None:
    entry = Entry("hosted", "endpoint", "m", {"base_url": server.url, "temperature": 0.5})
    longer = Entry("hosted", "endpoint", "m", {"base_url": server.url, "max_tokens": 99})
    with PolicyLoader(Toy(stop=("\n",), reply_tokens=6)) as loader:
        policy = loader.partner(entry)["left"]
        assert isinstance(policy, Endpoint)
        assert (policy.stop, policy.max_tokens, policy.temperature) == (("\n",), 6, 0.5)
        assert loader.partner(entry)["left"] is not policy
        assert loader.partner(longer)["right"].max_tokens == 99  # type: ignore[union-attr]
