"""What the replays came to: a table in Markdown, and a plot."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from one_run import BUDGET, BUDGETS
from surface import Surface

Column = list[float | None]
Results = dict[str, dict[str, dict[str, Column]]]
"""By sampler, surface and figure: an entry a seed; of the hypervolume one a start."""

GOAL_5, GOAL_1 = 8, 15
"""Starts within which the median replay is to be within 5 and 1 %."""

SYNTHETIC = "synthetic"
GOOD = 2 / 3
"""Share of the best rate from which a configuration is worth telling from the best."""

SHOWN = 60
"""Server starts that the plot covers."""

STYLES = {
    "auto": ("#000000", "-"),
    "tpe": ("#0072B2", "-"),
    "tpe-guided": ("#56B4E9", "--"),
    "gp": ("#CC79A7", "-"),
    "nsga2": ("#E69F00", ":"),
    "hill-climb": ("#D55E00", "-"),
    "random": ("#009E73", "--"),
    "grid": ("#999999", ":"),
}
"""Colours told apart by the colour-blind (Okabe and Ito 2008), and lines told apart in grey."""


def median_starts(values: Sequence[float | None]) -> float:
    """Median, where null counts as more than any number."""
    return float(np.median([np.inf if value is None else value for value in values]))


def table(
    results: Results, surfaces: Mapping[str, Surface], left_out: Mapping[str, Sequence[str]]
) -> str:
    """All figures, in Markdown; a dash where more than half of the replays found nothing."""
    seeds = max(len(c["regret_percent"]) for by in results.values() for c in by.values())
    names = sorted(surfaces, key=lambda name: (name.startswith(SYNTHETIC), name))
    recorded = [name for name in names if not name.startswith(SYNTHETIC)]
    drawn = [name for name in names if name.startswith(SYNTHETIC)]
    parts = [
        f"# Server starts that each sampler needs\n\nWritten by `make bench-search`: {seeds} "
        f"seeds on {len(recorded)} recorded and {len(drawn)} synthetic surfaces. Starts count "
        "from batching off and the server's defaults, both included. Medians; a dash where half "
        "of the replays or more ended before.\n"
    ]
    budgets = [f"`{name}` was given up after {most} starts" for name, most in BUDGETS.items()]
    parts.append(
        f"{', '.join(budgets)}, the others after {BUDGET}. `tpe-guided` begins with "
        "three of the batching guide's points and `auto` with one, as a run does. NSGA-II draws "
        "at random until its first population of 50 is measured: up to there it is `random`. The "
        "hill climb begins at the smallest of all values, which is near the best where a batch "
        "costs as much a row.\n"
    )
    for name, packages in left_out.items():
        parts.append(f"`{name}` is left out: it needs {' and '.join(packages)}, not installed.\n")
    for title, group in (("Recorded surfaces", recorded), ("Synthetic surfaces", drawn)):
        if group:
            parts.append(f"## {title}\n\n{_overall(results, group)}")
    parts.append(f"## The surfaces\n\n{_facts(surfaces, names)}")
    for title, key in (
        ("Starts to within 5 %", "starts_to_5pct"),
        ("Starts to within 1 %", "starts_to_1pct"),
        ("Seconds of server time to within 5 %", "seconds_to_5pct"),
        ("Seconds of server time to within 1 %", "seconds_to_1pct"),
    ):
        parts.append(f"## {title}\n\n{_by_surface(results, names, _median_of(key))}")
    parts.append(
        "## Regret of what is recommended after 15 starts, %, mean\n\n"
        + _by_surface(results, names, lambda found: f"{_mean(found['regret_percent']):.1f}")
    )
    parts.append(
        "## Hypervolume of load against p99 after 15 starts, share of best load x limit\n\n"
        + _by_surface(results, names, lambda found: f"{found['hypervolume'][-1]:.2f}")
    )
    return "\n".join(parts)


def _overall(results: Results, names: Sequence[str]) -> str:
    lines = [
        f"| sampler | starts to 5 % | there by {GOAL_5} "
        f"| starts to 1 % | there by {GOAL_1} | regret % |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for sampler, by_surface in results.items():
        found = [by_surface[name] for name in names if name in by_surface]
        at_5, at_1, regret = (
            [value for one in found for value in one[key]]
            for key in ("starts_to_5pct", "starts_to_1pct", "regret_percent")
        )
        lines.append(
            f"| {sampler} | {_number(at_5)} | {_reached(at_5, GOAL_5):.0%} | {_number(at_1)} "
            f"| {_reached(at_1, GOAL_1):.0%} | {_mean(regret):.1f} |"
        )
    return "\n".join(lines) + "\n"


def _facts(surfaces: Mapping[str, Surface], names: Sequence[str]) -> str:
    lines = [
        "| surface | configurations | of them twice | within 5 % | within 1 % | noise % "
        "| spread of the good % | best / default |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in names:
        surface = surfaces[name]
        rates = np.array(list(surface.truth.values()))
        near = [int((rates >= share * surface.best).sum()) for share in (0.95, 0.99)]
        default = [surface.truth[key] for role, key in surface.baselines() if role == "default"]
        gain = f"{surface.best / default[0]:.2f}" if default and default[0] else "-"
        twice = sum(len(replicates) > 1 for replicates in surface.curves.values())
        noise = f"{surface.noise * 100:.1f}"
        lines.append(
            f"| {name} | {len(rates)} | {twice} | {near[0]} | {near[1]} "
            f"| {noise if twice else f'({noise})'} | {_spread_of_good(rates) * 100:.1f} | {gain} |"
        )
    return "\n".join(lines) + (
        "\n\nNoise is the spread between starts of one configuration; in brackets where it is "
        "assumed, since none was measured twice. The good are those that carry two thirds of the "
        "best or more: where they differ by no more than noise, what is best in a grid is so by "
        "luck, which no sampler can know.\n"
    )


def _spread_of_good(rates: NDArray[np.float64]) -> float:
    """Standard deviation of the log rates that are GOOD."""
    return float(np.std(np.log(rates[rates >= GOOD * rates.max()])))


def _by_surface(
    results: Results, names: Sequence[str], cell: Callable[[dict[str, Column]], str]
) -> str:
    lines = [
        f"| surface | {' | '.join(results)} |",
        f"|---|{'--:|' * len(results)}",
    ]
    for name in names:
        cells = [cell(by[name]) if name in by else "" for by in results.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _median_of(key: str) -> Callable[[dict[str, Column]], str]:
    return lambda found: _number(found[key])


def _number(values: Sequence[float | None]) -> str:
    median = median_starts(values)
    return f"{median:.4g}" if np.isfinite(median) else "-"


def _mean(values: Sequence[float | None]) -> float:
    return statistics.fmean(value or 0.0 for value in values)


def _reached(starts: Sequence[float | None], most: int) -> float:
    return sum(value is not None and value <= most for value in starts) / len(starts)


def plot(results: Results, path: Path) -> None:
    """Share of replays near the best, and hypervolume, against server starts."""
    import matplotlib as mpl  # noqa: PLC0415 - only where something is drawn

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(1, 3, figsize=(13, 4.8))
    at = np.arange(1, SHOWN + 1)
    for sampler in reversed(results):  # the first, `auto`, on top
        by_surface = results[sampler]
        colour, line = STYLES[sampler]
        style = {"color": colour, "ls": line, "lw": 2.6 if sampler == "auto" else 1.6}
        for axis, key in zip(axes, ("starts_to_5pct", "starts_to_1pct"), strict=False):
            starts = [start for found in by_surface.values() for start in found[key]]
            shown = at[at <= BUDGETS.get(sampler, BUDGET)]
            reached = [100 * _reached(starts, int(most)) for most in shown]
            axis.step(shown, reached, where="post", label=sampler, **style)
        volumes = [found["hypervolume"] for found in by_surface.values()]
        mean = np.mean(np.array(volumes, float), axis=0)
        axes[2].plot(np.arange(1, len(mean) + 1), mean, label=sampler, **style)
    for axis, within, goal in zip(axes, (5, 1), (GOAL_5, GOAL_1), strict=False):
        axis.axvline(goal, color="#bbbbbb", lw=1, zorder=0)
        axis.annotate(f"goal: half by {goal}", (goal + 0.7, 3), color="#666666", fontsize=9)
        axis.set(
            title=f"within {within} % of the grid's best",
            ylabel="% of replays" if within == 5 else "",
            ylim=(0, 101),
            xlim=(2, SHOWN),
        )
    axes[2].set(
        title="load against p99, hypervolume", ylabel="share of best load x limit", ylim=(0, 1)
    )
    for axis in axes:
        axis.set_xlabel("server starts, baselines included")
        axis.grid(visible=True, color="#e5e5e5", lw=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles[::-1],
        labels[::-1],
        loc="lower center",
        ncols=len(labels),
        frameon=False,
        fontsize=10,
    )
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
