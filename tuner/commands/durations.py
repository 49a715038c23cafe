"""Spans of time as people write them."""

UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def duration_s(text: str) -> float | None:
    """Parse `8h`, `90m`, `1h30m` or `45s` into seconds; None where it is none of these."""
    seconds, number = 0.0, ""
    for character in text:
        if character in UNITS and number:
            try:
                seconds += float(number) * UNITS[character]
            except ValueError:
                return None
            number = ""
        else:
            number += character
    return None if number else seconds
