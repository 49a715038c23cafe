"""Tables, plots and the page of a run. Needs no server, no load generator and no optuna."""

from tuner.report.front import pareto_front
from tuner.report.page import write_report
from tuner.report.run import Run
from tuner.report.tables import ClosingRow, closing_rows, pareto_rows, write_pareto_csv
from tuner.report.wording import Headline, headline

__all__ = [
    "ClosingRow",
    "Headline",
    "Run",
    "closing_rows",
    "headline",
    "pareto_front",
    "pareto_rows",
    "write_pareto_csv",
    "write_report",
]
