"""The backbone M_0 as an artefact of the store."""

from __future__ import annotations

from pathlib import Path

from still_core.miniature.recipe import SchoolingRecipe
from still_core.store import Handle, Store
from tasks.listening import listener
from tasks.stage import stage


@stage(version="2026.11.21")
def publish_backbone(store: Store, version: str, *, model: str, files: dict[str, str]) -> Handle:
    """Bring M_0 into the store: safetensors, config, tokenizer with its chat template."""
    from still_core.train.model_folder import model_files, model_folder

    found = model_files(model_folder(model))
    return store.publish("publish-backbone", version, found, meta={"model": model})


@stage(version="2026.11.21")
def train_backbone(
    store: Store, version: str, *, schooling: SchoolingRecipe, device: str, run: str
) -> Handle:
    """School the miniature's backbone from nothing: drills, no thoughts."""
    from tempfile import TemporaryDirectory

    from still_core.miniature import train_backbone as train

    with TemporaryDirectory() as folder:
        train(schooling, Path(folder), device=device, progress=listener(store, run))
        return store.publish_dir("train-backbone", version, Path(folder))
