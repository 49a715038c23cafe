"""What a trial is given: the bench it shares with all others, and a task of its own."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tuner.load.open_loop import OpenLoop
from tuner.records import Config, Level, Role
from tuner.scenario import Scenario
from tuner.server.launcher import Keeper, Launcher
from tuner.slo import Slo


@dataclass(frozen=True, slots=True)
class Bench:
    """What all trials of a run share.

    `pool` is the file of requests, `folder` the run directory; `notify` is told in a few words
    what is going on, for people who watch. `keeper` may let a server live on from one trial of
    the search to the next; None: every trial starts its own. `usable_rps` is the highest load that
    the generator may be asked for; None: nobody knows.
    """

    scenario: Scenario
    slo: Slo
    launcher: Launcher
    pool: Path
    folder: Path
    environment_id: str
    generator_cpus: frozenset[int]
    notify: Callable[[str], None]
    keeper: Keeper | None = None
    usable_rps: float | None = None

    def launcher_for(self, role: Role) -> Launcher:
        """Choose how a trial gets its server: what confirms or is asked for starts afresh."""
        if self.keeper is None:
            return self.launcher
        if role in {"off", "final", "given", "overload"}:
            self.keeper.close()  # two servers would share the machine
            return self.launcher
        return self.keeper

    def close(self) -> None:
        """Stop what lives on between trials, and give back what the launcher holds."""
        if self.keeper is not None:
            self.keeper.close()
        self.launcher.close()


@dataclass(slots=True)
class Stop:
    """How a long load is ended early. While it is `heeded` the load itself looks for `asked`."""

    heeded: bool = False
    asked: bool = False


@dataclass(frozen=True, slots=True)
class LongLoad:
    """One load for as long as it lasts, in windows of `window_s`.

    `told` is given each window as it ends, and the seconds of the schedule that have passed.
    Every request goes to disk where `keep_samples`; else windows and histograms are kept alone.
    """

    load: OpenLoop
    window_s: float
    stop: Stop
    told: Callable[[Level, float], None]
    keep_samples: bool = False


@dataclass(frozen=True, slots=True)
class Task:
    """Which configuration is measured, and as what.

    `arm` is what it stands for in a comparison. `replicate` chooses the arrivals: equal for all
    configurations of one block. `expected_rps` is a sustainable rate known from before, from
    where the ladder then starts; of rates below `dominated_rps` a rough idea is enough.
    `loads_rps` are measured instead of a ladder, rising, up to the first that does not hold.
    `curve_shares` are further loads, as shares of the sustainable rate, that complete the curve
    below it; where one of them fails, the rate was none and is sought below. With `overload_rps`,
    a sustainable rate, the server is overloaded by `overload_shares` of it and nothing else. With
    `long` it is that load alone. No further load is begun after `until_ns`, a monotonic instant.
    """

    number: int
    role: Role
    config: Config
    block: int | None = None
    arm: str = ""
    replicate: int = 0
    expected_rps: float | None = None
    dominated_rps: float = 0.0
    loads_rps: tuple[float, ...] = ()
    curve_shares: tuple[float, ...] = ()
    overload_rps: float | None = None
    overload_shares: tuple[float, ...] = ()
    long: LongLoad | None = None
    until_ns: int | None = None

    def describe(self) -> str:
        """Words for progress lines."""
        return f"{self.role}: {self.config.label()}"
