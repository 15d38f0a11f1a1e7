"""Reads what strangers wrote: names and replies as text, files within limits, patterns within a time.

Rosters, run folders, results and adapters come from others. Nothing of them is run here, and each function ends soon,
whatever it is given.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

LARGEST = 1 << 20  # bytes of a YAML or JSON file that a person would write
VALUES = 20_000  # in such a file, an alias counted as often as it is used
DEEPEST = 32  # lists and mappings in each other
LONGEST_NUMBER = 100  # characters; reading a number of very many digits takes the square of their count
LONGEST_PATTERN = 1000  # characters, of a regular expression and of what takes the place of what it finds
SECONDS = 1.5  # for all that the patterns of one entry or adapter do, the start of a process included
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NUMBERS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "timestamp"))
_MARKS = re.compile(r"[\\|*_<>`~&]|(?<=\])\(|^[#+-](?=\s)|^\[(?=[^\]]*\]:)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Letters and marks that Python calls printable but that nobody sees; a variation selector is part of many emoji.
_INVISIBLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\uffa0\U000e0100-\U000e01ef]")


class UntrustedError(ValueError):
    """A file, value or pattern is beyond what is read of strangers; says in which respect."""


def printable(text: object) -> str:
    r"""Text shown as text: what controls a terminal, turns the direction or cannot be seen becomes `\x1b`.

    A newline stays. Markup of Markdown, HTML or rich is for the caller to escape.
    """
    shown = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in str(text))
    return _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)


def one_line(text: object) -> str:
    """The same in one line."""
    return printable(" ".join(str(text).split()))


def as_markdown(text: object) -> str:
    """Text in one line that Markdown shows as it is, in a table as elsewhere; not for what stands in backticks."""
    return _MARKS.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), one_line(text))


def shown(value: object, longest: int = 200) -> str:
    """A value for a message: its `repr`, cut."""
    text = printable(repr(value))
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"


def read_yaml(path: Path) -> Any:
    """The plain values in a YAML file, or in one of JSON that is named `.json`.

    Raises:
        UntrustedError: If it is not YAML, is larger than `LARGEST`, nested deeper than `DEEPEST`, holds more than
            `VALUES`, a value of itself, or a key twice.
        OSError: If it cannot be read.
    """
    text = _text(path)
    if path.suffix == ".json":  # YAML reads some of JSON otherwise: 1e-5 as text, the two halves of an emoji as none
        return parse_json(text.removeprefix("\ufeff"), once=True)
    try:
        _check_events(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _values(node, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UntrustedError(f"it is not YAML: {error}") from error
    except UntrustedError:
        raise
    # What `!!bool maybe` and the like raise in PyYAML.
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, OverflowError) as error:
        raise UntrustedError(f"it is not YAML: a value cannot be read ({type(error).__name__}: {error})") from error


def is_number(value: object) -> bool:
    """Whether a value of a file is a finite number; integers beyond the range of floats are none."""
    return isinstance(value, int | float) and abs(value) < sys.float_info.max  # nan is not below it


def checked(name: str, value: Any, kind: type) -> Any:
    """A value of a file, if it is of its kind: text, a whole number, a finite number, an object.

    Raises:
        ValueError: If it is not; names it.
    """
    if is_number(value) if kind is float else isinstance(value, kind):
        return value
    wanted = {str: "text", int: "a whole number", float: "a finite number", Mapping: "an object"}[kind]
    raise ValueError(f"{name} is {repr(value)[:100]}: expected {wanted}")


def checked_numbers(name: str, value: Any) -> Mapping[str, float]:
    """An object of finite numbers; see `checked`."""
    for key, number in checked(name, value, Mapping).items():
        checked(f"{name}/{key}", number, float)
    return dict(value)


def read_json(path: Path) -> Any:
    """The values in a small JSON file, such as an adapter's configuration.

    Raises:
        UntrustedError: If it is not JSON, is larger than `LARGEST`, or nested deeper than `DEEPEST`.
        OSError: If it cannot be read.
    """
    return parse_json(_text(path))


def parse_json(text: str, once: bool = False) -> Any:
    """The values in JSON text of any size.

    Args:
        text: Untrusted.
        once: Whether a key that stands in an object twice is an error; else the later value counts.

    Raises:
        UntrustedError: If it is not JSON, or nested deeper than `DEEPEST`.
    """
    try:
        value = json.loads(text, object_pairs_hook=_each_once if once else None)
    except (ValueError, RecursionError) as error:
        raise UntrustedError(f"it is not JSON: {one_line(error)}") from error
    level, depth = [value], 0
    while level := [one for item in level for one in _parts(item)]:
        depth += 1
        if depth > DEEPEST:
            raise UntrustedError(f"it is nested deeper than {DEEPEST}")
    return value


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the key {shown(twice)} twice: keep one")
    return found


def check_pattern(pattern: str) -> None:
    """Check that a text is a regular expression; it is matched with nothing.

    Raises:
        UntrustedError: If it is none, or longer than `LONGEST_PATTERN`.
    """
    if len(pattern) > LONGEST_PATTERN:
        raise UntrustedError(f"a regular expression of {len(pattern)} characters: at most {LONGEST_PATTERN} are taken")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UntrustedError(f"{shown(pattern)} is no regular expression: {error}") from error


def replaced(rules: Iterable[tuple[str, str]], texts: Sequence[str]) -> list[str]:
    """Texts after replacements by regular expressions, in their order.

    Args:
        rules: Patterns, each with what takes the place of what it finds.
        texts: Any number.

    Raises:
        UntrustedError: If one is no regular expression, refers to a group that is not there, makes a text of more than
            a million characters, or all take longer than `SECONDS`.
    """
    pairs = [list(pair) for pair in rules]
    for part in (part for pair in pairs for part in pair):
        if len(part) > LONGEST_PATTERN:
            raise UntrustedError(f"a rule of {len(part)} characters: at most {LONGEST_PATTERN} are taken")
    return _in_a_child("replace", pairs, list(texts))


def matching(pattern: str, names: Sequence[str]) -> list[str]:
    """The names that a regular expression matches as a whole.

    Raises:
        UntrustedError: If it is none, or takes longer than `SECONDS`.
    """
    check_pattern(pattern)
    return _in_a_child("match", [[pattern, ""]], list(names))


# Python's `re` cannot be stopped within a process, and cost in time is not to be seen in a pattern. A process of its
# own can be ended, and holds no more memory than it is given.
_CHILD = """
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
try:
    what, rules, texts = json.load(sys.stdin)
    rules = [(re.compile(old), new) for old, new in rules]
    if what == "match":
        texts = [text for text in texts if rules[0][0].fullmatch(text)]
    for old, new in rules if what == "replace" else ():
        old.sub(new, "")
        texts = [old.sub(new, text) for text in texts]
        if max(map(len, texts), default=0) > 1_000_000:
            raise ValueError("a text grows to more than a million characters")
    print(json.dumps([texts, None]))
except (re.error, IndexError, ValueError, MemoryError, RecursionError, OverflowError) as error:
    print(json.dumps([None, str(error) or type(error).__name__]))
"""


def _in_a_child(what: str, rules: list[Any], texts: list[str]) -> list[str]:
    patterns = ", ".join(shown(old, 80) for old, _ in rules[:3]) + (", ..." if len(rules) > 3 else "")
    try:
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _CHILD],
            input=json.dumps([what, rules, texts]),
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise UntrustedError(
            f"the regular expression {patterns} takes more than {SECONDS:g} s: a repetition within a repetition, such "
            "as (a+)+, can take forever"
        ) from error
    found, wrong = json.loads(child.stdout) if child.stdout else (None, one_line(child.stderr)[-200:])
    if found is None:
        raise UntrustedError(f"the regular expression {patterns} cannot be used: {wrong}")
    return [str(text) for text in found]


def _text(path: Path) -> str:
    return read_text(path, LARGEST)


def read_text(path: Path, largest: int) -> str:
    """A file's text.

    Args:
        path: The file.
        largest: Bytes that are taken.

    Raises:
        UntrustedError: If it is larger, a pipe or a device, or no text.
        OSError: If it cannot be read.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UntrustedError("it is a pipe or a device, expected a file")
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise UntrustedError(f"it is larger than {largest >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UntrustedError(f"it is not text in UTF-8: {error}") from error


def _check_events(text: str) -> None:
    """Check that a YAML text is neither deep nor long, before anything is made of it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, _LOADER)):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UntrustedError(f"it is nested deeper than {DEEPEST}")
        if count > VALUES:
            raise UntrustedError(f"it holds more than {VALUES:,} values")


def _values(node: Any, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """How many values a node stands for, those of aliases included, and how deep they are; 0 while it is counted."""
    line = f"line {node.start_mark.line + 1}"
    if id(node) in known:
        if not known[id(node)][0]:
            raise UntrustedError(f"it has a value that holds itself, at {line}")
        return known[id(node)]
    if isinstance(node, yaml.ScalarNode):
        if node.tag in _NUMBERS and len(node.value) > LONGEST_NUMBER:
            raise UntrustedError(f"it has a number of {len(node.value)} characters, at {line}")
        known[id(node)] = 1, 0
        return 1, 0
    known[id(node)] = 0, 0
    if isinstance(node, yaml.MappingNode):
        _check_keys([key for key, _ in node.value])
    parts = [one for pair in node.value for one in pair] if isinstance(node, yaml.MappingNode) else node.value
    counted = [_values(part, known) for part in parts]
    total, depth = 1 + sum(count for count, _ in counted), 1 + max((deep for _, deep in counted), default=0)
    if total > VALUES or depth > DEEPEST:
        what = f"holds more than {VALUES:,} values" if total > VALUES else f"is nested deeper than {DEEPEST}"
        raise UntrustedError(f"it {what}, those of its aliases included")
    known[id(node)] = total, depth
    return total, depth


def _check_keys(keys: Sequence[Any]) -> None:
    """Check that no key of a mapping stands there twice: the later value would take the place of the earlier one."""
    seen: dict[tuple[str, str], int] = {}
    for key in keys:
        if not isinstance(key, yaml.ScalarNode):
            continue
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in seen:
            raise UntrustedError(f"it has the key {shown(key.value)} twice, at lines {seen[name]} and {line}: keep one")
        seen[name] = line


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
