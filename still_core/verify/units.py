"""Units as written: which words are units, and when two of them are the same."""

from __future__ import annotations

import re

_GROUPS = [
    "cm centimeter centimeters centimetre centimetres",
    "mm millimeter millimeters millimetre millimetres",
    "m meter meters metre metres",
    "km kilometer kilometers kilometre kilometres",
    "in inch inches",
    "ft foot feet",
    "yd yard yards",
    "mi mile miles",
    "kg kilogram kilograms",
    "g gram grams",
    "mg milligram milligrams",
    "lb lbs pound pounds",
    "oz ounce ounces",
    "s sec secs second seconds",
    "min mins minute minutes",
    "h hr hrs hour hours",
    "day days",
    "week weeks",
    "month months",
    "year years yr yrs",
    "degree degrees deg",
    "radian radians rad",
    "dollar dollars usd bucks",
    "cent cents",
    "euro euros eur",
    "sterling gbp",
    "rupee rupees rs inr",
    "yen jpy",
    "percent pct percentage %",
    "unit units",
    "liter liters litre litres l",
    "ml milliliter milliliters",
    "gallon gallons",
    "mole moles mol",
    "joule joules j",
    "newton newtons n",
    "watt watts w",
    "volt volts v",
    "ampere amperes amp amps a",
    "coulomb coulombs c",
    "pascal pascals pa",
    "hertz hz",
    "ohm ohms",
    "kelvin k",
    "celsius",
    "fahrenheit",
    "a.m. am",
    "p.m. pm",
]
_SAME = {word: group.split()[0] for group in _GROUPS for word in group.split()}
_SHORT = {"mph": "mi/h", "kmh": "km/h", "kph": "km/h"}
CURRENCIES = frozenset({"dollar", "euro", "sterling", "rupee", "yen"})
_FORMULA = re.compile(
    r"[A-Za-z]{1,3}(?:\^?\{?-?\d\}?)?(?:\s*(?:/|\\cdot|\s)\s*[A-Za-z]{1,3}(?:\^?\{?-?\d\}?)?)+",
    re.ASCII,
)
_EXPONENT = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cubed": "3"}

NEUTRAL = frozenset({"unit", "unit2", "unit3", ""})
"""Units that say nothing: they are the same as any."""


def is_unit_word(word: str) -> bool:
    """Whether a plain word (two letters or more) is a unit that may follow a number."""
    lowered = word.lower().rstrip(".")
    return len(word) >= 2 and (
        lowered in _SAME or lowered in _SHORT or lowered in _EXPONENT or lowered in ("per", "p.m")
    )


def is_unit_formula(text: str) -> bool:
    """Whether a text is units alone, several of them: `m/s^2`, `kg m/s`."""
    return _FORMULA.fullmatch(text) is not None and all(
        word.lower() in _SAME for word in re.findall(r"[A-Za-z]+", text)
    )


def known_unit(unit: str) -> bool:
    """Whether every word of a canonical unit is known; `apples` is not."""
    names = set(_SAME.values())
    return all(re.sub(r"\d+$", "", part) in names for part in unit.split("/"))


def canonical_unit(text: str) -> str:
    """One spelling per unit: `square centimeters`, `cm^2` and `cm2` are `cm2`; `per` is `/`.

    >>> canonical_unit("square centimeters"), canonical_unit("dollars per hour")
    ('cm2', 'dollar/h')
    """
    text = text.lower().replace("\\cdot", " ")
    text = re.sub(r"[\\${}()^]", "", text).replace("%", " percent ")
    parts: list[str] = []
    exponent = ""
    separator = ""
    for word in re.findall(r"[^\W\d]+(?:\.[a-z]\.)?|\d+|/", text):
        if word in ("/", "per"):
            separator = "/"
        elif word in _EXPONENT and (word.endswith("ed") and parts):
            parts[-1] += _EXPONENT[word]
        elif word in _EXPONENT:
            exponent = _EXPONENT[word]
        elif word.isdigit():
            if parts:
                parts[-1] += word
        else:
            name = _SAME.get(word, _SAME.get(word.rstrip("."), word.rstrip("s")))
            name = _SHORT.get(name, name)
            parts.append(separator + name + exponent)
            exponent = separator = ""
    return "".join(
        part if part.startswith("/") or not at else " " + part for at, part in enumerate(parts)
    )


def same_unit(one: str, other: str) -> bool:
    """Whether two canonical units can be the same quantity's; unknown nouns never differ."""
    if one == other or one in NEUTRAL or other in NEUTRAL:
        return True
    return not (known_unit(one) and known_unit(other))
