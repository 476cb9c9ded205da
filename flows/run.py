"""What a flow hands to its subflows: which run this is, where it keeps things, on what it works."""

from __future__ import annotations

from still_core.recipes.recipe import Resources
from still_core.recipes.section import Section


class Run(Section):
    """One run of a recipe. No part of any result's identity."""

    name: str
    store: str
    resources: Resources
