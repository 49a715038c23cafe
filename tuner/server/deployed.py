"""What a scenario and its recommended configuration look like when they are deployed."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tuner.deploy import DeployedModel, Deployment, Mount
from tuner.records import Config, ServerIdentity
from tuner.scenario import Scenario, parse_mount
from tuner.server.flags import deployed_flags, model_config_text, needs_model_config

IMAGE = "tensorflow/serving"
LATEST = "2.20.0"
"""The newest release when this was written: named where what was measured has no image."""


def deployment(
    scenario: Scenario,
    config: Config,
    server: ServerIdentity,
    run: Path,
    cpus: Iterable[int] = (),
) -> Deployment:
    """Say what must be started for `config` to do what it did here.

    `run` is the run directory, `cpus` are the processors the server was measured on.
    """
    ours = {model.servable for model in scenario.models if model.builtin}
    models = tuple(
        DeployedModel(model.name, _path(model.path, run, ours=model.name in ours))
        for model in scenario.served
    )
    asked = scenario.server
    return Deployment(
        name=scenario.name,
        image=_image(server),
        measured_image=server.image is not None,
        flags=deployed_flags(scenario, config),
        models=models,
        cpus=tuple(sorted(cpus)),
        gpus="" if asked.gpus is None else str(asked.gpus),
        runtime=asked.runtime,
        memory=asked.memory,
        environment=asked.env,
        mounts=tuple(Mount(*parse_mount(text)) for text in asked.mounts),
    )


def deployed_models_text(scenario: Scenario) -> str | None:
    """The `model_config_file` as a container sees it; None where flags say all there is."""
    if not needs_model_config(scenario):
        return None
    mounted = {
        model.name: DeployedModel(model.name, str(model.path)).mounted for model in scenario.served
    }
    return model_config_text(scenario.served, base_paths=mounted)


def _path(model: Path, run: Path, *, ours: bool) -> str:
    """A model of our own lies in this checkout, as a run does, and both may be moved together."""
    relative = os.path.relpath(model, run.resolve())
    return relative if ours and not set(relative) & set('",\n') else str(model)


def _image(server: ServerIdentity) -> str:
    """The image that was measured, by its name; else the like of it."""
    if server.image is not None:
        return server.image
    version = re.search(r"\d+\.\d+\.\d+", server.version) if server.launcher == "binary" else None
    return f"{IMAGE}:{version[0] if version else LATEST}"
