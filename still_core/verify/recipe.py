"""The recipe section of verification."""

from __future__ import annotations

from pydantic import Field

from still_core.recipes.section import Section
from still_core.verify.conventions import Conventions

DEADLINE_S = 2.0
"""For one answer."""
CODE_DEADLINE_S = 20.0
"""For all tests of one program."""


class VerifyRecipe(Section):
    """What decides a verdict. Workers and memory are resources and no part of it."""

    deadline_s: float = Field(
        DEADLINE_S, gt=0.0, le=600.0, description="Wall-clock limit of one answer, in seconds."
    )
    conventions: Conventions = Field(
        default_factory=Conventions, description="Settings on which graders differ."
    )
