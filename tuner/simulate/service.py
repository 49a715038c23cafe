"""How long a batch takes: S(rows, concurrent batches), and what a request costs besides.

    S(n, k) = run(n) * (1 + contention (max(1, k / cores) - 1)) * (1 + crowding ln k)

`run` is given at a few batch sizes and drawn straight between them. With one core the first
bracket is Amdahl's law: contention 0 leaves batches alone, 1 lets them share one core evenly. More
cores leave as many batches undisturbed. Crowding is what all lose by switching between them; it
grows slowly, as seen where hundreds of unbatched requests run at once.

Batches may also run in turn instead of sharing: a share of contention / cores of each is then
spent one batch after another, in the order in which threads took them, and the rest beside all
others. That is what TensorFlow's pool of inter-op threads does where it has one thread: a batch
that has begun keeps it from operation to operation (ExecutorState::ScheduleReady in
core/common_runtime/executor.cc runs the next one inline), and the others wait. As much is done in
a second either way; but no batch is overtaken, so that latencies spread less.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NS_PER_MS = 1e6
NOISE_FACTORS = 4096
"""So many batches take factors of their own before the same ones come again."""


@dataclass(frozen=True, slots=True)
class ServiceModel:
    """What a server takes for its work, in milliseconds.

    `run_ms[i]` is the time of a batch of `sizes[i]` executed rows that runs alone; sizes ascend.
    `request_ms` comes on top for every request in the batch. `front_ms` is spent on one request
    after another before the scheduler sees it, and `delay_ms` on every request beside all else
    (network, parsing, the client). `spread` is the coefficient of variation of a batch's time,
    which is log-normal.
    """

    sizes: tuple[int, ...]
    run_ms: tuple[float, ...]
    contention: float = 1.0
    crowding: float = 0.0
    cores: float = 1.0
    request_ms: float = 0.0
    front_ms: float = 0.0
    delay_ms: float = 0.0
    spread: float = 0.0
    in_turn: bool = False

    @property
    def alone_share(self) -> float:
        """Share of a batch's time in which no other runs; 0 where batches do not take turns."""
        return min(1.0, self.contention / max(self.cores, 1.0)) if self.in_turn else 0.0

    def run_of(self, rows: NDArray[np.int64]) -> Floats:
        """Milliseconds that batches of so many rows run alone; beyond the last size, as before."""
        sizes = np.array(self.sizes, np.float64)
        times = np.array(self.run_ms, np.float64)
        found = np.interp(rows, sizes, times)
        if len(sizes) > 1:
            slope = (times[-1] - times[-2]) / (sizes[-1] - sizes[-2])
            beyond = np.maximum(0.0, rows - sizes[-1])
            found = np.maximum(found + max(slope, 0.0) * beyond, 0.0)
        elif rows.size:
            found = found * np.maximum(1.0, rows / sizes[-1])
        return np.asarray(found, np.float64)

    def slowness(self, most: int) -> Floats:
        """How many times longer a batch takes beside others that share: entry k is for k that run.

        Always 1 where batches take turns.
        """
        running = np.arange(most + 1, dtype=np.float64)
        if self.in_turn:
            return np.ones_like(running)
        crowd = np.maximum(1.0, running / max(self.cores, 1.0)) - 1.0
        return np.asarray((1.0 + self.contention * crowd) * self._switching(running))

    def abreast(self, most: int) -> Floats:
        """How many batches' work is done in the time of one alone, by k at once: entry k - 1."""
        running = np.arange(1, most + 1, dtype=np.float64)
        if not self.in_turn:
            return np.asarray(running / self.slowness(most)[1:])
        return np.asarray(
            np.minimum(running, 1 / max(self.alone_share, 1e-9)) / self._switching(running)
        )

    def _switching(self, running: Floats) -> Floats:
        return np.asarray(1.0 + self.crowding * np.log(np.maximum(running, 1.0)))

    def noise(self, seed: int) -> Floats:
        """Factors of mean 1 for the times of successive batches.

        For one seed they move smoothly with `spread`, so that a fit can feel its way.
        """
        return _factors(self.spread, seed)


@lru_cache(maxsize=64)
def _factors(spread: float, seed: int) -> Floats:
    if spread <= 0:
        return np.ones(1)
    width = math.sqrt(math.log1p(spread**2))
    return np.asarray(np.exp(width * _normals(seed) - width**2 / 2), np.float64)


@lru_cache(maxsize=64)
def _normals(seed: int) -> Floats:
    return np.random.default_rng((seed, 2)).standard_normal(NOISE_FACTORS)
