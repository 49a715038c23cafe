"""The run: the search with its baselines and references, the overload test, and the final.

The loop owns the order of things and nothing else: `run_trial` measures, `append` makes a record
safe, and only then is the sampler told. Killed between two lines, the next start replays what is
on disk and goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from tuner.clock import NS_PER_S, now_ns
from tuner.records import Config, Role, TrialRecord
from tuner.scenario import Scenario
from tuner.search.agenda import Agenda
from tuner.search.decide import decide
from tuner.search.final import Contender, contenders, final_blocks
from tuner.search.lengths import search_start_s
from tuner.search.noise import drift_at
from tuner.search.plan import CLOSING_S, Plan, plan
from tuner.search.proof import Proof
from tuner.search.queue_bound import retrying, told
from tuner.search.ranking import by_role, search_trials, understated
from tuner.search.sampler import Sampler
from tuner.search.shape import Shape, shape_of, within
from tuner.search.space import Space
from tuner.slo import Slo
from tuner.trial import Task

SEARCH_SHARE = 0.7
"""Share of the starts before a deadline that the search is expected to get."""


class Watcher(Protocol):
    """Told what happens, for people who watch."""

    def begin(self, task: Task, *, done: int, total: int, left_s: float | None) -> None:
        """A trial starts; `left_s` is the expected time to the end of the run, None if unknown."""

    def finish(self, record: TrialRecord) -> None:
        """A trial is on disk."""

    def say(self, text: str) -> None:
        """Tell people something that no record holds."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much may be measured: starts of the search, a monotonic deadline, or both.

    With a deadline and no number of `trials`, the search goes on for as long as the final can
    still be done in time.
    """

    trials: int | None
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
    clock: Callable[[], int] = now_ns
    _shape: Shape | None = field(default=None, init=False)

    def run(self) -> None:
        """Search, then the final. Returns early where the deadline asks for it."""
        self.sampler.tell(search_trials(self.records))
        for role, config in self.agenda.steps():
            if not self._room_for(role):
                break
            record = self._measure(role, config)
            if role == "default" and record.outcome != "invalid":
                self._announce()
        self._shape = self.shape  # the proof is planned once; what is left then cuts no more of it
        for contender in self.proof.overloaded:
            self._overload(contender)
        self._final()
        self._overload_recommended()
        self._tell_what_is_missing()

    @property
    def agenda(self) -> Agenda:
        """What the search measures next."""
        return Agenda(
            scenario=self.scenario,
            slo=self.slo,
            space=self.space,
            sampler=self.sampler,
            cpus=self.cpus,
            trials=self.budget.trials,
            records=self.records,
            shape=lambda: self.shape,
            say=self.watcher.say,
        )

    @property
    def shape(self) -> Shape:
        """What is measured besides the search, as suits the starts that there are."""
        if self._shape is not None:
            return self._shape
        if self.budget.deadline_ns is None:
            return shape_of(self.scenario.search, self.budget.trials or 0)
        done, each_s = len(self.records), search_start_s(self.records)
        starts = done + int((self._time_s() or 0.0) / each_s) if each_s else done
        searched = min(int(SEARCH_SHARE * starts), self.budget.trials or starts)
        shape = shape_of(self.scenario.search, searched)
        if by_role(self.records, "final") is not None:
            return shape
        cut = within(shape, starts)
        if not cut.blocks and self._searched:
            return replace(shape, contenders=2)  # as many blocks as fit: there is no better use
        return cut

    @property
    def proof(self) -> Proof:
        """What is measured after the search."""
        begun = by_role(self.records, "final") is not None
        return Proof(
            slo=self.slo,
            seed=self.scenario.seed,
            shape=self.shape,
            records=self.records,
            searching=not begun and not self._searched,
            filling=self.budget.trials is None and self.budget.deadline_ns is not None,
        )

    def plan(self) -> Plan:
        """What is left to measure, and how long that takes."""
        proof = self.proof
        whole = plan(
            self.records,
            proof.wanted(),
            trials=self.budget.trials,
            time_s=self._time_s(),
            points=0 if self._shape else self.agenda.points_left(),
            aa_starts=self._aa_left(),
            reference_every=self.shape.reference_every,
        )
        time_s = self._time_s()
        if time_s is None or whole.final_in_s is None:
            return whole
        # Once the search has had its time, blocks may not fit, or more of them than were asked.
        left = proof.within(time_s - whole.final_in_s)
        return replace(
            whole,
            final_starts=len(left),
            left_s=whole.final_in_s + proof.lengths.of(left),
        )

    @property
    def _searched(self) -> bool:
        """Whether nothing is left to search, whatever the time."""
        agenda = self.agenda
        return agenda.spent or not agenda.points_left()

    def _aa_left(self) -> int:
        """Starts of the reference that the opening still wants; none once the search has begun."""
        roles = {record.role for record in self.records}
        if roles & {"guide", "sampler", "final"}:
            return 0
        done = sum(record.role == "reference" for record in self.records)
        return max(0, self.shape.aa_starts - done)

    def _time_s(self) -> float | None:
        """Seconds until the deadline."""
        if self.budget.deadline_ns is None:
            return None
        return max(0.0, (self.budget.deadline_ns - self.clock()) / NS_PER_S)

    def _room_for(self, role: Role) -> bool:
        """Whether one more start of the search still leaves time for the final.

        Baselines are measured while there is time for themselves: without them nothing is known.
        """
        time_s = self._time_s()
        if time_s is None or not self.records:
            return True
        if role in {"off", "default"}:
            return time_s > search_start_s(self.records)
        if self.budget.trials is None and self.proof.unfinished:
            return False  # a resumed run proves first what it has begun to prove
        return self.plan().search_starts > 0

    def _announce(self) -> None:
        """Tell the plan, once the baselines say how long a start takes, and what it leaves out."""
        self.watcher.say(self.plan().describe())
        if left_out := self.shape.left_out():
            self.watcher.say(f"{left_out} (see search.* in the scenario)")

    def _overload(self, contender: Contender) -> None:
        """Overload what may be deployed, and correct a queue's bound by what came of it."""
        test: TrialRecord | None = None
        while (config := self.proof.next_test(contender)) is not None:
            if not self.proof.fits_test(contender, config, self._time_s()):
                break
            if test is not None:
                self.watcher.say(retrying(test, config))
            test = self._measure("overload", config, overloaded=contender)
            if words := understated(test):
                self.watcher.say(words)
        if test is not None and (words := told(contender.trial.config, self.slo, self.records)):
            self.watcher.say(f"{contender.config.label()}: {words}")

    def _overload_recommended(self) -> None:
        """Overload what is recommended after all, where there was no time before the final."""
        decision = decide(self.records, self.slo)
        if decision is None or not self.shape.overload or not self.shape.blocks:
            return
        if decision.recommends and decision.trial.sustainable_rps:
            self._overload(Contender("winner", decision.config, decision.trial))

    def _measure(
        self, role: Role, config: Config, *, block: int | None = None, arm: str = "",
        expected_rps: float | None = None,
        overloaded: Contender | None = None,
    ) -> TrialRecord:  # fmt: skip
        task = self.agenda.task(role, config, block=block, arm=arm, expected_rps=expected_rps)
        if (deadline_ns := self.budget.deadline_ns) is not None:
            task = replace(task, until_ns=deadline_ns - round(CLOSING_S * NS_PER_S))
        if overloaded is not None:
            rate_rps = overloaded.trial.sustainable_rps
            shares = self.proof.shares(overloaded)
            task = replace(task, overload_rps=rate_rps, overload_shares=shares)
        left = self.plan()
        done = len(self.records)
        self.watcher.begin(task, done=done, total=done + left.starts, left_s=left.left_s)
        record = self._marked(self.measure(task))
        self.records.append(record)
        self.append(record)
        if record in search_trials([record]):
            self.sampler.tell([record])
        self.watcher.finish(record)
        return record

    def _marked(self, record: TrialRecord) -> TrialRecord:
        """Mark a start of the reference that confirms a drift with what it spoils."""
        if record.role != "reference":
            return record
        drift = drift_at(self.records, record, self.scenario.measure.resolution)
        if drift is None:
            return record
        self.watcher.say(
            f"drift: the default now carries {drift.percent:+.0f} % of before; "
            f"{len(drift.spoils)} trials are measured again"
        )
        return replace(record, drift=drift)

    def _final(self) -> None:
        """Measure the contenders in randomised interleaved blocks, on fresh starts."""
        for block in self.proof.blocks:
            missing = self.proof.block(block, self._time_s())
            if missing is None:
                return
            for contender in missing:
                self._measure(
                    "final",
                    contender.config,
                    block=block,
                    arm=contender.arm,
                    expected_rps=contender.expected_rps,
                )

    def _tell_what_is_missing(self) -> None:
        """Say what the deadline left no time for."""
        if self.budget.deadline_ns is None:
            return
        if by_role(self.records, "default") is None:
            self.watcher.say(
                "the deadline came before the server's defaults were measured: nothing can be "
                "compared; resume the run with more time"
            )
        elif by_role(self.records, "final") is None and (
            len(search_trials(self.records)) <= 2 or contenders(self.records, self.slo)
        ):
            self.watcher.say(
                "the deadline left no time for the final: nothing is proven; resume the run with "
                "more time"
            )
        elif self.proof.unfinished:
            blocks = max(map(len, final_blocks(self.records).values()))
            self.watcher.say(
                f"the deadline left time for {blocks} of the final's {self.shape.blocks} blocks; "
                "a run that is resumed with more time goes on with them"
            )
