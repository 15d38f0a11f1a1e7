"""Rosters: named lists of partners for evaluation or training, read and checked.

    partners:
      - {name: lazy, kind: scripted, policy: lazy}                # of the task, path/to/file.py:Class or module:Class
      - {name: other-run, kind: adapter, policy: ./agents/{seat}} # an adapter of any base; {seat}: one per seat
      - {name: stranger, kind: model, policy: ../models/other}    # a Hugging Face model, own tokenizer and template
      - {name: quick, kind: model, policy: Qwen/Qwen3-0.6B, chat_template_kwargs: {enable_thinking: false}}
      - name: hosted                                              # a model on any OpenAI-compatible server
        kind: endpoint
        policy: qwen/qwen3-4b                                     # as the server calls it
        base_url: https://example.org/v1
        key_env: EXAMPLE_KEY                                      # variable that holds the key
        requests_per_minute: 60
        token_budget: 500000
        cache: cache/qwen3-4b.jsonl
      - {name: written, kind: recorded, policy: replies.jsonl, field: reply}  # replays what was once said
      - {name: anna, kind: recorded, policy: people.jsonl, who: Anna}         # replays a person: `llm-sra play --keep`
      - {name: deaf, kind: perturbed, of: {kind: scripted, policy: diligent}, how: drop, probability: 0.3, seed: 1}
      - {name: own, kind: live}  # the agent's partner from training; a training's roster may add `seeds: 3`

Paths are relative to the roster. `loader` turns entries into policies. A roster is data: Python that it names runs only
where the caller allows it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from llm_sra.errors import NoFileError, unknown
from llm_sra.policies.perturbed import HOWS, SAY, TEMPERATURE
from llm_sra.registry import find_roster, is_shipped
from llm_sra.untrusted import UntrustedError, check_pattern, one_line, read_yaml, replaced, shown

SELF_PLAY = "self-play"
LONGEST = 500  # characters of a name, kind or policy
ALWAYS = ("name", "kind", "policy")
WITHOUT_POLICY = ("live", "perturbed")  # kinds of entries that have no key `policy`


class RosterError(ValueError):
    """A roster cannot be used; says which entry and what was expected."""


@dataclass(frozen=True)
class Entry:
    """One partner.

    Attributes:
        name: Name of the partner, in results.
        kind: A key of `KINDS`.
        policy: Name, path or `path:Class`; empty for `live` and `perturbed`.
        options: What else the kind takes; of `perturbed`, `of` is an entry.
        group: Of which group tables count it; empty: of its kind's.
    """

    name: str
    kind: str
    policy: str
    options: Mapping[str, Any] = field(default_factory=dict)
    group: str = ""

    @property
    def innermost(self) -> "Entry":
        """The entry inside all perturbations; itself if it is not perturbed."""
        return self.options["of"].innermost if self.kind == "perturbed" else self

    @property
    def counted_as(self) -> str:
        """Its group in tables: as the roster says; else `learned` for adapters, `people` for theirs, and its kind."""
        if self.kind == "recorded" and "field" not in self.options:
            return self.group or "people"
        return self.group or ("learned" if self.kind == "adapter" else self.kind)


@dataclass(frozen=True)
class _Key:
    """What a key of an entry may hold."""

    expected: str
    fits: Callable[[Any], bool]
    required: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12  # nan is not


def _is_url(value: Any) -> bool:
    try:
        url = urlsplit(value) if isinstance(value, str) else None
        return url is not None and url.scheme in ("http", "https") and bool(url.hostname) and "@" not in url.netloc
    except ValueError:
        return False


def _is_plain(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    return value is None or isinstance(value, str | bool) or _is_number(value)


def _is_day(value: Any) -> bool:
    try:
        return bool(date.fromisoformat(str(value)))
    except ValueError:
        return False


def _are_patterns(value: Any) -> bool:
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        return False
    try:
        for old in value:
            check_pattern(old)
    except UntrustedError:
        return False
    return True


TEXT = _Key("text", lambda value: isinstance(value, str) and bool(value))
FLAG = _Key("true or false", lambda value: isinstance(value, bool))
WHOLE = _Key("a whole number", lambda value: type(value) is int)
COUNT = _Key("a whole number of 1 or more", lambda value: type(value) is int and value >= 1)
ARGUMENTS = _Key(
    "a mapping of names to plain values, such as {enable_thinking: false} or {date_string: 26 Jul 2024}",
    lambda value: (
        isinstance(value, dict) and all(isinstance(key, str) and _is_plain(one) for key, one in value.items())
    ),
)
DAY = _Key("a date, YYYY-MM-DD", _is_day)
GROUP = {"group": _Key("text of at most 40 characters", lambda value: TEXT.fits(value) and len(value) <= 40)}
ASKED = {"chat_template_kwargs": ARGUMENTS, "template_date": DAY}
POSITIVE = _Key("a number above 0", lambda value: _is_number(value) and value > 0)
QUANTISED = {"load_in_4bit": FLAG, "load_in_8bit": FLAG, "bnb_4bit_quant_type": TEXT, "use_bnb_nested_quant": FLAG}

KINDS: Mapping[str, Mapping[str, _Key]] = {
    "scripted": {},
    "adapter": {"base": TEXT, **QUANTISED, **ASKED},
    "model": {"dtype": TEXT, "trust_remote_code": FLAG, **QUANTISED, **ASKED},
    "endpoint": {
        "base_url": _Key("http(s)://host..., without a name or password in it", _is_url, required=True),
        "key_env": _Key("an environment variable's name", lambda v: isinstance(v, str) and v.isidentifier()),
        "requests_per_minute": POSITIVE,
        "concurrency": COUNT,
        "timeout": POSITIVE,
        "retries": _Key("a whole number of 0 or more", lambda value: type(value) is int and value >= 0),
        "max_tokens": COUNT,
        "token_budget": COUNT,
        "cache": TEXT,
        "temperature": POSITIVE,
        "served_as": TEXT,
        "opens_thought": FLAG,
    },
    "live": {"seeds": COUNT},
    "recorded": {
        "field": TEXT,
        "key": TEXT,
        "who": TEXT,
        "rewrite": _Key("a mapping of regular expressions to what takes their place", _are_patterns),
    },
    "perturbed": {
        "of": _Key("a partner: {kind, policy, ...}", lambda value: isinstance(value, dict), required=True),
        "how": _Key(f"one of {', '.join(HOWS)}", lambda value: value in HOWS, required=True),
        "probability": _Key("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
        "seed": WHOLE,
        "temperature": _Key("a number above 1", lambda value: _is_number(value) and value > 1),
        "text": _Key("text", lambda value: isinstance(value, str)),
    },
}
SECRET = ("base_url", "key_env")  # may hold a password or a key by mistake, so errors do not show their values


def read_roster(roster: str | Path) -> list[Entry]:
    """The entries of a roster.

    Args:
        roster: A YAML file, or the name of a shipped roster such as `worksheet_test`.

    Raises:
        RosterError: If the file is missing, malformed, or names a partner twice.
    """
    try:
        path = find_roster(roster)
    except NoFileError as error:
        raise RosterError(str(error)) from error
    try:
        loaded = read_yaml(path)
    except UntrustedError as error:
        raise RosterError(f"{path} cannot be read: {error}") from error
    if not isinstance(loaded, dict) or set(loaded) != {"partners"} or not isinstance(loaded["partners"], list):
        raise RosterError(f"{path} must hold one key, `partners`, with a list of `{{name, kind, policy}}`")
    return as_entries(loaded["partners"], path)


def as_entries(items: Sequence[Any], path: Path) -> list[Entry]:
    """The entries of a list of partners.

    Args:
        items: As they stand in a roster.
        path: The file that holds them: paths in them are relative to its folder.

    Raises:
        RosterError: If one is malformed, or two have one name.
    """
    entries = [one for item in items for one in _with_seeds(_entry(item, path))]
    names = [entry.name for entry in entries]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RosterError(f"{path} names more than once: {', '.join(twice)}")
    _check_rewrites(entries, path)
    return entries


def as_item(entry: Entry) -> dict[str, Any]:
    """An entry as a roster in any folder may hold it; its paths are absolute.

    Args:
        entry: Of a roster; not one of those that `seeds` makes of a live partner.
    """
    named = {"name": entry.name, "kind": entry.kind, **({"policy": entry.policy} if entry.policy else {})}
    options = {key: as_item(value) if isinstance(value, Entry) else value for key, value in entry.options.items()}
    return {**named, **({"group": entry.group} if entry.group else {}), **options}


def file_beside(roster: str | Path, ending: str) -> Path:
    """The file beside a roster that has its name and another ending; it need not be there.

    Raises:
        NoFileError: If there is no such roster.
    """
    return find_roster(roster).with_suffix(ending)


def read_playable(roster: str | Path, *, trust_scripts: bool = False, trust_remote_code: bool = False) -> list[Entry]:
    """The entries of a roster that is about to be played.

    Args:
        roster: See `read_roster`.
        trust_scripts: Whether scripted partners that do not ship with llm-sra may run.
        trust_remote_code: Whether Python may run that comes with the models for which the roster says so.

    Raises:
        RosterError: If the roster cannot be used, or names Python that may not run.
    """
    entries = read_roster(roster)
    inner = [entry.innermost for entry in entries]
    scripts = [entry.policy for entry in inner if entry.kind == "scripted" and not is_shipped(entry.policy)]
    models = [entry.policy for entry in inner if entry.options.get("trust_remote_code")]
    for allowed, named, what, flag in (
        (trust_scripts, scripts, "the scripts of its partners", "trust_scripts"),
        (trust_remote_code, models, "Python that comes with the models of its partners", "trust_remote_code"),
    ):
        if named and not allowed:
            raise RosterError(
                f"{one_line(roster)} wants to run {what}, {one_line(', '.join(dict.fromkeys(named)))}: read them, then "
                f"add --{flag} if they may run"
            )
    return entries


def _entry(item: Any, path: Path) -> Entry:
    perturbed = isinstance(item, dict) and item.get("kind") == "perturbed"
    always = ("name", "kind") if isinstance(item, dict) and item.get("kind") in WITHOUT_POLICY else ALWAYS
    if not isinstance(item, dict) or not set(always) <= set(item):
        raise RosterError(f"{path}: each partner needs name, kind and policy, got {shown(item)}")
    for key in always:
        if isinstance(item[key], bool | list | dict | set | None) or len(str(item[key])) > LONGEST:
            raise RosterError(
                f"{path}: `{key}` must be text of at most {LONGEST} characters, got {shown(item[key])}"
                + (
                    " (YAML makes that of yes, no, on and off: write it in quotes)"
                    if item[key] in (True, False)
                    else ""
                )
            )
    kind, where = str(item["kind"]), f"{path}, partner {item['name']!r}"
    if kind not in KINDS:
        raise RosterError(f"{where}: {unknown('kind', kind, KINDS)}")
    if item["name"] == SELF_PLAY:
        raise RosterError(f"{path}: the name {SELF_PLAY!r} is kept for a run's own partner")
    options = {key: value for key, value in item.items() if key not in always}
    _check(options, kind, where, always)
    if "base" in options:
        options["base"] = _model(path.parent, options["base"])
    if "template_date" in options:
        options["template_date"] = str(options["template_date"])  # YAML makes a date of it
    if "cache" in options:
        options["cache"] = str((path.parent / options["cache"]).resolve())
    if kind == "recorded":
        _check_recorded(options, where)
    if perturbed:
        options["of"] = _inner(options, item["name"], path, where)
    group = options.pop("group", "")
    return Entry(str(item["name"]), kind, _policy(kind, str(item.get("policy", "")), path.parent), options, group)


def _check_rewrites(entries: Sequence[Entry], path: Path) -> None:
    """Check that replacements fit their patterns; a roster without patterns costs nothing."""
    rules = [pair for entry in entries for pair in entry.innermost.options.get("rewrite", {}).items()]
    try:
        if rules:
            replaced(rules, [])
    except UntrustedError as error:
        raise RosterError(f"{path}: `rewrite` must be {KINDS['recorded']['rewrite'].expected}: {error}") from error


def _with_seeds(entry: Entry) -> list[Entry]:
    """A live partner with `seeds: 3` is three partners, each with a fixed seed of its own."""
    count = entry.options.get("seeds") if entry.kind == "live" else None
    if count is None:
        return [entry]
    return [replace(entry, name=f"{entry.name}-{seed}", options={"fixed_seed": seed}) for seed in range(1, count + 1)]


def _check(options: Mapping[str, Any], kind: str, where: str, always: tuple[str, ...]) -> None:
    known = {**KINDS[kind], **GROUP}
    for key, value in options.items():
        if not isinstance(key, str) or key not in known:
            raise RosterError(f"{where}: {unknown('key', key, (*always, *known))}")
        if not known[key].fits(value):
            got = "something else" if key in SECRET else shown(value)
            raise RosterError(f"{where}: `{key}` must be {known[key].expected}, got {got}")
    if missing := [key for key, what in known.items() if what.required and key not in options]:
        raise RosterError(f"{where}: kind {kind} needs {', '.join(missing)} ({known[missing[0]].expected})")


def _check_recorded(options: Mapping[str, Any], where: str) -> None:
    """A file of replies needs `field`; a file of people's episodes has neither it nor what goes with it."""
    if "field" in options and "who" in options:
        raise RosterError(f"{where}: `field` is of a file of replies, `who` of people's episodes: leave one out")
    if "field" not in options and (odd := [key for key in ("key", "rewrite") if key in options]):
        raise RosterError(f"{where}: `{odd[0]}` goes with `field`, which says where a line has the reply")


def _inner(options: Mapping[str, Any], name: Any, path: Path, where: str) -> Entry:
    """The partner that is perturbed; its name may be left out."""
    inner = _entry({"name": name, **options["of"]}, path)
    if (options["how"] == TEMPERATURE) != ("temperature" in options):
        raise RosterError(f"{where}: `temperature` goes with `how: {TEMPERATURE}`, and with no other")
    if inner.group:
        raise RosterError(f"{where}: `group` goes with the perturbed partner, not with the one inside `of`")
    if "seeds" in inner.options:
        raise RosterError(f"{where}: `seeds` goes with a live partner of its own, not with a perturbed one")
    if (options["how"] == SAY) != ("text" in options):
        raise RosterError(f"{where}: `text` goes with `how: {SAY}`, and with no other")
    if options["how"] == TEMPERATURE and inner.innermost.kind not in ("adapter", "model", "endpoint", "live"):
        raise RosterError(
            f"{where}: a {inner.innermost.kind} partner has no temperature to raise; perturb a model, an adapter or an "
            "endpoint, or choose another `how`"
        )
    return inner


def _policy(kind: str, policy: str, folder: Path) -> str:
    if kind == "model":
        return _model(folder, policy)
    is_path = kind in ("adapter", "recorded") or (kind == "scripted" and ".py:" in policy)
    return str((folder / policy).resolve()) if is_path else policy


def _model(folder: Path, value: str) -> str:
    """The path of a model's folder, or its name on the hub as it is."""
    is_path = value.startswith(("./", "../")) or (folder / value).is_dir()
    return str((folder / value).resolve()) if is_path else value
