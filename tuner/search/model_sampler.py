"""An Optuna sampler that knows what it tunes: TensorFlow Serving's batch scheduler.

    sampler = ModelSampler({"max_batch_size": (8, 32, 128), "batch_timeout_micros": (0, 2000),
                            "num_batch_threads": (1, 2, 4)}, Setting(slo, cpus=8))
    study = optuna.create_study(direction="maximize", sampler=sampler)

It asks for a point of the batching guide first. Then it fits the simulator of the scheduler to all
that was measured and asks for the configuration that promises the most gain in sustainable rate
for a second of server time. Where the model does not explain what was measured it says so, and
how alike configurations are decides until it does; where too few carried any load, Optuna's TPE.

A trial's first value must be its sustainable rate. `trial.set_user_attr(CURVE, to_json(curve))`
adds the loads that were measured; without it a rate stands for its whole curve.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.search.correction import Floats, features_of
from tuner.search.proposing import FEWEST, Candidate, Proposal, Proposer, Seen
from tuner.search.space import FLAG, Choice, Point, Space, config_of, guide_points
from tuner.server.flags import flag_text
from tuner.simulate.calibrate import Calibration
from tuner.simulate.curves import Curve, CurvePoint, Traits
from tuner.simulate.policy import NS_PER_US, Policy, most_cores
from tuner.slo import PERCENTILES, Slo

CURVE = "curve"
"""User attribute of a trial: what was measured of it, as `to_json` writes it."""

COST_S = "cost_s"
"""User attribute of a trial: seconds of server time that it took."""

LEAST_REACH = 8
"""So many times the largest batch of the space is as far as a service model is asked."""

ASKS = 10
"""How often TPE may propose what was measured before a point at random is taken."""

MOST_CANDIDATES = 600
"""In a larger space a random part, new at every ask, is looked at."""

TRUSTED_LEAST, TRUSTED = 0.2, 0.4
"""Shares of the simulator's word below which it is doubted, and from which believed again."""

FAILURE_REACH = 1.0
"""Configurations nearer than this to one that crashed are expected to crash too."""


def _silent(_text: str) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Setting:
    """What the model must know besides the space.

    `rows` are the rows of a request with their weights, `cv` how much the gaps between requests
    vary, `device` chooses the guide's points and says whether batches share the `cpus`, `in_turn`
    says that the server's flags leave one batch to run at a time (`takes_turns`), and `say` is
    told when the model is given up or believed again.
    """

    slo: Slo
    cpus: int
    rows: tuple[tuple[int, float], ...] = ((1, 1.0),)
    cv: float = 1.0
    device: str = "cpu"
    in_turn: bool = False
    say: Callable[[str], None] = field(default=_silent)


def to_json(curve: Curve) -> dict[str, Any]:
    """A curve as a trial's user attribute."""
    return asdict(curve)


def from_json(data: Mapping[str, Any]) -> Curve:
    """Read what `to_json` wrote, through JSON or not."""
    policy = {**data["policy"], "allowed": tuple(data["policy"]["allowed"])}
    return Curve(
        Policy(**policy),
        tuple(
            CurvePoint(**{**point, "percentiles_ms": tuple(map(tuple, point["percentiles_ms"]))})
            for point in data["points"]
        ),
        data["sustainable_rps"],
        tuple((name, value) for name, value in data.get("traits", ())),
    )


class ModelSampler(BaseSampler):
    """Proposes the point with the most expected gain per second of server time.

    `skipped` are the ids of configurations that are not to be proposed, whatever they promise.
    """

    def __init__(
        self,
        space: Space | Mapping[str, Sequence[Choice]],
        setting: Setting,
        *,
        seed: int = 0,
        guides: bool = True,
    ) -> None:
        self._space = (
            space
            if isinstance(space, Space)
            else Space({name: tuple(values) for name, values in space.items()})
        )
        self._setting = setting
        self._sizes = [int(size) for size in self._space.choices["max_batch_size"]]
        self._points: dict[str, Point] = {}
        for point in self._space.points():
            self._points.setdefault(config_of(point).id, point)
        self._rng = np.random.default_rng(seed)
        self._guides = guides
        self._fallback = TPESampler(seed=seed, multivariate=True, n_startup_trials=4)
        self._doubted = False
        self.skipped: frozenset[str] = frozenset()
        self._proposer = Proposer(
            setting.slo,
            setting.rows,
            max(self._sizes),
            seed,
            _traits(self._space),
            cv=setting.cv,
            in_turn=setting.in_turn,
            most_cores=most_cores(setting.device, setting.cpus),
        )

    @property
    def model(self) -> Calibration | None:
        """The service model as last fitted; None before enough was measured."""
        return self._proposer.calibration

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - Optuna's signature
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """All parameters are proposed together."""
        return {
            name: CategoricalDistribution(values) for name, values in self._space.choices.items()
        }

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A parameter outside the space: Optuna's TPE answers."""
        return self._fallback.sample_independent(study, trial, param_name, param_distribution)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The next point."""
        trials = [item for item in study.get_trials(deepcopy=False) if _counts(item)]
        seen = [item for item in map(self._seen, trials) if item is not None]
        left = self._left(trials)
        told = sum(trial.state == TrialState.COMPLETE and self._covers(trial) for trial in trials)
        if self._guides and told < FEWEST:
            for point in self._guide():
                if point in left:
                    return point
        if left and (best := self._best(seen, left, trials)) is not None:
            return left[best]
        for _ in range(ASKS):
            point = self._fallback.sample_relative(study, trial, search_space)
            if point in left or not left:
                return point
        return left[int(self._rng.integers(len(left)))]

    def _guide(self) -> Sequence[Point]:
        return guide_points(self._space, device=self._setting.device, cpus=self._setting.cpus)

    def _left(self, trials: Sequence[FrozenTrial]) -> list[Point]:
        """Points that no trial has, as configurations; a part of them in a large space."""
        known = {config_of(trial.params).id for trial in trials if self._covers(trial)}
        known |= self.skipped
        left = [point for name, point in self._points.items() if name not in known]
        if len(left) > MOST_CANDIDATES:
            chosen = self._rng.choice(len(left), MOST_CANDIDATES, replace=False)
            left = [left[at] for at in sorted(chosen)]
        return left

    def _covers(self, trial: FrozenTrial) -> bool:
        return all(
            trial.params.get(name) in values for name, values in self._space.choices.items()
        )

    def _best(
        self, seen: Sequence[Seen], left: Sequence[Point], trials: Sequence[FrozenTrial]
    ) -> int | None:
        features = features_of(left, self._space.choices)
        candidates = [self._candidate(*pair) for pair in zip(left, features, strict=True)]
        proposal = self._proposer.propose(seen, candidates)
        if proposal is None:
            return None
        self._tell(proposal)
        gains = proposal.gains * (1 - self._failing(features, trials))
        worth = gains / self._cost(proposal.means, trials)
        # A tie, such as no gain anywhere, goes to the highest prediction.
        return int(np.lexsort((proposal.means, worth))[-1])

    def _candidate(self, point: Point, features: Floats) -> Candidate:
        config = config_of(point)
        return Candidate(Policy.of(config, cpus=self._setting.cpus), features, config.flags)

    def _tell(self, proposal: Proposal) -> None:
        doubted = proposal.share < TRUSTED_LEAST if not self._doubted else proposal.share < TRUSTED
        if doubted != self._doubted:
            self._setting.say(
                f"the model of the scheduler is set aside: it predicts measured rates with an "
                f"error of {proposal.error * 100:.0f} %, and how alike configurations are tells "
                f"more; that chooses what is next"
                if doubted
                else "the model of the scheduler explains the rates again: it chooses what is next"
            )
        self._doubted = doubted

    def _policy(self, point: Point) -> Policy:
        return Policy.of(config_of(point), cpus=self._setting.cpus)

    def _seen(self, trial: FrozenTrial) -> Seen | None:
        if trial.state != TrialState.COMPLETE:
            return None
        rate = trial.values[0]
        covered = self._covers(trial)
        if CURVE in trial.user_attrs:
            curve = from_json(trial.user_attrs[CURVE])
        elif covered and rate > 0:
            traits = config_of(trial.params).flags
            curve = Curve(self._policy(trial.params), (self._at_limit(rate),), rate, traits)
        else:
            return None
        point: Point | None = dict(trial.params) if covered else self._likest(curve)
        at = None if point is None else features_of([point], self._space.choices)[0]
        return Seen(curve, rate, at)

    def _likest(self, curve: Curve) -> Point | None:
        """The point that a configuration outside the space, the server's defaults, acts like.

        None with batching off, and where the space has parameters that a curve says nothing of.
        """
        policy = curve.policy
        point: Point = {
            "max_batch_size": min(policy.largest_batch, max(self._sizes)),
            "batch_timeout_micros": policy.timeout_ns // NS_PER_US,
            "num_batch_threads": policy.threads,
            "allowed_batch_sizes": "any",
        }
        knows = policy.batching and not policy.allowed and not policy.splitting
        return point if knows and point.keys() >= self._space.choices.keys() else None

    def _at_limit(self, rate_rps: float) -> CurvePoint:
        """What a sustainable rate alone says: there a percentile is at its limit."""
        name, limit_ms = self._setting.slo.limits_ms[-1]
        return CurvePoint(
            throughput_rps=rate_rps,
            offered_rps=rate_rps,
            percentiles_ms=((PERCENTILES[name], limit_ms),),
        )

    def _failing(self, features: Floats, trials: Sequence[FrozenTrial]) -> Floats:
        """How likely each point is to crash, by its likeness to points that did and did not."""
        told = [trial for trial in trials if self._covers(trial)]
        crashed = np.array([trial.state == TrialState.PRUNED for trial in told], np.float64)
        if not crashed.any():
            return np.zeros(len(features))
        at = features_of([dict(trial.params) for trial in told], self._space.choices)
        squares = ((features[:, None, :] - at[None, :, :]) ** 2).sum(axis=2)
        likeness = np.exp(-0.5 * squares / FAILURE_REACH**2)
        return np.asarray(likeness @ crashed / (likeness.sum(axis=1) + 0.3))

    def _cost(self, means: Floats, trials: Sequence[FrozenTrial]) -> Floats:
        """Seconds of server time that each point may take, up to a factor.

        A line in 1 / rate through the costs of earlier trials: some of a trial is the start, and
        the rest is waiting until enough requests have come.
        """
        told = [
            (1 / trial.values[0], float(trial.user_attrs[COST_S]))
            for trial in trials
            if COST_S in trial.user_attrs and trial.values and trial.values[0] > 0
        ]
        if len(told) < 3:
            return np.ones(len(means))
        gaps, costs = np.array(told).T
        slope = max(0.0, float(np.cov(gaps, costs)[0, 1]) / max(float(np.var(gaps)), 1e-30))
        base = max(float(np.mean(costs) - slope * np.mean(gaps)), 0.2 * float(np.mean(costs)))
        gap = np.exp(-np.where(np.isfinite(means), means, -math.log(float(gaps.max()))))
        return np.asarray(base + slope * np.minimum(gap, gaps.max()))


def _traits(space: Space) -> Traits:
    """All values of the flags that are searched."""
    return tuple(
        (name.removeprefix(FLAG), flag_text(value))
        for name, values in space.choices.items()
        if name.startswith(FLAG) and len(values) > 1
        for value in values
    )


def _counts(trial: FrozenTrial) -> bool:
    """Whether a trial says something of its point: it was measured, or is being measured.

    Optuna's FAIL says nothing, save that a trial may be marked as measured in vain.
    """
    if trial.state == TrialState.FAIL:
        return bool(trial.user_attrs.get("outcome"))
    return bool(trial.params) or CURVE in trial.user_attrs
