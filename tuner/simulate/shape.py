"""What the parameters of a fit mean, and what is known of them before anything is measured."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.simulate.curves import Traits
from tuner.simulate.express import Extent
from tuner.simulate.policy import INTER_OP, takes_turns
from tuner.simulate.service import ServiceModel

Floats = NDArray[np.float64]

ROOM = (
    ("contention", math.log(0.8), 0.6),
    ("cores", math.log(1.3), 0.9),
    ("crowding", math.log(0.04), 1.0),
    ("delay_ms", math.log(0.4), 1.0),
    ("front_ms", math.log(0.03), 1.0),
    ("spread", math.log(0.1), 0.7),
)
"""Parameters beside the run times: log of the prior median, and its standard deviation."""

JUMP = 0.08
"""How far, as a log ratio, times may leave a + b rows at each power of two; prior."""

SUDDEN = 2.0
"""The prior of a jump falls off as (1 + (jump / JUMP)^2 / SUDDEN)^-SUDDEN/2: most are small, and
the few that are not, such as a kernel that changes at one size, cost little more the larger."""

TRAIT_SPEED, TRAIT_CORES = 0.6, 0.8
"""How far, as log ratios, a flag's value may change times, and the cores that batches share: one
that spreads an operator over all cores makes a lone batch fast, and leaves others none."""

OFF_ALONE = 0.3
"""Like JUMP for a single row, which many libraries run by a path of its own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What the parameter vector means: log a, log b, a jump a size, ROOM, and two a trait.

    Whether batches run `in_turn` is no parameter: the flags that all servers share say, or a
    server's own traits. Nor are there more than `most_cores` for them to share.
    """

    sizes: tuple[int, ...]
    traits: Traits = ()
    in_turn: bool = False
    most_cores: float = math.inf

    @property
    def prior(self) -> tuple[Floats, Floats]:
        """Mean and standard deviation."""
        offs = [OFF_ALONE, *[JUMP] * (len(self.sizes) - 1)]
        effects = [TRAIT_SPEED, TRAIT_CORES] * len(self.traits)
        centres = [centre for _, centre, _ in ROOM]
        mean = [0.0, 0.0, *[0.0] * len(offs), *centres, *[0.0] * len(effects)]
        width = [6.0, 6.0, *offs, *[deviation for _, _, deviation in ROOM], *effects]
        return np.array(mean), np.array(width)

    def pull(self, parameters: Floats) -> tuple[float, Floats]:
        """Minus twice the log of the prior, and each parameter's weight in it by its distance."""
        mean, width = self.prior
        squares = ((parameters - mean) / width) ** 2
        weights = np.ones(len(parameters))
        jumps = slice(3, 2 + len(self.sizes))
        weights[jumps] = 1 / (1 + squares[jumps] / SUDDEN)
        costs = squares.copy()
        costs[jumps] = SUDDEN * np.log1p(squares[jumps] / SUDDEN)
        return float(costs.sum()), weights

    def service(self, parameters: Floats, traits: Traits = ()) -> ServiceModel:
        """The service model of a server with these traits."""
        logs = np.clip(parameters, -16.0, 16.0)
        jumps = logs[2 : 2 + len(self.sizes)]
        off = np.concatenate([jumps[:1], np.cumsum(jumps[1:])])
        # A jump comes with the first row above a size, so that each has a point on either side.
        sizes = [1]
        deviations = [off[0]]
        for below, size, deviation in zip(self.sizes, self.sizes[1:], off[1:], strict=False):
            if below + 1 < size:
                sizes.append(below + 1)
                deviations.append(deviation)
            sizes.append(size)
            deviations.append(deviation)
        line = np.exp(logs[0]) + np.exp(logs[1]) * np.array(sizes, np.float64)
        speed, cores = self._effects(logs, traits)
        run = line * np.exp(np.array(deviations) + speed)
        at = 2 + len(self.sizes)
        rest = {
            name: float(np.exp(value))
            for (name, _, _), value in zip(ROOM, logs[at : at + len(ROOM)], strict=True)
        }
        cores = rest["cores"] * math.exp(cores)
        if cores < 1:  # a lone batch takes more than there is: beside others they take turns
            alone = rest["contention"]
            rest["contention"] = max(alone, 1 - (1 - alone) * cores)
        rest["cores"] = max(1.0, min(cores, self.most_cores))
        times = tuple(float(value) for value in run)
        return ServiceModel(tuple(sizes), times, in_turn=self.turns(traits), **rest)

    def turns(self, traits: Traits) -> bool:
        """Whether batches take turns on a server with these traits."""
        flags = dict(traits)
        return takes_turns(flags) if INTER_OP in flags else self.in_turn

    def touches(self, index: int, traits: Traits, extent: Extent, cores: float) -> bool:
        """Whether a parameter can change anything of a load that used so much of the model."""
        at = index - 2
        if at < 0:
            return True
        if at < len(self.sizes):
            if at == 0:
                return extent.fewest_rows <= 1
            return extent.most_rows > self.sizes[at - 1]
        at -= len(self.sizes)
        if at < len(ROOM):
            alone = 1.0 if self.turns(traits) else cores
            undisturbed = {"contention": alone, "cores": alone, "crowding": 1.0}.get(ROOM[at][0])
            return undisturbed is None or extent.most_beside > undisturbed
        return self.traits[(at - len(ROOM)) // 2] in traits

    def _effects(self, logs: Floats, traits: Traits) -> tuple[float, float]:
        begin = 2 + len(self.sizes) + len(ROOM)
        at = [begin + 2 * i for i, trait in enumerate(self.traits) if trait in traits]
        return float(sum(logs[i] for i in at)), float(sum(logs[i + 1] for i in at))


def sizes_to(largest: int) -> tuple[int, ...]:
    """Powers of two below the largest size, and that."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return (*sizes, largest)
