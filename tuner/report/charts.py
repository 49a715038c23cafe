"""Which interactive charts a run's page has, and the words around them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart's place in the page, and the words around it."""

    id: str
    title: str
    caption: str
    walked: bool = True


def shown_charts(data: Mapping[str, Any]) -> tuple[Chart, ...]:
    """The charts that a run's page data can fill, in the order of the page."""
    if not data["points"]:
        return ()
    charts = [
        Chart(
            "front",
            "What load costs in latency: every point that was measured",
            "Right is more load, down is faster. The band joins the points that no other beats "
            "in both. Points at the upper edge are overloaded. The ring marks the configuration "
            "for the promise above. Valid open-loop measurements only.",
        ),
        Chart(
            "load",
            "Latency against offered load",
            "Each line is one server start. Where it crosses the limit, the configuration is at "
            "its end: plan with the load left of it. Latency counts from the moment a request "
            "was due, so queueing in front of a stalled server is part of it.",
        ),
    ]
    if data["distributions"]:
        charts.append(
            Chart(
                "percentiles",
                "Latency by percentile",
                f"{_compared(data)} Each further nine has the same room, so that the slowest "
                "requests, which a promise is about, can be told apart.",
            )
        )
    if any(point["rows"] is not None for point in data["points"]):
        charts.append(
            Chart(
                "rows",
                "How full the batches were",
                "Counted by the server itself. More rows in a batch are more work for one run of "
                "the model; they come with load, or by waiting for the timeout.",
            )
        )
    drawn = {index for curve in data["curves"] for index in curve["points"]}
    if any(data["points"][index]["padding"] for index in drawn):
        charts.append(
            Chart(
                "padding",
                "What padding costs",
                "Batches are filled up to the next allowed size with rows that nobody asked for; "
                "they take the model's time like any other.",
            )
        )
    if data["waits"]:
        charts.append(
            Chart(
                "waits",
                "Where the time went",
                "Mean latency at the sustainable rate, of the configurations that carry the "
                "most. Queueing and run times are the server's own figures; the rest is its front "
                "and the way there and back. Long queues with small batches say that the timeout, "
                "not the load, sets the latency.",
                walked=False,
            )
        )
    if sum(row["sustainable"] is not None for row in data["progress"]) > 1:
        charts.append(
            Chart(
                "progress",
                "What the search found, trial by trial",
                "The line is the best sustainable rate so far. A line that has long been flat "
                "says that more trials would hardly help.",
            )
        )
    return tuple(charts)


def _compared(data: Mapping[str, Any]) -> str:
    """Which loads the distributions are of."""
    names = dict.fromkeys(point["name"] for point in data["distributions"])
    if len(names) == 1:
        return "At its sustainable rate."
    return (
        "Recommended and default at the nearest loads that both were measured at, and the "
        "recommended at its own sustainable rate."
    )
