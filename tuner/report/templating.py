"""The pages' templates: strict, with everything escaped that does not say otherwise."""

from functools import cache

import jinja2

from tuner.report import wording
from tuner.report.bundle import policy_hash

LONG = 240
"""Texts longer than this are folded away behind their beginning."""


def template(name: str) -> jinja2.Template:
    """A template by its file's name."""
    return _environment().get_template(name)


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=wording.number,
        rate=wording.rate,
        share=wording.share,
        ms=wording.milliseconds,
        clip=wording.clip,
        policy_hash=policy_hash,
        sentence=wording.sentence,
        typeset=wording.typeset,
    )
    environment.globals.update(long=LONG, missing=wording.MISSING)
    return environment
