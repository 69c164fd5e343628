"""Numbers as they are written for people: at most four significant figures, and one unit for all that is compared."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

FIGURES = 4

NOTHING = "–"
"""Stands where there is no number."""


@dataclass(frozen=True)
class Unit:
    """``size`` is how many base units one of these is."""

    name: str
    size: float

    def write(self, value: float, figures: int = FIGURES) -> str:
        return significant(value / self.size, figures)


SECONDS = (Unit("ns", 1e-9), Unit("µs", 1e-6), Unit("ms", 1e-3), Unit("s", 1.0))
BYTES = (Unit("B", 1.0), Unit("kB", 1e3), Unit("MB", 1e6), Unit("GB", 1e9), Unit("TB", 1e12))
FLOPS = (Unit("flop", 1.0), Unit("kflop", 1e3), Unit("Mflop", 1e6), Unit("Gflop", 1e9), Unit("Tflop", 1e12))


def significant(value: float, figures: int = FIGURES) -> str:
    """``value`` with at most so many significant figures; powers of ten only where the digits would not tell.

    >>> [significant(x) for x in (0.0123456, 1234567.0, 12.0, 11.9999, 3e-9, float("nan"))]
    ['0.01235', '1235000', '12', '12.00', '3e-09', 'nan']
    """
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e8:
        return f"{value:.{min(figures, 3)}g}"
    rounded = float(f"{value:.{figures - 1}e}")
    decimals = max(0, figures - 1 - math.floor(math.log10(abs(rounded))))
    return f"{rounded:.{0 if value == int(value) else decimals}f}"


def scientific(value: float) -> str:
    """A number for an axis or a heading, with at most three figures: powers of ten are told from 10⁴ on.

    >>> [scientific(x) for x in (0.001, 300.0, 1e4, 2.5e6, 1e-5, float("inf"))]
    ['0.001', '300', '10⁴', '2.5·10⁶', '10⁻⁵', '∞']
    """
    if not math.isfinite(value):
        return significant(value)
    digits, power = f"{value:.2e}".split("e")
    if -3 <= int(power) <= 3:
        return f"{float(f'{value:.2e}'):g}"
    ten = f"10{str(int(power)).translate(str.maketrans('0123456789-', '⁰¹²³⁴⁵⁶⁷⁸⁹⁻'))}"
    return ten if float(digits) == 1 else f"{float(digits):g}·{ten}"


def common_unit(values: Iterable[float], units: tuple[Unit, ...]) -> Unit:
    """The unit in which the smallest value is at least 1, or a larger one that keeps the largest below 10⁵."""
    known = [abs(value) for value in values if math.isfinite(value) and value]
    if not known:
        return units[-1] if units is SECONDS else units[0]
    fitting = [unit for unit in units if unit.size <= min(known)] or [units[0]]
    return next((unit for unit in units if unit.size >= fitting[-1].size and max(known) < 1e5 * unit.size), units[-1])


def duration(seconds: float, figures: int = 3) -> str:
    """A time with the unit that suits it: ``12.3 ms``."""
    unit = common_unit([float(f"{seconds:.{figures - 1}e}")], SECONDS)  # 999.9 ms is 1 s
    return f"{unit.write(seconds, figures)} {unit.name}"


def size(count: float, figures: int = 3) -> str:
    """A number of bytes with the unit that suits it."""
    unit = common_unit([float(f"{count:.{figures - 1}e}")], BYTES)
    return f"{unit.write(count, figures)} {unit.name}"


def percent(share: float) -> str:
    """``10 %``, with a space at which no line is broken."""
    return f"{100 * share:.3g}\u00a0%"


def listed(items: Iterable[str], last: str = "and") -> str:
    """``a, b and c``."""
    items = list(items)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {last} {items[-1]}" if items else ""


def plural(count: int, noun: str, many: str = "") -> str:
    """``1 case``, ``3 cases``."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"
