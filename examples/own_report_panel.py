"""A custom panel on the report page: a function from the runs' records to a title, a text and a figure.

In this folder:

$ python -m trpo_lightning report kl_penalty --panel own_report_panel:kl_of_updates
"""

import plotly.graph_objects as go

from trpo_lightning.report.panels import Panel
from trpo_lightning.report.records import Record


def kl_of_updates(records: list[Record]) -> Panel:
    """Show the KLs of each variant's updates: a bound cuts them off, a price spreads them around a target."""
    values: dict[str, list[float]] = {}
    for record in records:
        _, kl = record.curve("trust_region/kl")
        values.setdefault(record.variant, []).extend(kl)
    figure = go.Figure([go.Violin(y=kl, name=variant, meanline_visible=True) for variant, kl in values.items()])
    figure.update_layout(yaxis_title="KL", showlegend=False)
    updates = ", ".join(f"{len(kl)} of {variant}" for variant, kl in values.items())
    return Panel("KL of single updates", f"Mean KL over the batch, all seeds and iterations: {updates}.", figure)
