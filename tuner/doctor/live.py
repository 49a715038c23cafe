"""Checks that need the server: it is started as a trial would, asked, loaded for a moment."""

from contextlib import closing
from pathlib import Path

import numpy as np

from tuner.clock import NS_PER_S
from tuner.doctor.finding import Finding, Report, caught
from tuner.doctor.models import Models
from tuner.load.client import Tls
from tuner.load.payload import build_pool
from tuner.load.pool import RequestPool
from tuner.load.probe import DEFAULT_RECEIVE_LIMIT, Answer, ask
from tuner.records import OK, Samples, Status
from tuner.scenario import Scenario
from tuner.search.space import baselines
from tuner.server.cpus import Placement
from tuner.server.known import recognise
from tuner.server.launcher import Server
from tuner.trial.asked import generator_for, tls_for
from tuner.wiring.bench import launcher_of, part
from tuner.wiring.calibration import calibrated

LOAD_S = 2.0
"""How long the closed loop runs that shows what the generator costs; half of it is warm-up."""

HEADROOM = 2.0
"""How much more than the server's defaults a tuned configuration may well carry."""


def check_live(
    scenario: Scenario, models: Models, placement: Placement, folder: Path, report: Report
) -> None:
    """Start the server with its default batching, ask every model, and load it for a moment.

    Files and the server's log go to `folder`.
    """
    with caught("requests", report):
        pool = build_pool([part(*model) for model in models], seed=scenario.seed)
        pool.save(folder / "requests.pool")
        usable_rps = calibrated(
            scenario.load.engine,
            placement.here,
            lambda _text: None,
            processes=scenario.load.processes,
        ).usable_rps
        with (
            caught("server", report),
            closing(launcher_of(scenario, placement, lambda _text: None)) as launcher,
        ):
            identity = launcher.identify()
            _, (_, default) = baselines(len(placement.server))
            with launcher.launch(default, folder) as server:
                shown = identity.image or identity.version
                report(
                    Finding(
                        "server",
                        "green",
                        f"{identity.launcher} server ({shown}) ready in "
                        f"{server.endpoint.start_s:.1f} s",
                    )
                )
                samples = _check_started(scenario, models, placement, pool, folder, server, report)
                if samples is not None:
                    report(check_ceiling(samples, usable_rps))
                server.check()


def _check_started(
    scenario: Scenario,
    models: Models,
    placement: Placement,
    pool: RequestPool,
    folder: Path,
    server: Server,
    report: Report,
) -> Samples | None:
    """Ask every model; load the server for a moment where all are answered."""
    address, tls = server.endpoint.address, tls_for(scenario)
    answered = [
        check_answer(section.servable, rows, address, pool.of_rows(rows)[number], report, tls)
        for number, (section, _) in enumerate(models)
        for rows in sorted({min(section.row_weights), max(section.row_weights)})
    ]
    report(check_metrics(server.scrape()))
    if not all(answered):
        return None
    requests = folder / "requests.pool"
    with generator_for(scenario, address, requests, cpus=placement.generator) as generator:
        concurrency = scenario.load.concurrency
        for seed in (1, 2):  # the first is warm-up
            samples = generator.closed_loop(
                concurrency=concurrency, duration_s=LOAD_S / 2, seed=seed
            )
    return samples


def check_answer(
    model: str,
    rows: int,
    address: str,
    message: bytes,
    report: Report,
    tls: Tls | None = None,
) -> bool:
    """Ask as an ordinary client does, then without its limits. Returns whether it was answered."""
    answer = ask(address, message, tls=tls)
    if answer.status.code == OK:
        report(
            Finding(
                "request",
                "green",
                f"{model}: a request of {rows} row{'s' * (rows > 1)} ({len(message):,} bytes) is "
                f"answered ({answer.size:,} bytes)",
            )
        )
        return True
    unlimited = ask(address, message, receive_limit=-1, tls=tls)
    if unlimited.status.code == OK:
        report(_client_limit(model, rows, unlimited))
        return True
    report(_failed(model, rows, unlimited.status))
    return False


def _client_limit(model: str, rows: int, answer: Answer) -> Finding:
    known = recognise("received message larger than max")
    assert known is not None
    return Finding(
        known.check,
        "yellow",
        f"{model}: the answer to {rows} row{'s' * (rows > 1)} has {answer.size:,} bytes; a gRPC "
        f"client refuses more than {DEFAULT_RECEIVE_LIMIT:,} unless told otherwise (received "
        "message larger than max)",
        "the tuner's client has no such limit; yours need the channel option "
        "grpc.max_receive_message_length, -1 for none",
    )


def _failed(model: str, rows: int, status: Status) -> Finding:
    known = recognise(status.text) or recognise(status.code)
    text = (
        f"{model}: a request of {rows} row{'s' * (rows > 1)} fails: {status.code}: {status.text}"
    )
    if known is None:
        return Finding("request", "red", text, "see whether the inputs are what the model takes")
    return Finding(known.check, "red", f"{known.what}. {text}", known.remedy)


def check_metrics(page: str | None) -> Finding:
    """Whether the server's counters can be read: attained batch sizes come from them alone."""
    if page is not None:
        return Finding("metrics", "green", "the server's Prometheus page can be read")
    return Finding(
        "metrics",
        "yellow",
        "the server's Prometheus page cannot be read, so batch sizes will not be known",
        "look into the server's log for its REST port; leave rest_api_port to the tuner, and name "
        "a running server's page as server.metrics_url",
    )


def check_ceiling(samples: Samples, usable_rps: float) -> Finding:
    """What the server carries unasked, against the load that the generator may send here.

    `samples` are of a closed loop on the server's defaults; tuned, it may carry HEADROOM times as
    much. A load above `usable_rps`, half of the generator's ceiling, is refused by `tuner tune`.
    """
    seconds = (samples.ended_ns - samples.started_ns) / NS_PER_S
    answered = int(np.count_nonzero(samples.status == 0))
    rate = answered / seconds
    text = (
        f"{rate:,.0f} requests/s at the server's defaults; the generator is trusted up to "
        f"{usable_rps:,.0f}/s on this machine, half of what it can send"
    )
    if HEADROOM * rate <= usable_rps:
        return Finding("generator", "green", text)
    return Finding(
        "generator",
        "red" if rate > usable_rps else "yellow",
        f"{text}: too little for a configuration that carries {HEADROOM:g} times as much",
        "give the generator a faster processor (load.cpus) or several (load.processes), or put "
        "more rows into a request; `tuner calibrate` measures it again",
    )
