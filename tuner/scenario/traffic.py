"""Sections of a scenario that stand by themselves: how load is sent, and what TLS asks for."""

from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

Corner = tuple[NonNegativeFloat, NonNegativeFloat]
"""Of a load's profile: seconds from the start, and the requests per second there."""


class Section(BaseModel):
    """What every section has in common: it is frozen, and knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_key_is_a_truth_value(cls, value: Any) -> Any:
        if isinstance(value, bool):  # which would count as 1 or 0 where a number is expected
            raise ValueError(f"expected a value, got {str(value).lower()}")  # noqa: TRY004
        return value


class TlsSection(Section):
    """How a running server is spoken to over TLS; an empty section trusts what the system does."""

    ca: Path | None = Field(
        None, description="PEM file of the authorities to trust, where not the system's."
    )
    server_name: str = Field(
        "", description="Name on the server's certificate, where it is not the address's host."
    )
    client_cert: Path | None = Field(
        None, description="PEM file of the certificate that this client shows."
    )
    client_key: Path | None = Field(None, description="PEM file of its private key.")

    @model_validator(mode="after")
    def _a_certificate_has_a_key(self) -> Self:
        if (self.client_cert is None) != (self.client_key is None):
            raise ValueError("client_cert and client_key belong together")
        return self


class LoadSection(Section):
    """The requests' arrival, and who sends them."""

    arrivals: Literal["poisson", "constant", "bursts", "trace", "profile"] = Field(
        "poisson",
        description="Open-loop arrival process; `profile` is Poisson at a rate that changes.",
    )
    burst_cv: PositiveFloat | None = Field(
        None,
        description="Coefficient of variation of the gaps between `bursts`; 1 is Poisson, more is "
        "burstier.",
    )
    trace: Path | None = Field(
        None,
        description="File of arrival times in seconds, one a line, ascending: from the start, or "
        "since 1970. Of a CSV line the first column counts. `#` starts a comment.",
    )
    trace_speed: PositiveFloat = Field(
        1.0,
        description="`tuner bench` replays the trace so many times as fast; where a rate is asked "
        "for, the trace is stretched to it.",
    )
    profile: tuple[Corner, ...] = Field(
        (),
        description="[[seconds, requests/s], ...]: two corners make a ramp, two at the same time "
        "a step. For `tuner bench`.",
    )
    engine: Literal["http2", "grpcio"] = Field(
        "http2",
        description="The load generator's client; `grpcio` is the cross-check.",
    )
    spin: Literal["never", "spare"] = Field(
        "never",
        description="`spare` polls, not sleeps, for the last 0.1 ms before a request is due, "
        "where each generator process has a processor more than it needs (load.cpus).",
    )
    connections: PositiveInt = Field(1, description="Connections of each generator process.")
    processes: PositiveInt = Field(
        1, description="Generator processes that share out the load; one suffices nearly always."
    )
    concurrency: PositiveInt = Field(
        64,
        description="Requests outstanding in the closed loop that finds the peak; fewer where "
        "none of so many is answered in time.",
    )
    outstanding_limit: PositiveInt = Field(
        1024, description="An open-loop level ends as saturated at this many unanswered requests."
    )
    deadline_ms: PositiveFloat = Field(10_000.0, description="Deadline of every request.")
    cpus: str = Field("auto", description="`auto`, `all`, or a list: processors of the generator.")

    @property
    def gap_cv(self) -> float:
        """Coefficient of variation of the gaps between requests; a trace counts as Poisson."""
        if self.arrivals == "constant":
            return 0.0
        return 1.0 if self.burst_cv is None else self.burst_cv

    @field_validator("profile")
    @classmethod
    def _a_profile_goes_on(cls, profile: tuple[Corner, ...]) -> tuple[Corner, ...]:
        times_s = [at_s for at_s, _ in profile]
        if profile and (
            times_s[0] != 0
            or times_s[-1] == 0
            or any(later < earlier for earlier, later in pairwise(times_s))
            or not any(rate for _, rate in profile)
        ):
            raise ValueError(
                "give corners [seconds, requests/s] in order of time, the first at 0 s, such as "
                "[[0, 100], [60, 500]]"
            )
        return profile

    @model_validator(mode="after")
    def _arrivals_have_what_they_need(self) -> Self:
        if (self.arrivals == "trace") != (self.trace is not None):
            raise ValueError('arrivals = "trace" and trace = "FILE" belong together')
        if (self.arrivals == "bursts") != (self.burst_cv is not None):
            raise ValueError('arrivals = "bursts" and burst_cv = 2.0 belong together')
        if (self.arrivals == "profile") != bool(self.profile):
            raise ValueError(
                'arrivals = "profile" and profile = [[0, 100], [60, 500]] belong together'
            )
        if self.trace is None and self.trace_speed != 1.0:
            raise ValueError('trace_speed is for arrivals = "trace"')
        return self
