"""`llm-sra completion`: a script that completes commands, flags, shipped names and files in bash or zsh."""

import argparse
from collections.abc import Callable, Collection, Iterable, Sequence
from importlib import import_module
from pathlib import Path

from llm_sra import registry
from recipes.cli import COMMANDS
from recipes.commands.list import KINDS
from recipes.fields import fields_parser

HOW = {"bash": 'eval "$(llm-sra completion bash)"', "zsh": 'eval "$(llm-sra completion zsh)"'}
# By a flag's or an argument's name: the names that ship, and the ending of files that can be named in their place.
NAMES: dict[str, tuple[str, Callable[[], Collection[str]], str]] = {
    "config": ("recipes", registry.shipped_recipes, "yaml"),
    "roster": ("rosters", registry.shipped_rosters, "yaml"),
    "dev_roster": ("rosters", registry.shipped_rosters, "yaml"),
    "partners": ("rosters", registry.shipped_rosters, "yaml"),
    "task": ("tasks", registry.shipped_tasks, "py"),
    "model_name_or_path": ("models", registry.shipped_models, ""),
    "path": ("names", lambda: [name for shipped in KINDS.values() for name in shipped()], ""),
}
FILES = ("run", "runs", "output_dir", "initial_adapter", "engine_adapter_dir", "resume_from_checkpoint")
ELSEWHERE = (("warm-start", "partners"),)  # other things of the same name
# Of what shtab writes.
CHANGED = {
    "bash": {
        # Where nothing is known that begins as the word does, bash completes files.
        "complete -o bashdefault -F": "complete -o bashdefault -o default -F",
        # After `--config A B` a flag can follow, too.
        ' &&\n        ( -z "$current_action_compgen" || "$current_action_is_positional" = true ) ]]': " ]]",
    },
    # It registers itself when it is sourced, too.
    "zsh": {"$zsh_eval_context[-1] == eval": "$zsh_eval_context[-1] != loadautofunc"},
}
LONGEST = 80  # characters of what zsh says of a flag


def main(argv: Sequence[str] | None = None) -> None:
    """Print the script.

    Args:
        argv: Arguments of the command line without the program's name; those of this process if None.
    """
    args = parser().parse_args(argv)
    print(script(args.shell))


def parser() -> argparse.ArgumentParser:
    """The flags."""
    parser = argparse.ArgumentParser(
        "llm-sra completion",
        description="Print a script that completes commands, flags, the names of what ships, and files. "
        + " ".join(f"In {shell}, for this session: {how}." for shell, how in HOW.items()),
    )
    parser.add_argument("shell", choices=tuple(HOW))
    return parser


def script(shell: str) -> str:
    """The script for a shell, `bash` or `zsh`."""
    import shtab

    made = str(shtab.complete(_whole(), shell=shell))
    for theirs, ours in CHANGED[shell].items():
        if theirs not in made:
            raise RuntimeError(f"shtab no longer writes {theirs!r} for {shell}: see what it writes instead")
        made = made.replace(theirs, ours)
    return made


def _whole() -> argparse.ArgumentParser:
    """Every command with its flags, as one parser."""
    whole = argparse.ArgumentParser("llm-sra")
    whole.add_argument("--version", action="store_true")
    commands = whole.add_subparsers()
    for name, text in COMMANDS.items():
        own = import_module(f"recipes.commands.{name.replace('-', '_')}").parser()
        of_command = commands.add_parser(name, parents=[own], add_help=False, help=text)
        if "--help-all" in own._option_string_actions:  # it takes the fields of a recipe, too
            for action in _fields(own._option_string_actions):
                of_command._add_action(action)
        for action in of_command._actions:
            if (name, action.dest) not in ELSEWHERE:
                _complete(action)
    return whole


def _fields(without: Collection[str]) -> Iterable[argparse.Action]:
    """The fields of a recipe, each in one spelling, but for those that a command has itself."""
    known = {}
    for action in fields_parser()._actions:
        if f"--{action.dest}" not in without and action.dest not in known:
            known[action.dest] = action
            action.option_strings = [f"--{action.dest}"]
            action.help = f"{action.help}".partition(". ")[0][:LONGEST]
    return known.values()


def _complete(action: argparse.Action) -> None:
    """Tell shtab what the values of a flag or an argument are."""
    import shtab

    if action.dest == "arms":
        action.choices = next(one.choices for one in fields_parser()._actions if one.dest == "arm")
    elif action.dest in NAMES:
        action.complete = _names(*NAMES[action.dest])  # type: ignore[attr-defined]
    elif action.type is Path or action.dest in FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]


def _names(kind: str, shipped: Callable[[], Collection[str]], ending: str) -> dict[str, str | dict[str, str]]:
    """How shtab completes names that ship, and files of an ending (empty: any)."""
    names, function = " ".join(shipped()), f"_llm_sra_{kind}"
    files = f"compgen -f -X '!*.{ending}' -- \"$1\"" if ending else ":"
    return {
        "bash": function,
        "zsh": function,
        "preamble": {
            "bash": f"{function}() {{\n  compgen -W '{names}' -- \"$1\"\n  {files}\n}}",
            "zsh": f"{function}() {{\n  _alternative 'shipped:{kind} that ship:({names})' 'files:file:_files'\n}}",
        },
    }
