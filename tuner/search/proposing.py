"""Which configuration to measure next: the simulator's word, corrected, and what it may gain.

Every configuration's sustainable rate is predicted by the fitted service model and by others
that are about as plausible, each corrected by what it got wrong so far; and by none, from how
alike configurations are. The expected improvement over the best (Jones, Schonlau & Welch 1998),
averaged over these by how well each explains the rates, decides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tuner.search.correction import Correction, Floats, learn
from tuner.simulate.calibrate import Calibration, fit
from tuner.simulate.curves import Curve, Traits
from tuner.simulate.express import fits, highest_rps
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, sustainable_rps
from tuner.slo import Slo

REQUESTS = 800
DRAWS = 8
RESOLUTION = 0.02

AFRESH = (5, 7, 11, 19)
"""Numbers of curves at which a fit from nothing may find a better explanation."""

FEWEST = 1
"""Measured rates from which errors are learnt."""

POOR = 0.1
"""Rates below this share of the highest, and none at all, count as this: how poor they are says
little of the good ones."""

DIFFERENCES = 0.5
"""How far rates of configurations differ, as a log ratio, where no model says: prior median."""

BELIEF = 0.75
"""Weight of the fitted models together, before any rate has spoken."""

SHORT = 32
"""Candidates that are judged by every explanation; of the others only the best fit is asked."""

Point = tuple[Policy, Traits]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that may be asked for: how it acts, and where it lies among others."""

    policy: Policy
    features: Floats
    traits: Traits = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A measured configuration; `features` None outside the space (the baselines)."""

    curve: Curve
    rate_rps: float | None
    features: Floats | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """Expected improvements as log ratios, one a candidate, and whether to believe them.

    `means` are predicted rates as logs, `share` how much of the word is the simulator's, and
    `error` how far its predictions of single rates from the others were off, as a log ratio.
    """

    gains: Floats
    means: Floats
    share: float
    error: float


@dataclass(frozen=True, slots=True)
class _Member:
    """One explanation: what it makes of the candidates, and the log of its weight."""

    mean: Floats
    gains: Floats
    weight: float
    error: float

    def only(self, short: Ints) -> "_Member":
        """The same for some of the candidates."""
        return _Member(self.mean[short], self.gains[short], self.weight, self.error)


@dataclass(slots=True)
class Proposer:
    """Keeps the last fit, from which the next one starts.

    `traits` are the values of all flags that are searched; `rows`, `cv`, `in_turn` and
    `most_cores` as in `fit`.
    """

    slo: Slo
    rows: tuple[tuple[int, float], ...]
    largest_batch: int
    seed: int
    traits: Traits = ()
    cv: float = 1.0
    in_turn: bool = False
    most_cores: float = math.inf
    calibration: Calibration | None = None
    workload: Workload | None = None
    guesses: dict[Point, float] = field(default_factory=dict)

    def propose(self, seen: Sequence[Seen], candidates: Sequence[Candidate]) -> Proposal | None:
        """Judge all candidates; None where too little was measured to fit a model to."""
        rated = [item for item in seen if item.rate_rps is not None and item.features is not None]
        self.calibration = self._fit([item.curve for item in seen])
        if self.calibration is None or sum(bool(item.rate_rps) for item in rated) < FEWEST:
            return None
        best = max(item.rate_rps or 0.0 for item in seen)
        return self._judge(self.calibration, rated, best, candidates)

    def _fit(self, curves: Sequence[Curve]) -> Calibration | None:
        """Fit from where the last fit ended, and now and then from nothing as well."""
        starts: list[Calibration | None] = [self.calibration]
        if self.calibration is not None and len(curves) in AFRESH:
            starts.append(None)
        found = [
            fit(
                curves,
                largest_batch=self.largest_batch,
                rows=self.rows,
                cv=self.cv,
                traits=self.traits,
                in_turn=self.in_turn,
                most_cores=self.most_cores,
                start=start,
                draws=DRAWS,
                seed=self.seed,
            )
            for start in starts
        ]
        return min(
            (item for item in found if item is not None),
            key=lambda item: item.misfit,
            default=None,
        )

    def _judge(
        self,
        calibration: Calibration,
        rated: Sequence[Seen],
        best_rps: float,
        candidates: Sequence[Candidate],
    ) -> Proposal:
        rates = np.array([item.rate_rps or 0.0 for item in rated])
        least = POOR * best_rps
        logs = np.log(np.maximum(rates, least))
        at = np.array([item.features for item in rated])
        to = np.array([candidate.features for candidate in candidates])
        known = [(item.curve.policy, item.curve.traits) for item in rated]
        new = [(candidate.policy, candidate.traits) for candidate in candidates]
        # What a baseline carried, that lies outside the space, has to be surpassed too.
        floor = math.log(best_rps) if best_rps > rates.max() else -math.inf
        best = _member(logs, at, to, self._logs(calibration, 0, [*known, *new], least), floor)
        free = _member(logs, at, to, None, floor)
        short = _shortlist(best, free)
        members = [best.only(short), free.only(short)]
        points = [*known, *(new[i] for i in short)]
        for number in range(1, 1 + DRAWS):
            predicted = self._logs(calibration, number, points, least)
            members.append(_member(logs, at, to[short], predicted, floor))
        shares = _shares(members)
        gains, means = np.zeros(len(candidates)), best.mean.copy()
        gains[short] = shares @ np.array([member.gains for member in members])
        means[short] = shares @ np.array([member.mean for member in members])
        trusted = members[int(np.argmax(np.where(np.arange(len(shares)) == 1, -1, shares)))]
        return Proposal(gains, means, share=float(1 - shares[1]), error=trusted.error)

    def _logs(
        self, calibration: Calibration, number: int, points: Sequence[Point], least: float
    ) -> Floats:
        """Logs of sustainable rates, or of `least`, by one of the plausible models."""
        workload = self._workload()
        servers = {traits for _, traits in points}
        services = {traits: calibration.member(number, traits) for traits in servers}
        rates = np.array([self._rate(point, services[point[1]], workload) for point in points])
        return np.asarray(np.log(np.maximum(rates, least)), np.float64)

    def _workload(self) -> Workload:
        if self.workload is None:
            self.workload = Workload.drawn(
                REQUESTS, cv=self.cv, seed=self.seed + 1, rows=self.rows
            )
        return self.workload

    def _rate(self, point: Point, service: ServiceModel, workload: Workload) -> float:
        """One configuration's rate; what the last model asked said of it is where to look."""
        policy, _ = point
        guess = self.guesses.get(point, 0.0)
        if fits(policy, workload):
            rate = highest_rps(workload, policy, service, self.slo, RESOLUTION, guess_rps=guess)
        else:
            rate = sustainable_rps(
                policy, service, self.slo, workload, resolution=RESOLUTION, guess_rps=guess or None
            )
        self.guesses[point] = rate
        return rate


def _shortlist(best: _Member, free: _Member) -> Ints:
    """The candidates that any explanation may prefer; the rest is not worth a simulation."""
    first = np.argsort(-best.gains, kind="stable")[:SHORT]
    likely = np.argsort(-best.mean, kind="stable")[:SHORT]
    alike = np.argsort(-free.gains, kind="stable")[: SHORT // 2]
    return np.unique(np.concatenate([first, likely, alike]))


def _shares(members: Sequence[_Member]) -> Floats:
    """Weights that sum to 1: how likely each made the measured rates, the second without model."""
    prior = np.full(len(members), BELIEF / (len(members) - 1))
    prior[1] = 1 - BELIEF
    weights = np.log(prior) + [member.weight for member in members]
    shares = np.exp(weights - weights.max())
    return np.asarray(shares / shares.sum())


def _member(
    logs: Floats, at: Floats, to: Floats, predicted: Floats | None, floor: float
) -> _Member:
    """What a model's predictions come to, corrected; None for none at all.

    A gain is one over the best of the rated and over `floor`.
    """
    count = len(logs)
    if predicted is None:
        centre = float(np.mean(logs))
        known, new = np.full(count, centre), np.full(len(to), centre)
        correction = learn(at, logs - known, likely_amplitude=DIFFERENCES)
    else:
        known, new = predicted[:count], predicted[count:]
        correction = learn(at, logs - known)
    incumbent = max(floor, float((known + correction.at(at)[0]).max()))
    offset, deviation = correction.at(to)
    mean = new + offset
    return _Member(
        mean, _improvement(mean, deviation, incumbent), correction.evidence, _error(correction)
    )


def _error(correction: Correction) -> float:
    return float(np.sqrt(np.mean(correction.left_out**2)))


def _improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Expected improvement of normal variables over `best`."""
    ahead = (mean - best) / deviation
    density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in ahead])
    return np.asarray(deviation * np.maximum(ahead * below + density, 0.0))
