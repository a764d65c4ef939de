"""The contents of a report."""

from dataclasses import dataclass

from trpo_lightning.experiment.declaration import Experiment
from trpo_lightning.report.diagnosis import Diagnosis
from trpo_lightning.report.heat_map import HeatMap
from trpo_lightning.report.panels import Panel
from trpo_lightning.report.records import Record
from trpo_lightning.report.references import Reference
from trpo_lightning.report.style import Sensitivity, Style
from trpo_lightning.report.summary import Curve, Defined, Summary
from trpo_lightning.report.verdicts import Verdict


@dataclass(frozen=True)
class Report:
    """Everything that the outputs show; `default` is the variant that others are compared with, or empty."""

    experiment: Experiment
    records: list[Record]
    summaries: list[Summary]
    definitions: list[Defined]
    curves: list[Curve]
    styles: dict[str, Style]
    sensitivities: list[Sensitivity]
    heat_maps: list[HeatMap]
    verdicts: list[Verdict]
    references: list[Reference]
    diagnoses: list[Diagnosis]
    panels: list[Panel]
    warnings: list[str]
    default: str
