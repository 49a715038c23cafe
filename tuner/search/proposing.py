"""Which configuration to measure next: the simulator's word, corrected, and what it may gain.

Every configuration's sustainable rate is predicted by the fitted service model and by others
that are about as plausible, each corrected by what it got wrong so far. The expected improvement
over the best (Jones, Schonlau & Welch 1998), averaged over the models by how well each explains
the rates, and divided by what a trial costs, decides.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.search.correction import Correction, Floats, learn
from tuner.simulate.calibrate import Calibration, fit
from tuner.simulate.curves import Curve
from tuner.simulate.policy import Policy
from tuner.simulate.service import ServiceModel
from tuner.simulate.sustain import Workload, holds, sustainable_rps
from tuner.slo import Slo

REQUESTS = 800
DRAWS = 2
RESOLUTION = 0.04
HOPELESS = 2.0
"""A candidate whose corrected prediction lies so many deviations below the best gains nothing."""

AFRESH = (7, 11)
"""Numbers of curves at which a fit from nothing may find a better explanation."""

FEWEST = 2
"""Measured rates from which errors are learnt."""

UNEXPLAINED = 0.9
"""Where errors of predicting the measured rates from each other reach this share of how much
they differ, the model explains nothing."""

JUDGED_FROM = 6
"""Measured rates from which the model itself is judged."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A configuration that may be asked for: how it acts, and where it lies among others."""

    policy: Policy
    features: Floats


@dataclass(frozen=True, slots=True)
class Seen:
    """A measured configuration; `features` None outside the space (the baselines)."""

    curve: Curve
    rate_rps: float | None
    features: Floats | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """Expected improvements as log ratios, one a candidate, and whether to believe them.

    `doubt` says in words why the model cannot be relied on, None where it can.
    """

    gains: Floats
    means: Floats
    doubt: str | None


@dataclass(slots=True)
class Proposer:
    """Keeps the last fit, from which the next one starts."""

    slo: Slo
    rows: tuple[tuple[int, float], ...]
    largest_batch: int
    seed: int
    calibration: Calibration | None = None

    def propose(self, seen: Sequence[Seen], candidates: Sequence[Candidate]) -> Proposal | None:
        """Judge all candidates; None where too little was measured to fit a model to."""
        self.calibration = self._fit([item.curve for item in seen])
        rated = [item for item in seen if item.rate_rps and item.features is not None]
        if self.calibration is None or len(rated) < FEWEST:
            return None
        return self._judge(self.calibration, rated, candidates)

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
        self, calibration: Calibration, rated: Sequence[Seen], candidates: Sequence[Candidate]
    ) -> Proposal:
        workload = Workload.poisson(REQUESTS, seed=self.seed + 1, rows=self.rows)
        logs = np.log([item.rate_rps or 0.0 for item in rated])
        at = np.array([item.features for item in rated])
        to = np.array([candidate.features for candidate in candidates])
        gains, means, weights, doubts = [], [], [], []
        for service in (calibration.service, *calibration.plausible):
            known = np.array([self._log(item.curve.policy, service, workload) for item in rated])
            errors = logs - known
            if not np.all(np.isfinite(errors)):
                continue
            correction = learn(at, errors)
            incumbent = float((known + correction.at(at)[0]).max())
            offset, deviation = correction.at(to)
            floor = incumbent - offset - HOPELESS * deviation
            predicted = np.array(
                [
                    self._log(candidate.policy, service, workload, floor=float(least))
                    for candidate, least in zip(candidates, floor, strict=True)
                ]
            )
            mean = predicted + offset
            gains.append(_improvement(mean, deviation, incumbent))
            means.append(mean)
            weights.append(correction.evidence)
            doubts.append(_doubt(correction, logs))
        if not gains:
            return Proposal(np.zeros(len(candidates)), np.zeros(len(candidates)), _NO_MODEL)
        share = np.exp(np.array(weights) - max(weights))
        share /= share.sum()
        return Proposal(share @ np.array(gains), means[0], doubts[int(np.argmax(share))])

    def _log(
        self,
        policy: Policy,
        service: ServiceModel,
        workload: Workload,
        *,
        floor: float | None = None,
    ) -> float:
        """Log of the sustainable rate; minus infinity where it is 0, or below the floor."""
        guess = None if floor is None else math.exp(min(floor, 30.0))
        if guess is not None and not holds(policy, service, self.slo, workload, guess):
            return -math.inf
        rate = sustainable_rps(
            policy, service, self.slo, workload, guess_rps=guess, resolution=RESOLUTION
        )
        return math.log(rate * (1 + RESOLUTION / 2)) if rate > 0 else -math.inf


_NO_MODEL = "no plausible service model carries the loads that were measured"


def _doubt(correction: Correction, logs: Floats) -> str | None:
    if len(logs) < JUDGED_FROM:
        return None
    error = float(np.sqrt(np.mean(correction.left_out**2)))
    # What the mean of the others would predict; their spread without the one left out.
    spread = float(np.std(logs, ddof=1)) * math.sqrt(len(logs) / (len(logs) - 1))
    if error < UNEXPLAINED * spread or error < 0.05:
        return None
    return (
        f"it predicts measured rates with an error of {error * 100:.0f} %, "
        f"and they differ by {spread * 100:.0f} %"
    )


def _improvement(mean: Floats, deviation: Floats, best: float) -> Floats:
    """Expected improvement of normal variables over `best`."""
    found = np.zeros(len(mean))
    possible = np.isfinite(mean)
    ahead = (mean[possible] - best) / deviation[possible]
    density = np.exp(-0.5 * ahead**2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in ahead])
    found[possible] = deviation[possible] * (ahead * below + density)
    return found
