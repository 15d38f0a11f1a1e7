"""What differs between the arms of the study: a table made from their recipes.

`python -m benchmarks.study_arms --write` puts it into docs/recipes.md; a test holds the page against the recipes.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pages import put_between
from benchmarks.study import ARMS, BASELINES, TASK_ARMS, TASKS
from llm_sra.trainer.parse import read_recipe

PAGE = Path(__file__).resolve().parent.parent / "docs" / "recipes.md"
BEGIN, END = "<!-- arms: python -m benchmarks.study_arms --write -->\n", "<!-- end of arms -->\n"
HEAD = "| recipe | differs from `ippo` in | differs from `srpo` in |\n|---|---|---|\n"
UNSET = "not set"


def differences(recipe: str, other: str) -> dict[str, object]:
    """By field, the value in a recipe where it is another than in the other one; `output_dir` is left out.

    Args:
        recipe: Its name.
        other: Name of the recipe that it is compared with.
    """
    mine, theirs = read_recipe(recipe), read_recipe(other)
    fields = [*mine, *(field for field in theirs if field not in mine)]
    return {
        field: mine.get(field, UNSET)
        for field in fields
        if mine.get(field, UNSET) != theirs.get(field, UNSET) and field != "output_dir"
    }


def table() -> str:
    """A row for each recipe of the study: what it has otherwise than `ippo`, and, if of its kind, than `srpo`."""
    arms = {"worksheet": (*ARMS, *BASELINES), **dict.fromkeys(TASKS, TASK_ARMS)}
    rows = [
        f"| `{task}/{arm}` | {_told(task, arm, 'ippo')} | {_told(task, arm, 'srpo')} |\n"
        for task, names in arms.items()
        for arm in names
        if arm != "ippo"
    ]
    return HEAD + "".join(rows)


def _told(task: str, arm: str, other: str) -> str:
    alike = read_recipe(f"{task}/{arm}")["arm"] in ("srpo", "adversary")
    if arm == other or (other == "srpo" and not alike):
        return ""
    found = differences(f"{task}/{arm}", f"{task}/{other}")
    return ", ".join(f"`{field}` {_value(value)}" for field, value in found.items()) or "nothing"


def _value(value: object) -> str:
    return Path(value).name if isinstance(value, str) and value.endswith(".yaml") else str(value)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, or put it into the page."""
    parser = argparse.ArgumentParser("study_arms", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/recipes.md")
    if not parser.parse_args(argv).write:
        print(table(), end="")
        return
    put_between(PAGE, BEGIN, END, table())


if __name__ == "__main__":
    main()
