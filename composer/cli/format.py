"""Numbers as people read them: durations, sizes, fractions; ``–`` where there is none."""

from __future__ import annotations

NONE = "–"


def duration(seconds: float | None) -> str:
    """A length of time.

    >>> duration(0.04), duration(12.4), duration(75), duration(3720), duration(None)
    ('0.04 s', '12 s', '1 min 15 s', '1 h 02 min', '–')
    """
    if seconds is None:
        return NONE
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(count: float | None) -> str:
    """A number of bytes, in powers of 1000.

    >>> size(512), size(242_043_056), size(1.2e9)
    ('512 B', '242 MB', '1.2 GB')
    """
    if count is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            return f"{count:.0f} {unit}" if count >= 9.95 or unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def percent(fraction: float | None) -> str:
    """A fraction as per cent.

    >>> percent(0.28351)
    '28.4 %'
    """
    return NONE if fraction is None else f"{fraction:.1%}".replace("%", " %")


def number(value: float | None, digits: int = 3) -> str:
    """A figure with a fixed number of decimals.

    >>> number(2.34567), number(31.02, 1), number(None)
    ('2.346', '31.0', '–')
    """
    return NONE if value is None else f"{value:.{digits}f}"


def fraction(share: float) -> str:
    """A share of a budget, as 1/n where it is one.

    >>> fraction(0.0625), fraction(1.0), fraction(0.3), fraction(0.0)
    ('1/16', '1', '0.3', '0')
    """
    if not share:
        return "0"
    n = 1 / share
    if abs(n - round(n)) < 1e-9:
        return "1" if round(n) == 1 else f"1/{round(n)}"
    return f"{share:g}"


def plural(count: int, one: str, many: str | None = None) -> str:
    """A count with its noun.

    >>> plural(1, "block"), plural(12000, "block"), plural(2, "batch", "batches")
    ('1 block', '12,000 blocks', '2 batches')
    """
    return f"{count:,} {one if count == 1 else many or one + 's'}"
