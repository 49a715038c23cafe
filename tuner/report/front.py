"""The Pareto front: what no other point beats in throughput and in latency at once."""

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> tuple[int, ...]:
    """Find the indices of the points on the front, by rising throughput.

    A point is (throughput, latency): the more of the first and the less of the second, the
    better. A point is on the front where no other has at least its throughput and at most its
    latency, one of them strictly. Of equal points only the first is kept, so that a repeated
    measurement does not change the front.
    """
    front: list[int] = []
    lowest = float("inf")
    for index in sorted(range(len(points)), key=lambda i: (-points[i][0], points[i][1], i)):
        latency = points[index][1]
        if latency < lowest:
            front.append(index)
            lowest = latency
    return tuple(reversed(front))
