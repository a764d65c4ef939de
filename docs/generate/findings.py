"""Findings: Markdown written by hand beside the results, with all its numbers computed from them.

Expressions such as `{{ score("Hopper-v5", "delta=0.02") }}` are Jinja2, with the functions of `vocabulary`. A number
in the text itself is an error, so that none can outlive the files it came from; names of environments, levels in
`code`, years, and numbered things (figure 4, Algorithm 1) do not count as numbers.
"""

import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, TemplateError

from generate.folder import ResultsFolder
from generate.markdown import unbroken
from trpo_lightning.errors import UserError, nearest
from trpo_lightning.report.tables import number

COMPUTED = re.compile(
    r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}"  # templates
    r"|```.*?```|`[^`\n]*`|<[^>]*>|\]\([^)]*\)|\{[^}\n]*\}"  # code, tags, addresses of links, attributes
    r"|\b(?:figure|section|table|algorithm|version|theorem|equation)s? \d+"
    r"|\b(?:19|20)\d\d\b",
    re.DOTALL | re.IGNORECASE,
)
NUMBER = re.compile(r"(?<![\w.-])[-+]?\d[\d,.]*(?:e-?\d+)?(?![\w-])")


def render(file: Path, words: dict[str, Any]) -> str:
    """Render the file's Markdown with its numbers.

    Raises:
        UserError: The file asks for something the results do not have, or holds a number that is not computed; the
            message names file and line.
    """
    text = file.read_text(encoding="utf-8")
    _refuse_numbers(file, text)
    environment = Environment(undefined=StrictUndefined, finalize=shown, keep_trailing_newline=True)
    environment.filters |= FILTERS
    try:
        template = environment.from_string(text)
        return template.render(words)
    except UserError as error:
        raise UserError(f"{_place(file, error)}: {error}") from None
    except (TemplateError, TypeError, AttributeError, ValueError, statistics.StatisticsError) as error:
        raise UserError(f"{_place(file, error)}: {error}") from None


def vocabulary(folder: ResultsFolder, references: Callable[[str, str], Any]) -> dict[str, Any]:
    """Functions for a findings file about its folder.

    Args:
        folder: Where the file is.
        references: Returns the published score with a key of `experiments/references/` in an environment.
    """

    def score(env: str, variant: str, column: str = "iqm") -> float:
        return folder.number("scores.csv", column, env=env, variant=variant)

    def interval(env: str, variant: str) -> str:
        return unbroken(f"[{shown(score(env, variant, 'ci_low'))}, {shown(score(env, variant, 'ci_high'))}]")

    return {
        "score": score,
        "interval": interval,
        "scored": lambda env, variant: f"{shown(score(env, variant))} {interval(env, variant)}",
        "evaluation": lambda env, variant: score(env, variant, "evaluation"),
        "seeds": lambda env, variant: int(score(env, variant, "finished")),
        "column": folder.column,
        "claim": folder.claim,
        "published": references,
    }


def shown(value: Any) -> Any:
    """A number as text, as in the reports' tables; integers without decimals."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else number(value)


def _listed(values: list[float]) -> str:
    texts = [shown(value) for value in values]
    return " and ".join([", ".join(texts[:-1]), texts[-1]] if len(texts) > 1 else texts)


FILTERS: dict[str, Callable[..., Any]] = {
    "mean": statistics.fmean,
    "standard_error": lambda values: statistics.stdev(values) / len(values) ** 0.5,
    "lowest": min,
    "highest": max,
    "total": sum,
    "listed": _listed,
    "digits": lambda value, digits: number(value, digits),
}
"""Filters for lists of numbers, such as `column` gives; `digits` is for one number."""


def _refuse_numbers(file: Path, text: str) -> None:
    blank = COMPUTED.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)
    found = NUMBER.search(blank)
    if found:
        line = blank.count("\n", 0, found.start()) + 1
        raise UserError(
            f"{file}:{line}: {found[0].rstrip('.,')} is not computed: take it from the results by {{{{ ... }}}}, "
            "leave it out, or write a name in `code`"
        )


def _place(file: Path, error: BaseException) -> str:
    """The file, and the line of the template that failed."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file}:{line}" if line else str(file)


def unknown(name: str, known: list[str], what: str) -> UserError:
    """The error for an unknown name."""
    return UserError(f"there is no {what} {name}{nearest(name, known)}")
