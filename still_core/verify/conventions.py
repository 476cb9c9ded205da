"""The conventions on which graders differ, as named settings with documented defaults.

Light on purpose (no pydantic): worker processes import it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, kw_only=True, slots=True)
class Conventions:
    """How answers are read and compared where graders disagree. Every field is identity."""

    percent: Literal["unit", "value", "either"] = "unit"
    """`unit`: 50% is 50 with a unit (it equals 50, not 0.5). `value`: 50% is 0.5. `either`:
    both."""
    order: Literal["free", "fixed"] = "free"
    """Whether the order of a bare list (`1, 2, 3` without brackets) matters. Tuples are ordered."""
    rounding_digits: int = 4
    """A decimal stands for the exact value that rounds or truncates to it if it shows at least this
    many significant digits (0.3333 is 1/3, 0.33 is not); 0 demands exact equality. In [0, 50]."""
    reduced: Literal["any", "lowest"] = "any"
    """`lowest`: an unreduced fraction (2/4) is wrong where gold is in lowest terms."""
    units: Literal["optional", "required", "ignored"] = "optional"
    """`optional`: a unit may be missing on one side, two different units are wrong.
    `required`: both sides name the same unit. `ignored`: units are dropped."""
    left_side: Literal["optional", "required"] = "optional"
    """Whether `x = 5` equals `5` (and `f(x) = 2x` equals `2x`)."""
    boxes: Literal["joined", "last"] = "joined"
    """`joined`: boxes tied by a comma, "and" or "or" are one answer. `last`: only the last
    counts."""
    unboxed: Literal["bare", "never"] = "bare"
    """`bare`: a text without box and without thought markers is read as a bare answer.
    `never`: an answer counts inside a box alone (STILL-3's reward; what a reward of reinforcement
    learning should use). Programs stand in code fences either way."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {
        "extra": "forbid",
        "use_attribute_docstrings": True,
    }

    def __post_init__(self) -> None:
        if not 0 <= self.rounding_digits <= 50:
            from still_core.errors import ConfigError, explain

            raise ConfigError(
                explain("rounding_digits", got=self.rounding_digits, expected="0 to 50")
            )

    def to_row(self) -> dict[str, Any]:
        """Plain values for the worker's protocol."""
        return asdict(self)
