"""A model's chat template as it is asked here: adapted to what tasks send, on one fixed day.

A template that refuses a system role, neighbours of one role, or a conversation that begins with a reply is changed in
the one usual way, in its own language: so training, evaluation and export ask alike. This module makes text; `renderer`
makes token ids of it.
"""

import json
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import date
from typing import TYPE_CHECKING, Any

from llm_sra.models.bounded import bounded
from llm_sra.task import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DAY = "2025-01-01"  # given to templates that ask for today's date, unless a configuration names another day
DATE_STRING = "%d %b %Y"  # as Llama writes it: 01 Jan 2025
RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "strftime_now", "raise_exception")
_CALL = re.compile(r"""strftime_now\(\s*(["'])((?:(?!\1)[^\\])*)\1\s*\)""")  # with a format that can be read off
_DEFINED = re.compile(r"strftime_now\s+is\s+(not\s+)?defined")
_PERCENT = "\ue0fe"  # private-use: no format holds it
_FLAGGED = re.compile(r"%[-_0^#EO]+[A-Za-z]")  # directives of formats with flags, such as %-d

# What a template does not do by itself, by what is said of it, in the order in which it is done: what moves or makes
# messages comes before neighbours are joined. The last `{{- '' }}` keeps jinja from eating a line break that begins the
# template proper.
SYSTEM_FIRST = "it has no system role: the system text goes into the first user message, above a blank line"
SYSTEM_LATER = "it takes no system text between other messages: such a text becomes a user message"
USER_FIRST = "a user must speak first: an empty user message stands before a reply that begins the conversation"
JOINED = "its roles must alternate: neighbouring messages of one role are joined by a line break"
_STEPS: Mapping[str, str] = {
    SYSTEM_FIRST: """\
{%- if messages and messages[0]['role'] == 'system' -%}
{%- if messages | length > 1 and messages[1]['role'] == 'user' -%}
{%- set messages = [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] \
+ messages[2:] -%}
{%- else -%}
{%- set messages = [{'role': 'user', 'content': messages[0]['content']}] + messages[1:] -%}
{%- endif -%}
{%- endif -%}
{{- '' }}""",
    SYSTEM_LATER: """\
{%- set told_by_user = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set role = 'user' if message['role'] == 'system' and not loop.first else message['role'] -%}
{%- set told_by_user.messages = told_by_user.messages + [{'role': role, 'content': message['content']}] -%}
{%- endfor -%}
{%- set messages = told_by_user.messages -%}
{{- '' }}""",
    USER_FIRST: """\
{%- set at = 1 if messages and messages[0]['role'] == 'system' else 0 -%}
{%- if messages | length > at and messages[at]['role'] == 'assistant' -%}
{%- set messages = messages[:at] + [{'role': 'user', 'content': ''}] + messages[at:] -%}
{%- endif -%}
{{- '' }}""",
    JOINED: """\
{%- set joined_by_role = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set last = joined_by_role.messages[-1] if joined_by_role.messages else {'role': ''} -%}
{%- if last['role'] == message['role'] -%}
{%- set together = {'role': last['role'], 'content': last['content'] + '\\n' + message['content']} -%}
{%- set joined_by_role.messages = joined_by_role.messages[:-1] + [together] -%}
{%- else -%}
{%- set joined_by_role.messages = joined_by_role.messages + [message] -%}
{%- endif -%}
{%- endfor -%}
{%- set messages = joined_by_role.messages -%}
{{- '' }}""",
}


class TemplateError(ValueError):
    """A model's chat template cannot frame the messages of a task."""


class ChatTemplate:
    """One model's template, with its arguments.

    Args:
        tokenizer: A tokenizer with a chat template.
        arguments: Further arguments of the template, such as `enable_thinking`.
        day: Today's date, for templates that ask for it: YYYY-MM-DD.

    Attributes:
        source: What the template says, as it is asked.
        adapted: What was changed, in words.
        given: The arguments that it was made with.
        arguments: All that it is asked with.

    Raises:
        TemplateError: If there is no template, it does not use an argument, or the day is none.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", arguments: Mapping[str, Any] | None = None, day: str = DAY
    ) -> None:
        self.name = str(tokenizer.name_or_path)
        self._tokenizer = tokenizer
        self.source = self._own = _source(tokenizer)
        self.given = dict(arguments or {})
        self.arguments = dict(self.given)
        self.adapted: tuple[str, ...] = ()
        self.day, self._date = day, read_day(day)
        self._ended: set[tuple[bool | str, ...]] = set()  # roles whose conversations it has written to an end
        self._check_arguments()
        asks_for_string = re.search(r"\bdate_string\b", self.source) and not re.search(
            r"\bset\s+date_string\b", self.source
        )
        if asks_for_string and "date_string" not in self.arguments:
            self.arguments["date_string"] = self._date.strftime(DATE_STRING)

    @property
    def depends_on_day(self) -> bool:
        """Whether it asks for today's date."""
        return "strftime_now" in self.source or "date_string" in self.arguments

    @property
    def notes(self) -> tuple[str, ...]:
        """What somebody must know who asks the model elsewhere, in words; nothing for most models."""
        given = [f"{name} is {json.dumps(value)}" for name, value in self.given.items()]
        return (*self.adapted, *given, *([f"today's date is {self.day}"] if self.depends_on_day else []))

    def adapt(self, what: str) -> None:
        """From now on, change what tasks send in this way too: one of the usual ones, above."""
        self.adapted = tuple(step for step in _STEPS if step in (*self.adapted, what))
        self.source = "".join(_STEPS[step] for step in self.adapted) + self._own
        self._ended.clear()

    def text(self, messages: Sequence[Message], prompt: bool = True) -> str:
        """Messages as the template writes them.

        Args:
            messages: Their text is taken as it is.
            prompt: Whether the beginning of a reply follows.

        Raises:
            TemplateError: If it refuses them.
        """
        roles = (prompt, *(message.role for message in messages))
        arguments = dict(self.arguments)
        if "strftime_now" in self.source:  # else transformers gives it a clock
            arguments["strftime_now"] = self._date.strftime
        try:
            with nullcontext() if roles in self._ended else bounded():
                said = self._tokenizer.apply_chat_template(
                    [message.as_dict() for message in messages],
                    chat_template=self.source,
                    tokenize=False,
                    add_generation_prompt=prompt,
                    **arguments,
                )
            self._ended.add(roles)
            return str(said)
        except Exception as error:
            why = " ".join(str(error).split()) or type(error).__name__
            raise TemplateError(
                f"the chat template of {self.name!r} refuses the roles {list(roles[1:])}: {why}. "
                "Take a model whose template has them, or set another `chat_template` on the tokenizer and save it"
            ) from error

    def alone(self) -> str:
        """The template with its arguments and its day written into it, so that any chat API asks in the same way."""
        source = _CALL.sub(lambda call: repr(self._date.strftime(call[2])), self.source)
        source = _DEFINED.sub(lambda test: "false" if test[1] else "true", source)
        lines = [
            f"{{%- if {name} is not defined -%}}{{%- set {name} = {value!r} -%}}{{%- endif -%}}"
            for name, value in self.arguments.items()
        ]
        if "strftime_now" in source:
            lines.append(self._clock())
        return "".join(lines) + "{{- '' }}" + source if lines else source

    def _clock(self) -> str:
        """A macro in the place of the function of that name: what it says of the run's day, whatever the format."""
        texts = [self.source, json.dumps(self.given, ensure_ascii=False)]
        flagged = {directive for text in texts for directive in _FLAGGED.findall(text)}
        directives = [*sorted(flagged), *(f"%{letter}" for letter in string.ascii_letters)]
        said = ((directive, self._date.strftime(directive)) for directive in directives)
        filters = "".join(f" | replace({directive!r}, {text!r})" for directive, text in said if text != directive)
        return (
            "{%- macro strftime_now(format) -%}"
            f"{{{{- format | replace('%%', '{_PERCENT}'){filters} | replace('{_PERCENT}', '%') -}}}}"
            "{%- endmacro -%}"
        )

    def _check_arguments(self) -> None:
        for name, value in self.arguments.items():
            if not _takes(self.source, name):
                raise TemplateError(
                    f"chat_template_kwargs sets {name!r}, which the chat template of {self.name!r} does not take: "
                    "expected a variable of that template, such as enable_thinking or date_string where it has them. "
                    "Correct the name, or leave it out for this model"
                )
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise TemplateError(
                    f"chat_template_kwargs: {name} must be plain data (text, a number, true, false, a list or a "
                    f"mapping), got {value!r}"
                ) from error


def arguments_taken(tokenizer: "PreTrainedTokenizerBase", arguments: Mapping[str, Any] | None) -> dict[str, Any]:
    """Those of some arguments that a tokenizer's template takes.

    Raises:
        TemplateError: If there is no template.
    """
    source = _source(tokenizer)
    return {name: value for name, value in (arguments or {}).items() if _takes(source, name)}


def _takes(source: str, name: object) -> bool:
    """Whether a template has a variable of this name that is not one of its own."""
    return name not in RESERVED and re.search(rf"\b{re.escape(str(name))}\b", source) is not None


def _source(tokenizer: "PreTrainedTokenizerBase") -> str:
    if not tokenizer.chat_template:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path!r} has no chat template: use an instruction-tuned model, or "
            "set `chat_template` on the tokenizer and save it with the model"
        )
    try:
        return str(tokenizer.get_chat_template())
    except ValueError as error:
        raise TemplateError(
            f"the tokenizer of {tokenizer.name_or_path!r} has several chat templates and none is called `default`: "
            "set the one to use as `chat_template` on the tokenizer and save it with the model"
        ) from error


def read_day(day: str) -> date:
    """The date that a text names.

    Raises:
        TemplateError: If it is none.
    """
    try:
        return date.fromisoformat(day)
    except (TypeError, ValueError):
        raise TemplateError(f"template_date must be a date, YYYY-MM-DD, got {day!r}") from None
