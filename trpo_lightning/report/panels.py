"""Custom panels on the report page: `report --panel module:function`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trpo_lightning.errors import UserError
from trpo_lightning.report.records import Record
from trpo_lightning.user_modules import import_user_function


@dataclass(frozen=True)
class Panel:
    """A section of the page.

    Args:
        title: Its heading.
        text: A paragraph below the figure.
        figure: A `plotly.graph_objects.Figure`, drawn in the page's colours unless it sets its own.
        html: Anything else, such as a table, as HTML that is inserted unchanged.
    """

    title: str
    text: str = ""
    figure: Any = None
    html: str = ""


def own_panels(names: Sequence[str], records: list[Record]) -> list[Panel]:
    """Call the user's functions, named `module:function`, on the records, and collect their panels.

    Raises:
        UserError: A function cannot be imported, fails, or does not return a panel.
    """
    return [_made(name, _imported(name), records) for name in names]


def _imported(name: str) -> Callable[[list[Record]], Any]:
    module, _, function = name.partition(":")
    if not module or not function:
        raise UserError(f"--panel {name}: write module:function")
    return import_user_function(name, f"--panel {name}")


def _made(name: str, function: Callable[[list[Record]], Any], records: list[Record]) -> Panel:
    try:
        panel = function(records)
    except Exception as error:  # a user's function may raise anything
        last = error.__traceback__
        while last and last.tb_next:
            last = last.tb_next
        where = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last else ""
        raise UserError(f"--panel {name}: {type(error).__name__}: {error}{where}") from error
    if not isinstance(panel, Panel):
        raise UserError(f"--panel {name}: returned {type(panel).__name__}, not a trpo_lightning.report.panels.Panel")
    if panel.figure is not None and not hasattr(panel.figure, "to_json"):
        raise UserError(f"--panel {name}: the figure is a {type(panel.figure).__name__}, not a Plotly figure")
    return panel
