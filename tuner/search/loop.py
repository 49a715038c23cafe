"""The run: baselines, the guide's points, the sampler's, and the final.

The loop owns the order of things and nothing else: `run_trial` measures, `append` makes a record
safe, and only then is the sampler told. Killed between two lines, the next start replays what is
on disk and goes on.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.clock import NS_PER_S, now_ns
from tuner.records import Config, Role, TrialRecord
from tuner.scenario import Scenario
from tuner.search.recommend import by_role, choose, deployable, search_trials
from tuner.search.sampler import Sampler
from tuner.search.space import Space, baselines, config_of, device_of, guide_points
from tuner.slo import Slo
from tuner.trial import Task


class Watcher(Protocol):
    """Told what happens, for people who watch."""

    def begin(self, task: Task, *, done: int, total: int, left_s: float | None) -> None:
        """A trial starts; `left_s` is the expected time to the end of the run, None if unknown."""

    def finish(self, record: TrialRecord) -> None:
        """A trial is on disk."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be measured: `trials` of the search, and a monotonic deadline or None."""

    trials: int
    final_blocks: int
    deadline_ns: int | None = None


@dataclass(slots=True)
class Tuning:
    """One run in progress. `records` grows with every finished trial."""

    scenario: Scenario
    slo: Slo
    sampler: Sampler
    space: Space
    cpus: int
    budget: Budget
    records: list[TrialRecord]
    measure: Callable[[Task], TrialRecord]
    append: Callable[[TrialRecord], None]
    watcher: Watcher

    def run(self) -> None:
        """Search, then the final. Returns early where the deadline asks for it."""
        self.sampler.tell(search_trials(self.records))
        for role, config in self._candidates():
            if not self._fits(trials=1 + self._final_trials()):
                break
            self._measure(role, config)
        self._final()

    def _candidates(self) -> Iterator[tuple[Role, Config]]:
        """Yield what to measure next until the budget of trials is spent."""
        for role, config in baselines(self.cpus):
            if by_role(self.records, role) is None:
                yield ("off" if role == "off" else "default"), config
        device = device_of(self.scenario)
        guide = guide_points(self.space, device=device, cpus=self.cpus)
        for point in guide[: self.scenario.search.guide_points]:
            config = config_of(point)
            if not self._spent() and not self._measured(config):
                yield "guide", config
        while not self._spent():
            asked = self.sampler.ask()
            if asked is None:
                return
            yield "sampler", config_of(asked)

    def _spent(self) -> bool:
        return len(search_trials(self.records)) >= self.budget.trials

    def _measured(self, config: Config) -> bool:
        return any(record.config.id == config.id for record in self.records)

    def _measure(
        self,
        role: Role,
        config: Config,
        *,
        block: int | None = None,
        expected_rps: float | None = None,
    ) -> TrialRecord:
        task = Task(
            number=len(self.records),
            role=role,
            config=config,
            block=block,
            replicate=0 if block is None else block + 1,
            expected_rps=expected_rps,
        )
        done = len(self.records)
        total = max(self.budget.trials, len(search_trials(self.records))) + self._final_trials()
        left_s = self._mean_s() * (total - done) if done else None
        self.watcher.begin(task, done=done, total=total, left_s=left_s)
        record = self.measure(task)
        self.records.append(record)
        self.append(record)
        if role != "final":
            self.sampler.tell([record])
        self.watcher.finish(record)
        return record

    def _final(self) -> None:
        """Measure the winner and the default in randomised interleaved blocks, on fresh starts."""
        chosen = choose(self.records)
        default = by_role(self.records, "default")
        if chosen is None or default is None or chosen.config == default.config:
            return
        winner = deployable(chosen, self.slo)
        contenders = (
            (winner, chosen.sustainable_rps),
            (default.config, default.sustainable_rps),
        )
        for block in range(self.budget.final_blocks):
            ordered = list(contenders)
            random.Random(self.scenario.seed * 1000 + block).shuffle(ordered)
            missing = [
                (config, rate)
                for config, rate in ordered
                if not _in_block(self.records, config, block)
            ]
            if missing and not self._fits(trials=len(missing)):
                return
            for config, rate in missing:
                self._measure("final", config, block=block, expected_rps=rate or None)

    def _final_trials(self) -> int:
        return 2 * self.budget.final_blocks

    def _fits(self, *, trials: int) -> bool:
        """Whether so many more trials end before the deadline, at the mean pace so far."""
        if self.budget.deadline_ns is None:
            return True
        return now_ns() + trials * self._mean_s() * NS_PER_S <= self.budget.deadline_ns

    def _mean_s(self) -> float:
        walls = [record.wall_s for record in self.records]
        return sum(walls) / len(walls) if walls else 0.0


def _in_block(records: Sequence[TrialRecord], config: Config, block: int) -> bool:
    return any(record.block == block and record.config.id == config.id for record in records)
