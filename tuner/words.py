"""Figures as people read them, where a sentence is made of what was measured."""


def digits(value: float) -> str:
    """Write three significant digits, never an exponent: `0.125`, `57.3`, `12,400`."""
    size = abs(value)
    if size >= 100:
        return f"{float(f'{value:.3g}'):,.0f}" if size >= 10_000 else f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size == 0:
        return "0"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def per_second(value: float) -> str:
    """Write a rate with its unit: `9.38/s`, `1,204/s`."""
    return f"{digits(value)}/s"
