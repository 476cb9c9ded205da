"""Sharded checkpoints that resume exactly, on any number of ranks, and hold no pickle.

rank: stage (copy to CPU) -> write shard.safetensors + state.json -> Store.publish (part)
driver: all parts of a step published -> index manifest, last
resume: newest index -> identity checked -> parts fetched (sha256 checked) -> pieces copied

A shard file holds this rank's piece of every parameter and of both Adam moments, with the global
shape and offset of each piece in the file's metadata; a reader copies what overlaps with its own
pieces, whatever the number of ranks was. torch.distributed.checkpoint would do the same with a
pickled `.metadata` file; safetensors and JSON have nothing in them that can run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from still_core.errors import CheckpointError, explain
from still_core.store.handle import Handle
from still_core.store.retention import checkpoints_to_keep

if TYPE_CHECKING:
    import torch

    from still_core.store import Store

FORMAT = "still-checkpoint-1"
SHARD_FILE = "shard.safetensors"
STATE_FILE = "state.json"
INDEX_FILE = "checkpoint.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Where a rank's part of a tensor lies in the whole."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    offset: tuple[int, ...]
    """Of the first element of the part."""


@dataclass(kw_only=True)
class Staged:
    """One rank's state, copied out of the way of the next optimiser step."""

    tensors: dict[str, torch.Tensor]
    pieces: dict[str, Piece]
    state: dict[str, Any]
    """JSON: step, scheduler, metrics."""

    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors.values())


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The index of a published checkpoint."""

    job_digest: str
    step: int
    parts: tuple[Handle, ...]
    """One per rank that wrote it, in rank order."""
    format: str = FORMAT

    def to_json(self) -> bytes:
        """Text of the index file."""
        record = {
            "format": self.format,
            "job_digest": self.job_digest,
            "step": self.step,
            "parts": [part.to_json() for part in self.parts],
        }
        return json.dumps(record, indent=1, sort_keys=True).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Checkpoint:
        """Parse an index file.

        Raises:
            CheckpointError: it is not an index of this format.
        """
        try:
            record = json.loads(text)
            found = cls(
                format=str(record["format"]),
                job_digest=str(record["job_digest"]),
                step=int(record["step"]),
                parts=tuple(Handle(**part) for part in record["parts"]),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise CheckpointError(
                explain("unreadable checkpoint index", got=str(error), expected=FORMAT)
            ) from error
        if found.format != FORMAT:
            raise CheckpointError(
                explain("checkpoint of another format", got=found.format, expected=FORMAT)
            )
        if not found.parts or found.step < 1:
            raise CheckpointError(explain("checkpoint without parts or steps", got=found.step))
        return found


# ---------------------------------------------------------------------------------------- stage


def stage(model: Any, optimizer: Any, *, rank: int, state: Mapping[str, Any]) -> Staged:
    """Copy this rank's weights, Adam moments and RNG to fresh CPU memory: what blocks training.

    Args:
        model: plain or FSDP2-sharded (`DTensor` parameters).
        optimizer: AdamW over the model's parameters, after at least one step.
        rank: replicated tensors are kept by rank 0 alone.
        state: JSON-able facts to keep beside the tensors.
    """
    import torch

    tensors: dict[str, torch.Tensor] = {}
    pieces: dict[str, Piece] = {}
    for name, parameter in model.named_parameters():
        found = local_piece(parameter, rank)
        if found is None:
            continue
        local, piece = found
        moments = optimizer.state.get(parameter, {})
        parts = {f"model/{name}": local}
        parts |= {f"{m}/{name}": local_piece(moments[m], rank)[0] for m in MOMENTS if m in moments}  # type: ignore[index]
        for key, tensor in parts.items():
            tensors[key] = tensor.detach().to("cpu", copy=True).contiguous()
            pieces[key] = piece
    tensors["rng/torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng/cuda"] = torch.cuda.get_rng_state()
    return Staged(tensors=tensors, pieces=pieces, state=dict(state))


def local_piece(tensor: torch.Tensor, rank: int) -> tuple[torch.Tensor, Piece] | None:
    """This rank's elements of `tensor` and their place, or None where it holds none to save."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        piece = Piece(shape=tuple(tensor.shape), offset=(0,) * tensor.dim())
        return (tensor, piece) if rank == 0 else None
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    local = tensor.to_local()
    _, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    if not local.numel():
        return None
    return local, Piece(shape=tuple(tensor.shape), offset=tuple(offset))


def write_shard(staged: Staged, directory: Path) -> None:
    """Write one rank's files; the same state gives the same bytes."""
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    index = {
        key: {"shape": list(piece.shape), "offset": list(piece.offset)}
        for key, piece in sorted(staged.pieces.items())
    }
    # One key: safetensors writes several in an order that changes from process to process.
    metadata = {"shard": json.dumps({"format": FORMAT, "pieces": index}, sort_keys=True)}
    save_file(staged.tensors, directory / SHARD_FILE, metadata=metadata)
    (directory / STATE_FILE).write_text(json.dumps(staged.state, sort_keys=True))


# ----------------------------------------------------------------------------------------- find


def checkpoint_version(step: int) -> str:
    """Version of the checkpoint after `step` steps; sorts by step."""
    return f"step-{step:08d}"


def read_checkpoint(store: Store, handle: Handle, *, job_digest: str) -> Checkpoint:
    """The index behind `handle`, if it belongs to this job.

    Raises:
        CheckpointError: it is unreadable or of another job; the reason is named.
        StoreError: an object is missing or differs from its manifest.
    """
    found = Checkpoint.from_json(store.read_bytes(handle, INDEX_FILE))
    if found.job_digest != job_digest:
        raise CheckpointError(
            explain(
                f"checkpoint {handle.name} {handle.version} belongs to another job",
                got=found.job_digest,
                expected=f"{job_digest} (model, data, prompt, recipe and seed of this job)",
                remedy="train under another name or version",
            )
        )
    return found


# --------------------------------------------------------------------------------------- forget


def forget_checkpoints(
    store: Store, name: str, *, newest: int, unused: Collection[str] = ()
) -> list[Handle]:
    """Forget all whole checkpoints under `name` but the `newest`, with the parts of the forgotten.

    Parts of the oldest checkpoint that stays, or of later steps, stay: ranks may be about to
    complete them. With `newest` 0 nothing stays. Files follow with the next `Store.gc`.

    Args:
        store: holds the checkpoints.
        name: of the job's checkpoints.
        newest: how many stay.
        unused: versions that were refused when the job resumed; they do not count as newest.
    """
    manifests = store.manifests(f"{name}/", skip_damaged=True)
    indexes = [m for m in manifests if m.name == name and m.version not in unused]
    kept = checkpoints_to_keep(indexes, best=0, newest=newest) if newest else []
    if newest and not kept:
        return []
    oldest = checkpoint_version(min(m.meta["step"] for m in kept)) if kept else ""
    doomed = [m for m in manifests if not kept or m.version < oldest]
    # Whole ones first: an index whose parts are gone would be found, and refused.
    doomed.sort(key=lambda m: m.name != name)
    return store.forget(store.handle_of(m) for m in doomed)


def checkpoints_of_published(store: Store) -> list[Handle]:
    """Checkpoints, whole or in parts, whose job has published its model: nothing resumes from them.

    A job forgets its own; these are of jobs that died between the two.
    """
    handles = store.list()
    published = {(handle.name, handle.version) for handle in handles}
    found = []
    for handle in handles:
        job, folder, rest = handle.name.partition("/checkpoints/")
        if folder and (job, rest.partition("/")[0]) in published:
            found.append(handle)
    return found


# ----------------------------------------------------------------------------------------- load


@dataclass(kw_only=True)
class Shards:
    """All pieces of a fetched checkpoint, by tensor name."""

    directories: Sequence[Path]
    """One per rank that wrote it, in rank order."""
    pieces: dict[str, list[tuple[Path, Piece]]] = field(default_factory=dict)

    @classmethod
    def open(cls, directories: Sequence[Path]) -> Shards:
        """Read the headers.

        Raises:
            CheckpointError: a file is missing, no safetensors, or of another format.
        """
        shards = cls(directories=list(directories))
        for directory in shards.directories:
            path = directory / SHARD_FILE
            for key, piece in _read_header(path):
                shards.pieces.setdefault(key, []).append((path, piece))
        return shards

    def state(self) -> dict[str, Any]:
        """The JSON facts that rank 0 kept.

        Raises:
            CheckpointError: the file is missing or not a JSON object.
        """
        path = self.directories[0] / STATE_FILE
        try:
            state = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError) as error:
            raise CheckpointError(explain("unreadable checkpoint state", got=str(error))) from error
        if not isinstance(state, dict):
            raise CheckpointError(
                explain("checkpoint state is no object", got=type(state).__name__)
            )
        return state

    def copy_into(self, key: str, tensor: torch.Tensor) -> None:
        """Fill this rank's elements of `tensor` from the pieces that overlap with them.

        Raises:
            CheckpointError: the tensor is not in the checkpoint, has another shape or type there,
                or the pieces do not cover it.
        """
        import torch

        if key not in self.pieces:
            raise CheckpointError(explain("checkpoint lacks a tensor", expected=key))
        local, target = _target(tensor)
        if not local.numel():
            return
        covered = 0
        with torch.no_grad():
            for path, piece in self.pieces[key]:
                if piece.shape != target.shape:
                    raise CheckpointError(
                        explain(
                            f"checkpoint tensor {key} has another shape",
                            got=piece.shape,
                            expected=target.shape,
                            remedy="resume with the model that the checkpoint was made from",
                        )
                    )
                covered += _copy_overlap(path, key, piece, local, target)
        if covered != local.numel():
            raise CheckpointError(
                explain(
                    f"checkpoint does not cover tensor {key}",
                    got=f"{covered} elements",
                    expected=f"{local.numel()}",
                )
            )

    def rng(self, name: str, rank: int) -> torch.Tensor | None:
        """Generator state of `rank`, or None where that rank or device did not exist then."""
        from safetensors import safe_open

        if rank >= len(self.directories):
            return None
        with safe_open(self.directories[rank] / SHARD_FILE, framework="pt") as file:
            key = f"rng/{name}"
            return file.get_tensor(key) if key in file.keys() else None  # noqa: SIM118


def restore(shards: Shards, model: Any, optimizer: Any) -> None:
    """Copy weights and Adam moments of a checkpoint into a model and its fresh optimiser.

    Raises:
        CheckpointError: the checkpoint holds other tensors than the model has.
    """
    import torch

    names = {name for name, _ in model.named_parameters()}
    saved = {key.partition("/")[2] for key in shards.pieces}
    if names != saved:
        odd = sorted(names ^ saved)
        raise CheckpointError(
            explain(
                "checkpoint of another model",
                got=f"{len(odd)} tensors that only one of them has, first {odd[0]}",
                remedy="resume with the model that the checkpoint was made from",
            )
        )
    step = float(shards.state()["step"])
    for name, parameter in model.named_parameters():
        shards.copy_into(f"model/{name}", parameter)
        if f"{MOMENTS[0]}/{name}" not in shards.pieces:
            continue
        moments = {m: torch.zeros_like(parameter) for m in MOMENTS}
        for moment, tensor in moments.items():
            shards.copy_into(f"{moment}/{name}", tensor)
        steps = shards.state()["adam_steps"].get(name, step)
        optimizer.state[parameter] = {
            "step": torch.tensor(float(steps), device=_step_device(optimizer, parameter)),
            **moments,
        }


def _step_device(optimizer: Any, parameter: torch.Tensor) -> Any:
    """Fused and capturable AdamW keep their step counter beside the parameter, others on CPU."""
    group = optimizer.param_groups[0]
    return parameter.device if group.get("fused") or group.get("capturable") else "cpu"


def _target(tensor: torch.Tensor) -> tuple[torch.Tensor, Piece]:
    from torch.distributed.tensor import DTensor

    if isinstance(tensor, DTensor):
        found = local_piece(tensor, rank=0)
        if found is None:
            return tensor.to_local(), Piece(shape=tuple(tensor.shape), offset=())
        return found
    return tensor, Piece(shape=tuple(tensor.shape), offset=(0,) * tensor.dim())


def _copy_overlap(path: Path, key: str, piece: Piece, local: Any, target: Piece) -> int:
    """Copy the overlap of a stored piece with a local part; the number of elements copied."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        stored = file.get_slice(key)
        size = tuple(stored.get_shape())
        there, here = [], []
        for dim, length in enumerate(local.shape):
            start = max(piece.offset[dim], target.offset[dim])
            stop = min(piece.offset[dim] + size[dim], target.offset[dim] + length)
            if stop <= start:
                return 0
            there.append(slice(start - piece.offset[dim], stop - piece.offset[dim]))
            here.append(slice(start - target.offset[dim], stop - target.offset[dim]))
        values = stored[tuple(there)] if there else file.get_tensor(key)
    if values.dtype != local.dtype:
        raise CheckpointError(
            explain(
                f"checkpoint tensor {key} has another type", got=values.dtype, expected=local.dtype
            )
        )
    local[tuple(here)].copy_(values)
    return int(values.numel())


def _read_header(path: Path) -> Iterator[tuple[str, Piece]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("shard", "{}"))
            if metadata.get("format") != FORMAT:
                raise CheckpointError(
                    explain(
                        f"{path.name} is no checkpoint shard",
                        got=metadata.get("format"),
                        expected=FORMAT,
                    )
                )
            index = metadata["pieces"]
            stored = {key for key in file.keys() if not key.startswith("rng/")}  # noqa: SIM118
            if stored != set(index):
                raise CheckpointError(explain(f"{path.name}: pieces and tensors differ"))
            for key, place in index.items():
                piece = Piece(shape=tuple(place["shape"]), offset=tuple(place["offset"]))
                _check_piece(key, piece, tuple(file.get_slice(key).get_shape()))
                yield key, piece
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            explain(f"unreadable checkpoint shard {path.name}", got=str(error))
        ) from error


def _check_piece(key: str, piece: Piece, size: tuple[int, ...]) -> None:
    fits = len(piece.shape) == len(piece.offset) == len(size) and all(
        offset >= 0 and offset + length <= whole
        for offset, length, whole in zip(piece.offset, size, piece.shape, strict=True)
    )
    if not fits:
        raise CheckpointError(
            explain(
                f"checkpoint piece {key} lies outside its tensor",
                got=(piece.offset, size),
                expected=f"within {piece.shape}",
            )
        )
