"""From what a scenario asks for to the load generator's own terms."""

from pathlib import Path

from tuner.load.client import Tls
from tuner.load.generator import Generator
from tuner.scenario import Scenario


def generator_for(
    scenario: Scenario,
    address: str,
    pool: Path,
    *,
    cpus: frozenset[int],
    usable_rps: float | None = None,
) -> Generator:
    """The load generator that the scenario asks for."""
    load = scenario.load
    return Generator(
        address,
        pool,
        engine=load.engine,
        deadline_s=load.deadline_ms / 1000,
        cpus=cpus,
        connections=load.connections,
        processes=load.processes,
        tls=tls_for(scenario),
        spin=load.spin == "spare",
        usable_rps=usable_rps,
    )


def tls_for(scenario: Scenario) -> Tls | None:
    """TLS as the scenario asks for it; None for none."""
    asked = scenario.server.tls
    if asked is None:
        return None
    return Tls(asked.ca, asked.server_name, asked.client_cert, asked.client_key)
