"""The miniature's backbone M_0, schooled from nothing.

    drills (look up, add once, go on from a state, short answers at once) -> M_0

Its weights ship with the package, so nobody has to run this before the first run.
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow

from still_core.miniature.recipe import SchoolingRecipe
from still_core.store import Store
from tasks.backbone import train_backbone


@flow(name="miniature-backbone", description=__doc__)
def miniature_backbone(
    schooling: SchoolingRecipe = SchoolingRecipe(),  # noqa: B008 - frozen; the form's default
    store: str = ".still/store",
    device: str = "cpu",
) -> str:
    """School a backbone and return the folder with its weights and tokenizer.

    Args:
        schooling: shape of the model and length of its schooling.
        store: root of the object store.
        device: torch device; part of the identity, since rounding differs between devices.
    """
    model = train_backbone(
        store=store, schooling=schooling, device=device, run="miniature-backbone"
    )
    folder: Path = Store(store).fetch(model)
    return str(folder)
