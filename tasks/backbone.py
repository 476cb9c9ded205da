"""The backbone M_0 as an artefact of the store."""

from __future__ import annotations

from still_core.store import Handle, Store
from tasks.stage import stage


@stage(version="2026.11.21")
def publish_backbone(store: Store, version: str, *, model: str, files: dict[str, str]) -> Handle:
    """Bring M_0 into the store: safetensors, config, tokenizer with its chat template."""
    from still_core.train.model_folder import model_folder

    return store.publish_dir(
        "publish-backbone", version, model_folder(model), meta={"model": model}
    )
