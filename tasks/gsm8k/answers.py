r"""Finds where a reply states its answer: the one reader for references, rewards and metrics.

docs/gsm8k-answers.md has the rules in words, and a table of what is read. This module finds the places (`####`,
`\boxed`, "the answer is", the last number); `pieces` reads what is written there. It does not know the right answer.
Every pass takes linear time, so no reply can make it compute for long.
"""

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction

from tasks.gsm8k.markup import plain_characters, without_markup
from tasks.gsm8k.pieces import UNCLEAR, Stated, first_sentence, has_digit, plain_statement, statement

MOST = 50  # most marks, boxes or labels of a reply that are examined, from its end

_DECORATION = " \t:*_=\"'"
_MARK = re.compile(r"(?<!#)####(?!#)")
_EXAMPLE = re.compile(r"(?:\bfor example|\be\.g\.|\bsuch as)[^\n#]{0,60}$", re.IGNORECASE)
_LISTED_HEADING = re.compile(r"(?m)^[ \t]*#{1,6}[ \t]*([0-9]{1,2})[.)][ \t]+(?=[A-Za-z])")
_LISTED = re.compile(r"[ \t]*([0-9]{1,2})[.)][ \t]+[A-Za-z]")

_DENIED = re.compile(r"[ \t]*(?:is |are )?(?:not|isn't|aren't|neither)\b", re.IGNORECASE)

_BRACE = re.compile(r"\\[{}]|(\\f?boxed[ \t]*\{|\\fbox[ \t]*\{)|[{}]")
_BARE_BOX = re.compile(r"\\boxed[ \t]+([^\s{}]+)")

_LABEL = re.compile(
    r"(?m)^[^\w\n]{0,20}A:|\bans(?:wer)?\b[\"'*_)]{0,4}(?: to (?:the|this) (?:problem|question))?[ \t]*"
    r"(?:is(?=n't)|(?:is|are|was|would be|will be|should be|must be|equals)\b[ \t:=]*|[:=]+|\.:|[ \t]-[ \t])|"
    r"^[^\w\n]{0,20}(?:the |my |final |correct )*answer[^\w\n]{0,20}$",
    re.IGNORECASE,
)
_OF_OTHERS = re.compile(
    r"\b(?:other|another|peer|their|your|his|her|wrong|incorrect|previous|earlier|old)\b", re.IGNORECASE
)
_FOLLOWING = re.compile(r"(?:[ \t>]*\n){1,3}[ \t>]*(?:#{1,6}[ \t]+|[-*•][ \t]+)?([^\n]*)")

_HEADING = re.compile(r"(?m)^[ \t]*#{1,6}[^\n0-9]*[A-Za-z][^\n]*$")
_LIST_NUMBER = re.compile(r"(?m)^[ \t>#*-]*\(?[0-9]{1,2}[.)][ \t]+(?=\S)")
_NUMBERED = re.compile(
    r"\b(?:step|part|question|problem|example|figure|table|section|line|equation|round|solver|solution|case|method|option)s?"
    r"[ \t]*#?[0-9]{1,3}\b(?![.,]?[0-9%])",
    re.IGNORECASE,
)
_FRACTION = r"\\[dtc]?frac[ \t]*(?:\{[^{}\n]{1,80}\}|[0-9])[ \t]*(?:\{[^{}\n]{1,80}\}|[0-9])"
_LAST = re.compile(
    rf"-?[$€£¥₹]?-?(?:[0-9]+[ ]?)?{_FRACTION}"
    r"|(?<![0-9A-Za-z.,'/_^\-+*])(?<![0-9]:)-?[$€£¥₹]?-?\.?[0-9]+(?:[.,'_][0-9]+)*+(?:[ ][0-9]{3}(?![0-9]))*+"
    r"(?:[ ]?/[ ]?[0-9]+|[ ][0-9]+/[0-9]+)?"
)
_UNFINISHED = re.compile(r"[ ]?[-+*/^][ ]?[$(]*[0-9]")
_OPERAND = re.compile(r"[0-9)%}](?:[ ]?[A-Za-z]{1,20}){0,3}[ ]?[-+*/][ ($€£¥₹]{0,3}$")


def final_answer(text: str, strict: bool = False) -> Fraction | None:
    r"""The answer that a text states; None if it states none, or an ambiguous one.

    It is the number after the last `####`; else the one in the last `\boxed{...}`; else the one after the last `A:` at
    the beginning of a line, `answer is` or `answer:`; else the last number. A place without a number is skipped.

    Args:
        text: Untrusted text of any length.
        strict: Accept only `#### number` with a plain number, which a unit may follow.

    Returns:
        The exact value.
    """
    if strict:
        found = _marked(plain_characters(text), strict=True)
        return found.value if found else None
    text = without_markup(text)
    found = _marked(text, strict=False) or _boxed(text) or _labelled(text) or _last_number(text)
    return found.value if found else None


def _marked(text: str, strict: bool) -> Stated | None:
    """What follows the last `####` that a number follows."""
    headings = {int(match[1]) for match in _LISTED_HEADING.finditer(text)}
    end, looked_at = len(text), 0
    for mark in reversed(list(_MARK.finditer(text))):
        piece = _line(text, mark.end(), end)
        bare = not piece.strip(_DECORATION)
        at_line_end = mark.end() + len(piece) < end
        end = mark.start()
        if not has_digit(piece) and (strict or not bare or not at_line_end):
            continue
        listed = _LISTED.match(piece)
        if listed and {int(listed[1]) - 1, int(listed[1]) + 1} & headings:
            continue  # the headings of a list: "#### 1. Eggs", "#### 2. Money"
        if _EXAMPLE.search(text[max(0, end - 80) : end]):
            continue
        if bare:
            stated = _below(text, mark.end() + len(piece))
        else:
            stated = plain_statement(piece) if strict else _of_mark(piece)
        looked_at += 1
        if stated or looked_at == MOST:
            return stated
    return None


def _of_mark(piece: str) -> Stated | None:
    if _DENIED.match(piece):
        return UNCLEAR
    label = _LABEL.search(piece)
    return statement(piece[label.end() :], sentence=True) if label else statement(piece)


def _boxed(text: str) -> Stated | None:
    """What the last closed box with a number says. A box that the token limit cut off does not count."""
    if "box" not in text:
        return None
    found = sorted([*_boxes(text), *((match.end(), match[1]) for match in _BARE_BOX.finditer(text))])
    for _, inside in reversed(found[-MOST:]):
        if stated := statement(" ".join(inside.split()), sentence=True):
            return stated
    return None


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    opened: list[int | None] = []
    for brace in _BRACE.finditer(text):
        if brace[0] in (r"\{", r"\}"):
            continue
        if brace[0] != "}":
            opened.append(brace.end() if brace[1] else None)
        elif opened and (start := opened.pop()) is not None and brace.start() - start <= 400:
            yield brace.end(), text[start : brace.start()]


def _labelled(text: str) -> Stated | None:
    """The number after the last "answer is", "answer:" or "A:" that has one, on the same line or the next."""
    for label in reversed(deque(_LABEL.finditer(text), maxlen=MOST)):
        if _OF_OTHERS.search(_line(text, max(0, label.start() - 40), label.start(), last=True)):
            continue
        piece = _line(text, label.end(), len(text))
        if not piece.strip(_DECORATION):
            stated = _below(text, label.end() + len(piece))
        else:
            stated = statement(piece, sentence=True)
            reasoned = stated and stated.vague and (stated.value is None or label[0][-1] in ":=")
            if reasoned and has_digit(text[label.end() + len(first_sentence(piece)) :]):
                continue  # a sentence about the answer, or its first reason: more numbers follow
        if stated:
            return stated
    return None


def _below(text: str, end: int) -> Stated | None:
    """The number with which the next line that is not blank begins, if it does."""
    following = _FOLLOWING.match(text, end)
    return statement(following[1]) if following else None


def _last_number(text: str) -> Stated | None:
    """The last number of the text, without the numbers of headings, steps and lists."""
    text = _without_open_box(text).rstrip()
    start = text.rfind("\n") + 1
    text = _HEADING.sub("", text[:start]) + text[start:]
    text = _NUMBERED.sub(
        "", _LIST_NUMBER.sub("", "\n".join(line for line in text.split("\n") if not _is_example(line)))
    )
    last = next(iter(deque(_LAST.finditer(text), maxlen=1)), None)
    if last is None:
        return None
    if _UNFINISHED.match(text, last.end()) or _OPERAND.search(text[max(0, last.start() - 60) : last.start()]):
        return UNCLEAR  # a calculation that was not finished
    return statement(_line(text, last.start(), len(text)))


def _is_example(line: str) -> bool:
    mark = _MARK.search(line)
    return mark is not None and _EXAMPLE.search(line[: mark.start()][-80:]) is not None


def _without_open_box(text: str) -> str:
    start = text.rfind("\\boxed{")
    return text[:start] if start >= 0 and "}" not in text[start:] else text


def _line(text: str, start: int, end: int, last: bool = False) -> str:
    """The first line of a stretch of text, or its last."""
    if last:
        return text[start:end].rpartition("\n")[2]
    stop = text.find("\n", start, end)
    return text[start : end if stop < 0 else stop]
