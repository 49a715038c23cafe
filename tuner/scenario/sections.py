"""What a scenario says: one frozen, checked section for each table of the file.

Units are in the key names. The descriptions here are the reference of the format: the JSON Schema
and `docs/scenario.md` are made from them.
"""

import re
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tuner.scenario.containers import CONTAINER_WORDS, parse_mount
from tuner.scenario.flags import Flag, check_flags, check_thread_pools
from tuner.scenario.launchers import ADDRESS, KEYS_OF, PAGE_URL
from tuner.scenario.traffic import LoadSection, Section, TlsSection
from tuner.served import ServedModel, served_models
from tuner.slo import Slo


def shown(value: Any) -> str:
    """Write a value as the user might have, cut to a line."""
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


class ModelSection(Section):
    """A SavedModel and how it is asked."""

    path: Path = Field(description="Directory that holds the numeric version directories.")
    builtin: Literal["dense-2048x4", "basic_pitch"] | None = Field(
        None, description="A model this project can make; written to `path` on first use."
    )
    name: str = Field("", description="Servable name; the directory's own name by default.")
    signature: str = Field("serving_default", description="Signature that requests call.")
    version: PositiveInt | None = Field(None, description="Ask for this version, not the latest.")
    version_label: str | None = Field(None, description="Ask for the version with this label.")
    versions: Literal["latest", "all"] | tuple[PositiveInt, ...] = Field(
        "latest",
        description='Versions the server loads: "latest", "all", or a list; those that requests '
        "and labels name by default.",
    )
    version_labels: dict[str, PositiveInt] = Field(
        {}, description="Labels and the versions they name, such as { stable = 1 }."
    )
    weight: PositiveFloat = Field(1.0, description="Share of this model's requests in the mix.")
    inputs: Literal["random"] | Path = Field(
        "random",
        description="`random`, an .npz of arrays by input name, or a tf_serving_warmup_requests.",
    )
    dims: dict[str, tuple[PositiveInt, ...]] = Field(
        {}, description="Sizes of an input's dimensions after the first, where the model is open."
    )
    rows: PositiveInt | dict[str, PositiveFloat] = Field(
        1, description='Rows per request, or a distribution such as { "1" = 0.7, "8" = 0.3 }.'
    )

    @field_validator("rows")
    @classmethod
    def _rows_are_counts(cls, rows: int | dict[str, float]) -> int | dict[str, float]:
        if isinstance(rows, dict) and (
            not rows or not all(key.isascii() and key.isdigit() and int(key) > 0 for key in rows)
        ):
            raise ValueError('keys must be row counts of 1 or more, such as { "1" = 0.7 }')
        return rows

    @field_validator("versions")
    @classmethod
    def _versions_in_order(cls, versions: str | tuple[int, ...]) -> str | tuple[int, ...]:
        if versions == ():
            raise ValueError("list at least one version")
        return versions if isinstance(versions, str) else tuple(sorted(set(versions)))

    @model_validator(mode="after")
    def _one_way_to_name_a_version(self) -> Self:
        if self.version is not None and self.version_label is not None:
            raise ValueError("give version or version_label, not both")
        return self

    @property
    def servable(self) -> str:
        """The name that requests carry."""
        return self.name or self.path.name

    @property
    def row_weights(self) -> dict[int, float]:
        """Rows per request with their weights."""
        if isinstance(self.rows, int):
            return {self.rows: 1.0}
        return {int(rows): weight for rows, weight in self.rows.items()}


class ServerSection(Section):
    """Which server is started, and with what."""

    launcher: Literal["embedded", "binary", "docker", "running"] = Field(
        "embedded",
        description="`embedded` ships with the project, `binary` is TensorFlow's own, `docker` "
        "starts an image; a `running` one is measured as it is.",
    )
    address: str = Field(
        "",
        description="running: `HOST:PORT` or `unix:PATH`; spoken to over TLS where there is a "
        "section [server.tls].",
    )
    metrics_url: str = Field(
        "", description="running: the http:// address of its Prometheus page, if it has one."
    )
    tls: TlsSection | None = Field(None, description="running: TLS, and whom to trust.")
    binary: str = Field(
        "tensorflow_model_server", description="Name on the PATH, or path, of the binary."
    )
    start_timeout_s: PositiveFloat = Field(120.0, description="From start to ready, at most.")
    cpus: str = Field(
        "auto", description="`auto`, `all`, or a list such as `0-3,6`: processors of the server."
    )
    flags: dict[str, Flag] = Field(
        {}, description="Further flags by name without dashes; deployed with the recommendation."
    )
    swap: Literal["auto", "never"] = Field(
        "auto",
        description="`auto` lets a server live on and load configurations as versions, where "
        "that is quicker than starting it; the final always starts afresh.",
    )
    image: str = Field(
        "tensorflow/serving:2.20.0",
        description="docker: image with tag or digest; pulled where it is absent.",
    )
    gpus: str | int | None = Field(
        None, description='docker: "all", a number of GPUs, or "device=0", as `docker run --gpus`.'
    )
    runtime: str = Field("", description="docker: the container runtime, such as `nvidia`.")
    memory: str = Field("", description='docker: memory limit such as "4g"; no limit without it.')
    env: dict[str, str] = Field({}, description="docker: environment variables.")
    mounts: tuple[str, ...] = Field(
        (), description='docker: further mounts, "HOST:CONTAINER", read-only unless ":rw" follows.'
    )
    root: Literal["read-only", "writable"] = Field(
        "read-only", description="docker: the image's own files; /tmp can always be written."
    )
    user: str = Field(
        "", description="docker: user[:group] inside the container; yours where it is local."
    )

    @field_validator(*CONTAINER_WORDS)
    @classmethod
    def _words_the_engine_knows(cls, value: Any, info: ValidationInfo) -> Any:
        pattern, wanted = CONTAINER_WORDS[str(info.field_name)]
        if value is not None and not re.fullmatch(pattern, str(value)):
            raise ValueError(f"expected {wanted}, got {shown(value)}")
        return value

    @field_validator("env")
    @classmethod
    def _variables_have_names(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r}: not the name of an environment variable")
        return env

    @field_validator("mounts")
    @classmethod
    def _mounts_can_be_read(cls, mounts: tuple[str, ...]) -> tuple[str, ...]:
        for text in mounts:
            parse_mount(text)
        return mounts

    @field_validator("address")
    @classmethod
    def _addresses_name_a_port(cls, address: str) -> str:
        if address and not re.fullmatch(ADDRESS, address):
            raise ValueError(f'expected HOST:PORT, [IPv6]:PORT or unix:PATH, got "{address}"')
        return address

    @field_validator("metrics_url")
    @classmethod
    def _metrics_are_a_page(cls, url: str) -> str:
        if url and not re.fullmatch(PAGE_URL, url):
            raise ValueError(f'expected http://HOST:PORT/PATH, got "{url}"')
        return url

    @model_validator(mode="after")
    def _keys_fit_the_launcher(self) -> Self:
        if (self.launcher == "running") != bool(self.address):
            raise ValueError('launcher = "running" and address = "HOST:PORT" belong together')
        fields = type(self).model_fields
        given = {key for key in fields if getattr(self, key) != fields[key].default}
        for launcher, keys, whose in KEYS_OF:
            if self.launcher != launcher and (wrong := [key for key in keys if key in given]):
                raise ValueError(
                    f'{wrong[0]} is for {whose}; set launcher = "{launcher}", or remove {wrong[0]}'
                )
        if self.launcher == "running" and self.flags:
            raise ValueError(
                "flags: the server runs already, with flags of its own; remove them, or let the "
                'tuner start it (launcher = "binary" or "docker")'
            )
        return self

    @field_validator("flags")
    @classmethod
    def _flags_are_not_ours(cls, flags: dict[str, Flag]) -> dict[str, Flag]:
        check_flags({name: (value,) for name, value in flags.items()})
        return flags


class SloSection(Section):
    """The latency promise. At least one limit."""

    p50_ms: PositiveFloat | None = Field(
        None, description="Half of the requests are answered within this."
    )
    p90_ms: PositiveFloat | None = Field(
        None, description="90 % of the requests are answered within this."
    )
    p95_ms: PositiveFloat | None = Field(
        None, description="95 % of the requests are answered within this."
    )
    p99_ms: PositiveFloat | None = Field(
        None, description="99 % of the requests are answered within this."
    )
    p999_ms: PositiveFloat | None = Field(
        None, description="99.9 % of the requests are answered within this."
    )
    max_error_rate: Annotated[float, Field(ge=0.0, lt=1.0)] = Field(
        0.0, description="Share of requests that may fail."
    )
    confidence: Annotated[float, Field(ge=0.5, le=0.999)] = Field(
        0.95, description="Of the counting test that decides whether the SLO holds."
    )

    @model_validator(mode="after")
    def _at_least_one_limit(self) -> Self:
        if not self.limits:
            raise ValueError("set at least one limit, such as p99_ms = 50")
        return self

    @property
    def limits(self) -> tuple[tuple[str, float], ...]:
        """The limits that are set, as (`p99`, milliseconds)."""
        return tuple(
            (name, limit)
            for name in ("p50", "p90", "p95", "p99", "p999")
            if (limit := getattr(self, f"{name}_ms")) is not None
        )


class MeasureSection(Section):
    """How long is measured, and how finely the sustainable rate is bracketed."""

    window_s: PositiveFloat = Field(4.0, description="Shortest measuring window of a load level.")
    max_window_s: PositiveFloat = Field(
        30.0, description="A window grows up to this where the rate is low or the answer is open."
    )
    warmup_s: PositiveFloat = Field(
        2.0, description="One stretch of warm-up load; repeated until the latency is steady."
    )
    max_warmup_s: PositiveFloat = Field(20.0, description="All warm-up of one start, at most.")
    resolution: Annotated[float, Field(ge=0.01, le=0.5)] = Field(
        0.06, description="The sustainable rate is bracketed to this share of itself."
    )
    repeats: NonNegativeInt = Field(
        2, description="How often an invalid measurement is repeated before it counts as invalid."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.max_window_s < self.window_s:
            raise ValueError("max_window_s must be at least window_s")
        if self.max_warmup_s < self.warmup_s:
            raise ValueError("max_warmup_s must be at least warmup_s")
        return self


class SpaceSection(Section):
    """The values each parameter may take."""

    max_batch_size: tuple[PositiveInt, ...] = Field(
        (4, 8, 16, 32, 64, 128), description="Rows in a batch, at most."
    )
    batch_timeout_micros: tuple[NonNegativeInt, ...] = Field(
        (0, 1_000, 2_000, 5_000, 10_000),
        description="How long an idle thread lets a batch wait for more rows.",
    )
    num_batch_threads: tuple[PositiveInt, ...] = Field(
        (1, 2, 4), description="Batches that run at the same time, at most."
    )
    allowed_batch_sizes: tuple[Literal["any", "powers_of_two", "linear"], ...] = Field(
        ("any",),
        description="Sizes that batches are padded to: none, 1 2 4 8 ..., or even steps.",
    )
    enable_large_batch_splitting: tuple[bool, ...] = Field(
        (False,),
        description="Whether requests are split over batches; max_batch_size is then what runs, "
        "and requests may be larger.",
    )
    flags: dict[str, tuple[Flag, ...]] = Field(
        {}, description="Server flags to search, each with its values."
    )

    @field_validator("max_batch_size", "batch_timeout_micros", "num_batch_threads")
    @classmethod
    def _choices(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if not values:
            raise ValueError("list at least one value")
        return tuple(sorted(set(values)))

    @field_validator("allowed_batch_sizes", "enable_large_batch_splitting")
    @classmethod
    def _at_least_one(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values:
            raise ValueError("list at least one value")
        return tuple(dict.fromkeys(values))

    @field_validator("flags")
    @classmethod
    def _flags_have_values(cls, flags: dict[str, tuple[Flag, ...]]) -> dict[str, tuple[Flag, ...]]:
        check_flags(flags)
        for name, values in flags.items():
            if not values:
                raise ValueError(f"{name}: list at least one value")
        return {name: tuple(dict.fromkeys(values)) for name, values in flags.items()}


class SearchSection(Section):
    """How many configurations are measured, and how they are chosen."""

    trials: PositiveInt = Field(12, description="Server starts of the search, baselines included.")
    sampler: Literal["auto", "tpe", "gp", "nsga2", "random", "grid"] = Field(
        "auto",
        description="How configurations are chosen: by a model of the scheduler that is fitted "
        "to the run (auto), by one of Optuna's samplers, or all in turn (grid).",
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        "auto", description="Which of the guide's starting points are tried first."
    )
    guide_points: NonNegativeInt | Literal["auto"] = Field(
        "auto",
        description="How many of the guide's starting points are tried before the sampler; auto: "
        "1 before the model of the scheduler, 3 before others.",
    )
    aa_starts: NonNegativeInt | Literal["auto"] = Field(
        "auto", description="Further starts of the default at the start, that tell the noise."
    )
    reference_every: NonNegativeInt | Literal["auto"] = Field(
        "auto",
        description="Measure the default again after so many trials, to see drift; 0: never.",
    )
    overload: tuple[Annotated[float, Field(gt=1.0, le=10.0)], ...] | Literal["auto"] = Field(
        "auto",
        description="Shares of its sustainable rate by which whatever may be recommended, the "
        "defaults too, is overloaded; []: none.",
    )
    final_blocks: NonNegativeInt | Literal["auto"] = Field(
        "auto",
        description="Blocks of the final, each measuring all contenders on fresh starts; time "
        "that a deadline leaves over gives more.",
    )
    final_contenders: Annotated[int, Field(ge=2, le=4)] | Literal["auto"] = Field(
        "auto", description="Who meets in it: winner, default, then the runner-up, batching off."
    )
    space: SpaceSection = SpaceSection()


class Scenario(Section):
    """One tuning job, complete."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = Field(
        description="Names the run's folder: letters, digits, dots, dashes."
    )
    seed: NonNegativeInt = Field(1, description="Of arrivals, payloads and the sampler.")
    models: Annotated[tuple[ModelSection, ...], Field(min_length=1)]
    slo: SloSection
    server: ServerSection = ServerSection()
    load: LoadSection = LoadSection()
    measure: MeasureSection = MeasureSection()
    search: SearchSection = SearchSection()

    @model_validator(mode="before")
    @classmethod
    def _one_model_is_a_list_of_one(cls, data: Any) -> Any:
        if isinstance(data, dict) and "model" in data:
            if "models" in data:
                raise ValueError("give [model] or several [[models]], not both")
            data = dict(data)
            data["models"] = [data.pop("model")]
        return data

    @model_validator(mode="after")
    def _models_can_be_served_together(self) -> Self:
        served_models(self.models)
        return self

    @model_validator(mode="after")
    def _a_flag_is_fixed_or_searched(self) -> Self:
        searched = self.search.space.flags
        for name in searched:
            if name in self.server.flags:
                raise ValueError(
                    f"the flag {name} is fixed in server.flags and searched in "
                    "search.space.flags; leave it in one of them"
                )
        given = {name: (value,) for name, value in self.server.flags.items()} | searched
        check_thread_pools(given)
        return self

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """The models and versions that one server holds, each name once."""
        return served_models(self.models)

    @property
    def queues(self) -> int:
        """How many queues the requests wait in: the server batches each signature by itself."""
        return len(
            {
                (model.servable, model.version, model.version_label, model.signature)
                for model in self.models
            }
        )

    @property
    def row_weights(self) -> dict[int, float]:
        """Weights of the rows of a request, over all models."""
        weights: defaultdict[int, float] = defaultdict(float)
        for model in self.models:
            for rows, weight in model.row_weights.items():
                weights[rows] += model.weight * weight
        return dict(sorted(weights.items()))

    def limits(self) -> Slo:
        """The SLO as the value that measurements are judged by."""
        return Slo(
            limits_ms=self.slo.limits,
            max_error_rate=self.slo.max_error_rate,
            confidence=self.slo.confidence,
        )
