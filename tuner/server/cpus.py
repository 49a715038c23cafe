"""Which processors the server and the load generator get."""

import os
from dataclasses import dataclass

from tuner.errors import ScenarioError


@dataclass(frozen=True, slots=True)
class Placement:
    """Processors of both sides. `apart` says that they share none.

    `elsewhere` says that the server's are another host's.
    """

    server: frozenset[int]
    generator: frozenset[int]
    elsewhere: bool = False

    @property
    def apart(self) -> bool:
        """Whether no processor serves both sides."""
        return self.elsewhere or not self.server & self.generator

    @property
    def here(self) -> "Placement":
        """The same for a server on this host."""
        return place("auto", ",".join(map(str, self.generator))) if self.elsewhere else self

    def describe(self) -> str:
        """Words for the report, such as `server on 1, load generator on 0`."""
        where = " of another host" if self.elsewhere else ""
        return (
            f"server on {_shown(self.server)}{where}, load generator on {_shown(self.generator)}"
        )


def place(
    server: str,
    generator: str,
    available: frozenset[int] | None = None,
    *,
    elsewhere: int | None = None,
) -> Placement:
    """Resolve the scenario's `cpus` keys against the processors this process may use.

    `auto` gives the generator the lowest processor and the server all others; on a machine with
    one processor they share it. With `elsewhere` the server has another host with so many
    processors, all of them unless the scenario names some. Raises ScenarioError where a named
    processor is not available.
    """
    usable = frozenset(os.sched_getaffinity(0)) if available is None else available
    first = frozenset({min(usable)})
    if elsewhere is not None:
        there = frozenset(range(elsewhere))
        return Placement(
            server=parse_cpus(server, "server.cpus", there) or there,
            generator=parse_cpus(generator, "load.cpus", usable) or first,
            elsewhere=True,
        )
    own = parse_cpus(generator, "load.cpus", usable)
    if own is None:
        taken = parse_cpus(server, "server.cpus", usable) if server != "auto" else None
        free = usable - (taken or frozenset())
        own = frozenset({min(free)}) if free else first
    theirs = parse_cpus(server, "server.cpus", usable)
    if theirs is None:
        theirs = (usable - own) or usable
    return Placement(server=theirs, generator=own)


def parse_cpus(text: str, key: str, usable: frozenset[int]) -> frozenset[int] | None:
    """Parse `all` or a list such as `0-3,6`; None for `auto`."""
    if text == "auto":
        return None
    if text == "all":
        return usable
    cpus: set[int] = set()
    try:
        for part in text.split(","):
            low, dash, high = part.partition("-")
            cpus.update(range(int(low), int(high if dash else low) + 1))
    except ValueError:
        raise ScenarioError(
            f'{key}: expected `auto`, `all` or a list such as "0-3,6", got "{text}"'
        ) from None
    if not cpus or not cpus <= usable:
        raise ScenarioError(
            f'{key}: "{text}" names processors that this process may not use',
            hint=f"usable here: {_shown(usable)}",
        )
    return frozenset(cpus)


def _shown(cpus: frozenset[int]) -> str:
    return ",".join(str(cpu) for cpu in sorted(cpus))
