"""Figures as people read them, where a sentence is made of what was measured."""


def per_second(value: float) -> str:
    """Write a rate with its unit, in three digits at least: `9.38/s`, `1,204/s`."""
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"
