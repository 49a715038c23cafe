"""What the search measures next, from what is on record, and how each of it is measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tuner.records import Config, Role, TrialRecord
from tuner.scenario import Scenario
from tuner.search.noise import noise_of, references, suspicious, to_repeat
from tuner.search.ranking import by_role, choose, patient, search_trials, tried
from tuner.search.sampler import Sampler
from tuner.search.shape import Shape
from tuner.search.space import Space, baselines, config_of, device_of, guide_points
from tuner.server.keeper import restart_key
from tuner.slo import Slo
from tuner.trial import Task

DOMINATED = 0.85
"""Share of the best sustainable rate: what lies below it is never chosen, whatever the noise."""

PROPOSALS = 3
"""How many proposals of the sampler are looked at for one that the running server can take up."""

SWAPS_PAY = 4
"""As long as one of so many trials was swapped in, the next may be too."""

Step = tuple[Role, Config]


@dataclass(slots=True)
class Agenda:
    """The search of one run. `records` is the run's own list, which grows between two steps.

    `trials` bounds the trials of the search, None: until the space is exhausted. `shape` says what
    is measured besides, and may change with the time that is left. `say` tells people.
    """

    scenario: Scenario
    slo: Slo
    space: Space
    sampler: Sampler
    cpus: int
    trials: int | None
    records: list[TrialRecord]
    shape: Callable[[], Shape]
    say: Callable[[str], None]

    def steps(self) -> Iterator[Step]:
        """Yield what to measure next until the budget of trials is spent."""
        for role, config in baselines(self.cpus):
            if by_role(self.records, role) is None:
                yield ("off" if role == "off" else "default"), config
        yield from to_repeat(self.records)
        yield from self._aa_test()
        device = device_of(self.scenario)
        guide = guide_points(self.space, device=device, cpus=self.cpus)
        wanted = self.scenario.search.guide_points
        points = guide[: self.sampler.guided if wanted == "auto" else wanted]
        for config in self._in_few_starts([config_of(point) for point in points]):
            if not self.spent and not self._measured(config):
                yield from self._checks()
                yield "guide", config
        while not self.spent:
            yield from self._checks()
            asked = self._asked()
            if asked is None:
                break
            yield "sampler", asked
        yield from self._checks()

    def _in_few_starts(self, configs: list[Config]) -> list[Config]:
        """Put together what a running server can take up without a restart, else in order."""
        if self.scenario.server.swap == "never":
            return configs
        keys = [restart_key(config) for config in configs]
        return sorted(configs, key=lambda config: keys.index(restart_key(config)))

    def _asked(self) -> Config | None:
        """Ask the sampler; where swaps pay, prefer a proposal that needs no restart."""
        known = search_trials(self.records)
        latest = known[-1] if known else None
        proposals = []
        for _ in range(PROPOSALS if any(record.swapped for record in known[-SWAPS_PAY:]) else 1):
            point = self.sampler.ask()
            if point is None:
                break
            proposals.append(config_of(point))
            if latest is not None and restart_key(proposals[-1]) == restart_key(latest.config):
                return proposals[-1]
        return proposals[0] if proposals else None

    def _aa_test(self) -> Iterator[Step]:
        """Start the default again, and say what gain can be told from noise."""
        default = by_role(self.records, "default")
        wanted = self.shape().aa_starts
        done = sum(record.role == "reference" for record in self.records)
        if default is None or not default.sustainable_rps or done >= wanted:
            return
        for _ in range(wanted - done):
            yield "reference", default.config
        blocks = self.shape().blocks
        self.say(noise_of(self.records, blocks).describe(blocks))

    def _checks(self) -> Iterator[Step]:
        """Measure the default again when it is time; then what was spoilt, once more.

        Once the final has begun it is the blocks that tell the machine's changes.
        """
        if by_role(self.records, "final") is not None:
            return
        default = by_role(self.records, "default")
        every = self.shape().reference_every
        if default is not None and default.sustainable_rps and every:
            since = 0
            for record in self.records:
                since = 0 if record.role in {"default", "reference"} else since + 1
            if since >= every:
                yield "reference", default.config
            if self._suspicious():
                yield "reference", default.config
        yield from to_repeat(self.records)

    def _suspicious(self) -> bool:
        """Whether the start of the reference that was just measured needs a second opinion."""
        known = references(self.records)
        if not known or known[-1] is not self.records[-1]:
            return False
        before = [record.sustainable_rps or 0.0 for record in known[:-1]]
        rate_rps = known[-1].sustainable_rps or 0.0
        return suspicious(rate_rps, before, self.scenario.measure.resolution)

    def points_left(self) -> int:
        """How many configurations the search could still measure, baselines included."""
        roles = [record.role for record in search_trials(self.records)]
        missing = sum(role not in roles for role in ("off", "default"))
        return missing + self.space.size - sum(role in {"guide", "sampler"} for role in roles)

    @property
    def spent(self) -> bool:
        """Whether the budget of trials is used up."""
        return self.trials is not None and tried(self.records) >= self.trials

    def _measured(self, config: Config) -> bool:
        return any(record.config.id == config.id for record in self.records)

    def task(
        self,
        role: Role,
        config: Config,
        *,
        block: int | None = None,
        arm: str = "",
        expected_rps: float | None = None,
    ) -> Task:
        """How a configuration is measured, given what is known by now."""
        return Task(
            number=len(self.records),
            role=role,
            config=config,
            block=block,
            arm=arm,
            replicate=0 if block is None else block + 1,
            expected_rps=expected_rps or self._reference_rps(role),
            dominated_rps=self._dominated_rps(role),
            curve_shares=self._shares(config),
        )

    def _reference_rps(self, role: Role) -> float | None:
        """What the default carried, from where its further starts begin."""
        known = references(self.records)
        return known[-1].sustainable_rps if role == "reference" and known else None

    def _dominated_rps(self, role: Role) -> float:
        """Below which rates are of no use: another configuration carries more with ease."""
        best = choose(self.records) if role in {"guide", "sampler"} else None
        return 0.0 if best is None else DOMINATED * (best.sustainable_rps or 0.0)

    def _shares(self, config: Config) -> tuple[float, ...]:
        """Ask for half the load too where a batch may wait for a good part of the limit."""
        return (0.5,) if patient(config, self.slo) else ()
