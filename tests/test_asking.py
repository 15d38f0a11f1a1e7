"""How a model is asked: adapted templates, the day, arguments, the end of a turn and thoughts, wherever it plays."""

import logging
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from partners_support import Fixed
from real_templates import TEMPLATES, tokenizer_of
from support import make_run, qwen2, qwen2_folder, qwen2_tokenizer, save_model
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from llm_sra import export
from llm_sra.engines import Request
from llm_sra.engines.replies import end_of_turn_ids, ended_by_template
from llm_sra.engines.transformers import TransformersEngine
from llm_sra.models.adapters import AdapterBank
from llm_sra.models.chat_template import TemplateError
from llm_sra.models.renderer import Renderer
from llm_sra.partners.loader import UNAVAILABLE, PolicyLoader
from llm_sra.partners.rosters import Entry, RosterError, read_roster
from llm_sra.policies import EnginePolicy
from llm_sra.task import Message, Sampling
from llm_sra.trainer.parse import ConfigError, parse
from llm_sra.untrusted import as_markdown
from tasks.worksheet import Worksheet

SYSTEM, USER, OTHER = Message("system", "Add up."), Message("user", "1 + 2"), Message("user", "go on")
SAID = Message("assistant", "3")


def asked(renderer: Renderer, *messages: Message) -> str:
    return str(renderer.tokenizer.decode(list(renderer.render(messages))))


@pytest.mark.parametrize("family", ["gemma2", "mistral-v0.1"])
def test_a_system_text_goes_into_the_first_user_message_where_there_is_no_system_role(family: str) -> None:
    renderer, together = Renderer(tokenizer_of(family, "bytes")), Message("user", "Add up.\n\n1 + 2")
    assert renderer.render([SYSTEM, USER]) == renderer.render([together])
    assert renderer.render([SYSTEM, USER, SAID, OTHER]) == renderer.render([together, SAID, OTHER])
    plain = Renderer(tokenizer_of("qwen3", "bytes"))
    assert plain.template.adapted == () and plain.template.source == TEMPLATES["qwen3"]


def test_a_template_that_leaves_the_system_text_out_in_silence_is_adapted_too() -> None:
    tokenizer = tokenizer_of("base", "bytes")
    tokenizer.chat_template = "{% for m in messages if m.role != 'system' %}{{ m.role + ': ' + m.content }}{% endfor %}"
    assert asked(Renderer(tokenizer), SYSTEM, USER) == "user: Add up.\n\n1 + 2"


@pytest.mark.parametrize("family", ["gemma2", "gemma3", "llama2", "mistral-v0.1", "mistral-v0.3"])
def test_neighbours_of_one_role_are_joined_where_roles_must_alternate(family: str) -> None:
    renderer, joined = Renderer(tokenizer_of(family, "bytes")), Message("user", "1 + 2\ngo on")
    assert renderer.render([USER, OTHER]) == renderer.render([joined])
    assert renderer.render([SYSTEM, USER, OTHER, SAID, SAID, USER]) == renderer.render(
        [SYSTEM, joined, Message("assistant", "3\n3"), USER]
    )


def test_what_was_adapted_is_said_once_for_each_model(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = tokenizer_of("gemma2", "bytes")
    tokenizer.name_or_path = "said-once"
    with caplog.at_level(logging.WARNING):
        Renderer(tokenizer)
        Renderer(tokenizer)
    [said] = [record.getMessage() for record in caplog.records if "said-once" in record.getMessage()]
    assert all(what in said for what in ("no system role", "a user must speak first", "must alternate"))


REFUSALS = {
    "not even a user": ("{{ raise_exception('no chat here') }}", r"refuses the roles \['user'\]: no chat here"),
    "no assistant": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{{ raise_exception('none') }}{% endif %}"
        "{{ m.content }}{% endfor %}",
        r"refuses the roles \['user', 'assistant', 'user'\]: none",
    ),
    "broken": ("{% for m in messages %}", "refuses the roles .*endfor"),
    "a loop in a loop": (
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        r"refuses the roles \['user'\]: it takes more than 1,000,000 steps",
    ),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "maximum recursion depth"),
    "the last alone": ("{{ messages[-1].content }}", "each message once and in order"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_partner_that_cannot_be_asked_is_missing_when_it_is_loaded(tmp_path: Path, case: str) -> None:
    template, complaint = REFUSALS[case]
    tokenizer = qwen2_tokenizer()
    model = qwen2(tokenizer)
    tokenizer.chat_template = template
    folder = save_model(model, tokenizer, tmp_path / "model")
    with pytest.raises(UNAVAILABLE, match=complaint) as error:
        PolicyLoader(Worksheet()).partner(Entry("x", "model", str(folder)))
    assert "Set another `chat_template`" in str(error.value) or "set another `chat_template`" in str(error.value)


def test_templates_that_ask_for_the_date_are_told_one_day() -> None:
    llama, oss = tokenizer_of("llama3.2", "bytes"), tokenizer_of("gpt-oss", "bytes")
    assert "Today Date: 01 Jan 2025" in asked(Renderer(llama), USER)
    assert "Today Date: 26 Jul 2024" in asked(Renderer(llama, day="2024-07-26"), USER)
    assert "Today Date: 4 July 1776" in asked(Renderer(llama, {"date_string": "4 July 1776"}), USER)
    assert "Current date: 2024-07-26" in asked(Renderer(oss, day="2024-07-26"), USER)
    # Llama 3.1's template has a day of its own.
    assert "Today Date: 26 Jul 2024" in asked(Renderer(tokenizer_of("llama3.1", "bytes")), USER)
    naive = llama.apply_chat_template([USER.as_dict()], tokenize=False)
    assert date.today().strftime("%d %b %Y") in naive


def test_a_template_that_wants_a_date_and_has_none_gets_the_day() -> None:
    tokenizer = tokenizer_of("base", "bytes")
    tokenizer.chat_template = "{{ 'On ' + date_string }}" + TEMPLATES["base"]
    assert asked(Renderer(tokenizer), USER).startswith("On 01 Jan 2025User: 1 + 2")


CLOCKS = {
    "a literal": "{{ strftime_now('%d %b %Y') }}",
    "two literals in a line": "{{ strftime_now(\"%d\") ~ x ~ strftime_now('%b') }}",
    "a variable": "{% set how = '%d. %B %Y' %}{{ strftime_now(how) }}",
    "an argument": "{{ strftime_now(x) }}",
    "by keyword": "{{ strftime_now(format='%Y-%m-%d') }}",
    "another name": "{% set today = strftime_now %}{{ today('%d %b %Y') }}",
    "a macro": "{% macro day(how) %}{{ strftime_now(how) }}{% endmacro %}{{ day('%A') }}, {{ day('%-d. %B') }}",
    "a default": "{{ date_string | default(strftime_now('%d %b %Y')) }}",
    "a default by a variable": "{% set how = '%d' %}{{ date_string | default(strftime_now(how)) }}",
    "made of parts": "{{ strftime_now('%d ' ~ '%B' + \" of %Y\") }}",
    "percent signs": "{% set how = '%%d is %d, 100 %%' %}{{ strftime_now(how) }}",
    "where it is defined": "{% if strftime_now is defined %}{{ strftime_now('%j') }}{% else %}none{% endif %}",
    "where it is not": "{% if strftime_now is not defined %}none{% else %}{{ strftime_now('%j') }}{% endif %}",
    "cut afterwards": "{{ strftime_now('%d %b %Y').split(' ')[-1] }}",
    "all that there is": "{% set how = '%a%A%w%d%b%B%m%y%Y%H%I%p%M%S%f%j%U%W%c%x%X%G%u%V%D%F%T%e%-d%-m%q' %}"
    "{{ strftime_now(how) }}",
}


@pytest.mark.parametrize("case", CLOCKS)
def test_however_a_template_asks_for_the_date_its_export_says_the_runs_day(case: str) -> None:
    tokenizer = tokenizer_of("base", "bytes")
    tokenizer.chat_template = "\nOn " + CLOCKS[case] + "\n" + TEMPLATES["base"]
    given = {"x": "%d %b"} if "x" in CLOCKS[case].split() or "(x)" in CLOCKS[case] else None
    renderer = Renderer(tokenizer, given, day="2001-02-03")
    trained = asked(renderer, USER)
    tokenizer.chat_template = renderer.template.alone()
    assert tokenizer.apply_chat_template([USER.as_dict()], tokenize=False, add_generation_prompt=True) == trained
    day = trained.partition("User:")[0]
    assert re.search(r"03|2001|February|Saturday|034", day) and "none" not in day, day
    assert "today's date is 2001-02-03" in renderer.template.notes


EXPORTED: Mapping[str, dict[str, Any]] = {
    "qwen3": {"chat_template_kwargs": {"enable_thinking": False}},
    "llama3.2": {"template_date": "2024-07-26"},
    "llama3.1": {"chat_template_kwargs": {"date_string": "4 July 1776"}},
    "gpt-oss": {},
    "gemma2": {},
    "mistral-v0.1": {},
    "llama2": {},
    "phi3": {},
    "qwen2.5": {},
}


@pytest.mark.parametrize("family", EXPORTED)
def test_an_exported_agent_is_asked_by_a_chat_api_as_it_was_trained(family: str, tmp_path: Path) -> None:
    kind = "llama legacy" if family in ("llama2", "phi3", "mistral-v0.1") else "bytes"
    tokenizer = tokenizer_of(family, kind)
    base = save_model(qwen2(tokenizer), tokenizer, tmp_path / "base")
    run = make_run(tmp_path / "run", base=base, **EXPORTED[family])
    loader = PolicyLoader(Worksheet())
    trained = loader.engines[next(iter(loader.team(run).engines.values()))].renderer
    exported = AutoTokenizer.from_pretrained(export(run, "first", tmp_path / "out"))
    for messages in ([USER], [SYSTEM, USER, SAID, OTHER], [USER, SAID, OTHER, OTHER]):
        said = [message.as_dict() for message in messages]
        ids = exported.apply_chat_template(said, add_generation_prompt=True, tokenize=True, return_dict=False)
        assert tuple(ids) == trained.render(messages)
    card = (tmp_path / "out" / "README.md").read_text()
    changed = family not in ("llama2", "phi3", "qwen2.5")
    assert (exported.chat_template != AutoTokenizer.from_pretrained(base).chat_template) == (
        changed or family == "llama2"  # whose roles must alternate
    )
    for note in trained.template.notes:
        assert as_markdown(note) in card
    assert ("asks as the training did" in card) == bool(trained.template.notes)


ENDS = {
    "qwen2.5": ["<|im_end|>", "<|im_start|>"],
    "qwen3": ["<|im_end|>", "<|im_start|>"],
    "llama2": ["</s>", "<s>"],
    "llama3": ["<|eot_id|>", "<|start_header_id|>"],
    "mistral-v0.1": ["</s>", "[INST]"],
    "mistral-v0.3": ["</s>", "[INST]"],
    "gemma2": ["<end_of_turn>", "<start_of_turn>"],
    "gemma3": ["<end_of_turn>", "<start_of_turn>"],
    "phi3": ["<|end|>", "<|user|>"],
    "phi4": ["<|im_end|>", "<|im_start|>"],
    "smollm2": ["<|im_end|>", "<|im_start|>"],
    "tinyllama": ["</s>", "<|user|>"],
    "qwen3.5": ["<|im_end|>", "<|im_start|>"],
    "lfm2": ["<|im_end|>", "<|im_start|>"],
    "r1": ["<｜end▁of▁sentence｜>", "<｜User｜>"],
    "gemma4": ["<turn|>", "<|turn>"],
    "command": ["<|END_OF_TURN_TOKEN|>", "<|START_OF_TURN_TOKEN|>"],
    "gpt-oss": ["<|return|>"],  # a reply may hold several messages, each with an end of its own
    "base": [],
}


@pytest.mark.parametrize("family", ENDS)
def test_a_turn_ends_with_what_the_template_ends_it_with(family: str) -> None:
    renderer = Renderer(tokenizer_of(family, "bytes"))
    assert renderer.tokenizer.convert_ids_to_tokens(list(renderer.ends.ids)) == ENDS[family]
    assert renderer.ends.strings == (("\nUser:",) if family == "base" else ())


def test_what_ends_a_thought_ends_no_reply_though_the_template_ends_turns_with_it() -> None:
    tokenizer = tokenizer_of("gpt-oss", "bytes")  # a copy of the template that ends the last reply as all others
    tokenizer.chat_template = tokenizer.chat_template.replace("<|return|>", "<|end|>")
    assert Renderer(tokenizer).ends.ids == ()  # the tokenizer's own <|return|> does


@pytest.mark.parametrize(
    ("between", "string"),
    [
        ("\n\n### Instruction:\n", "\n\n### Instruction:"),
        ("<|end of turn|>\n<|user|>\n", "<|end of turn|>"),  # not tokens of this vocabulary
        ("\n\n", None),
    ],
)
def test_a_template_whose_turns_are_told_apart_by_text_ends_a_reply_at_that_text(
    between: str, string: str | None
) -> None:
    tokenizer = tokenizer_of("base", "bytes")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content + BETWEEN }}{% endfor %}".replace(
        "BETWEEN", repr(between)
    )
    assert Renderer(tokenizer).ends.strings == (() if string is None else (string,))


def forger(tmp_path: Path, family: str) -> TransformersEngine:
    """A random model whose generation config names no end of turn, beside the tokenizer's end of text."""
    tokenizer = tokenizer_of(family, "bytes")
    tokenizer.eos_token = "<|endoftext|>"
    model = qwen2(tokenizer)
    model.generation_config.eos_token_id = None
    return TransformersEngine(AdapterBank(model), Renderer(tokenizer))


def request(engine: Any, seed: int = 0, tokens: int = 40, stop: tuple[str, ...] = ()) -> Request:
    return Request(engine.renderer.render([USER]), None, Sampling(), tokens, stop, seed)


def test_a_reply_never_runs_on_into_a_forged_turn(tmp_path: Path) -> None:
    engine = forger(tmp_path, "qwen2.5")
    ids = set(engine.renderer.ends.ids)
    replies = engine.generate([request(engine, seed) for seed in range(60)])
    assert any(reply.token_ids[-1] in ids for reply in replies)
    assert not any(ids & set(reply.token_ids[:-1]) for reply in replies)
    assert {reply.finish for reply in replies if reply.token_ids[-1] in ids} == {"stop"}
    assert set(end_of_turn_ids(engine.bank.base, engine.renderer)) == {*ids, engine.renderer.tokenizer.eos_token_id}


def test_a_reply_in_plain_text_never_runs_on_into_a_forged_turn() -> None:
    renderer = Renderer(tokenizer_of("base", "bytes"))
    engine = Fixed(renderer, "42\nUser: and now?\nAssistant: 43")
    [asked_for] = ended_by_template(renderer, [request(engine, stop=("##",))])
    assert asked_for.stop == ("##", "\nUser:")
    [reply] = engine.generate([request(engine)])
    assert (reply.text, reply.finish) == ("42", "stop")
    chosen = Request((1,), None, Sampling(), 1, (), 0, choices=(5,))
    assert ended_by_template(renderer, [chosen]) == [chosen]


def roster(folder: Path, entry: str) -> Path:
    path = folder / "roster.yaml"
    path.write_text(f"partners:\n  - {{name: x, {entry}}}\n")
    return path


def test_a_model_of_a_roster_is_asked_with_its_arguments_and_is_another_partner_with_others(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("qwen3", "bytes")
    folder = save_model(qwen2(tokenizer), tokenizer, tmp_path / "model")
    loader, task = PolicyLoader(Worksheet()), Worksheet()
    identities = {}
    for name, extra in {"plain": "", "slow": "true", "quick": "false", "again": "false"}.items():
        kwargs = f", chat_template_kwargs: {{enable_thinking: {extra}}}" if extra else ""
        [entry] = read_roster(roster(tmp_path, f"kind: model, policy: {folder}{kwargs}"))
        policy = loader.partner(entry)["first"]
        assert isinstance(policy, EnginePolicy)
        prompt = asked(loader.engines[policy.engine].renderer, USER)
        assert prompt.endswith("<think>\n\n</think>\n\n") == (extra == "false")
        identities[name] = loader.identity(policy)
    assert identities["quick"] == identities["again"]
    assert len({identities["plain"], identities["slow"], identities["quick"]}) == 3
    assert task.seats


def test_the_day_is_part_of_a_partner_only_where_its_template_asks_for_it(tmp_path: Path) -> None:
    identities: dict[str, list[str]] = {}
    for family in ("llama3.2", "llama3"):
        tokenizer = tokenizer_of(family, "bytes")
        folder = save_model(qwen2(tokenizer), tokenizer, tmp_path / family)
        for day in ("", ", template_date: 2025-01-01", ", template_date: 2024-07-26"):
            [entry] = read_roster(roster(tmp_path, f"kind: model, policy: {folder}{day}"))
            loader = PolicyLoader(Worksheet())
            identities.setdefault(family, []).append(loader.identity(loader.partner(entry)["first"]))
    first, same, other = identities["llama3.2"]
    assert first == same != other
    assert len(set(identities["llama3"])) == 1


def test_a_runs_day_is_kept_in_its_folder_and_its_agents_are_asked_with_it(tmp_path: Path) -> None:
    tokenizer = tokenizer_of("llama3.2", "bytes")
    base = save_model(qwen2(tokenizer), tokenizer, tmp_path / "base")
    for day, shown in ((None, "01 Jan 2025"), ("2024-07-26", "26 Jul 2024")):
        given = {} if day is None else {"template_date": day}
        run = make_run(tmp_path / f"run {day}", base=base, **given)
        assert run.config["template_date"] == (day or "2025-01-01")
        loader = PolicyLoader(Worksheet())
        assert f"Today Date: {shown}" in asked(
            loader.engines[next(iter(loader.team(run).engines.values()))].renderer, USER
        )


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ("chat_template_kwargs: true", "`chat_template_kwargs` must be a mapping of names to plain values.*got True"),
        ("chat_template_kwargs: [a]", "`chat_template_kwargs` must be a mapping of names"),
        ("chat_template_kwargs: {1: 2}", "`chat_template_kwargs` must be a mapping of names"),
        ("chat_template_kwargs: {a: 2025-01-01}", "`chat_template_kwargs` must be a mapping of names to plain"),
        ("template_date: soon", "`template_date` must be a date, YYYY-MM-DD, got 'soon'"),
        ("chat_template_args: {a: 1}", "did you mean 'chat_template_kwargs'"),
    ],
)
def test_arguments_of_a_roster_that_cannot_be_used_are_refused(tmp_path: Path, entry: str, complaint: str) -> None:
    with pytest.raises(RosterError, match=complaint):
        read_roster(roster(tmp_path, f"kind: model, policy: y, {entry}"))


def test_a_date_that_yaml_reads_as_one_is_text_again(tmp_path: Path) -> None:
    [entry] = read_roster(roster(tmp_path, "kind: model, policy: y, template_date: 2024-07-26"))
    assert entry.options == {"template_date": "2024-07-26"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"enable_thinkin": False}, "sets 'enable_thinkin', which the chat template of .* does not take.*Correct the"),
        ({"messages": []}, "sets 'messages', which"),
        ({"tokenize": False}, "sets 'tokenize', which"),
        ({"enable_thinking": date(2025, 1, 1)}, "enable_thinking must be plain data"),
    ],
)
def test_arguments_that_a_template_does_not_take_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TemplateError, match=complaint):
        Renderer(tokenizer_of("qwen3", "bytes"), arguments)


def test_a_day_that_is_none_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    flags = ["--model_name_or_path", str(qwen2_folder()), "--output_dir", str(tmp_path), "--bf16", "false"]
    with pytest.raises(ConfigError, match="template_date must be a date, YYYY-MM-DD, got 'today'"):
        parse(None, [*flags, "--template_date", "today"])


def test_several_templates_without_a_default_are_refused() -> None:
    tokenizer = qwen2_tokenizer()
    tokenizer.chat_template = {"tool_use": "{{ messages }}", "rag": "{{ messages }}"}
    with pytest.raises(TemplateError, match="several chat templates and none is called `default`: set the one to use"):
        Renderer(tokenizer)


def test_a_stop_string_that_no_token_spells_ends_no_reply() -> None:
    tokenizer = tokenizer_of("qwen2.5", "wordpiece")  # whose normaliser leaves line breaks out
    engine = TransformersEngine(AdapterBank(qwen2(tokenizer)), Renderer(tokenizer))
    prompt = engine.renderer.render([Message("user", "word")])
    replies = engine.generate([Request(prompt, None, Sampling(), 6, stop, 0) for stop in ((), ("\n",))])
    assert replies[0] == replies[1]


def test_a_tokenizer_that_says_nothing_for_unknown_text_is_asked() -> None:
    tokenizer = Tokenizer(BPE({letter: number for number, letter in enumerate("word")}, []))
    tokenizer.add_special_tokens(["<e>"])
    tokenizer.decoder = decoders.Fuse()
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<e>", chat_template=TEMPLATES["base"])
    renderer = Renderer(made)
    assert renderer.encode_text("[THINK]") == () and renderer.decode(renderer.encode_text("word")) == "word"
