"""Sharded checkpoints that resume exactly, on any number of ranks, and hold no pickle.

rank: stage (copy to CPU) -> write_shard (four files) -> Store.publish (part)
driver: all parts of a step published -> index manifest, last
resume, driver: newest index -> identity and sizes of its parts checked
resume, rank: what each part holds -> the parts that overlap fetched (sha256 checked) -> copied

A shard file holds this rank's piece of every parameter and of both Adam moments. A small file
beside it says where each piece lies in the whole: a reader fetches the shards that overlap with its
own pieces, whatever the number of ranks was, and on the same number that is its own alone.
torch.distributed.checkpoint would do the same with a pickled `.metadata` file; safetensors and JSON
have nothing in them that can run.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from still_core.errors import CheckpointError, CorruptionError, MissingError, explain
from still_core.store.handle import Handle
from still_core.store.retention import checkpoints_to_keep

if TYPE_CHECKING:
    import torch

    from still_core.store import Store

FORMAT = "still-checkpoint-2"
SHARD_FILE = "shard.safetensors"
PIECES_FILE = "pieces.json"
RNG_FILE = "rng.safetensors"
STATE_FILE = "state.json"
INDEX_FILE = "checkpoint.json"
MOMENTS = ("exp_avg", "exp_avg_sq")


class DamagedCheckpoint(CheckpointError):
    """A file of a published checkpoint is lost or changed; the checkpoint before it may serve."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Where a rank's part of a tensor lies in the whole."""

    shape: tuple[int, ...]
    """Of the whole tensor."""
    offset: tuple[int, ...]
    """Of the first element of the part."""
    size: tuple[int, ...]
    """Shape of the part."""


@dataclass(kw_only=True)
class Staged:
    """One rank's state, copied out of the way of the next optimiser step."""

    tensors: dict[str, torch.Tensor]
    pieces: dict[str, Piece]
    rng: dict[str, torch.Tensor]
    """Generator states of this rank, by kind of device."""
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
    rng = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        rng["cuda"] = torch.cuda.get_rng_state()
    return Staged(tensors=tensors, pieces=pieces, rng=rng, state=dict(state))


def local_piece(tensor: torch.Tensor, rank: int) -> tuple[torch.Tensor, Piece] | None:
    """This rank's elements of `tensor` and their place, or None where it holds none to save."""
    from torch.distributed.tensor import DTensor

    if not isinstance(tensor, DTensor):
        return (tensor, _whole(tensor)) if rank == 0 else None
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    local = tensor.to_local()
    _, offset = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    if not local.numel():
        return None
    return local, Piece(shape=tuple(tensor.shape), offset=tuple(offset), size=tuple(local.shape))


def _whole(tensor: torch.Tensor) -> Piece:
    shape = tuple(tensor.shape)
    return Piece(shape=shape, offset=(0,) * len(shape), size=shape)


def write_shard(staged: Staged, directory: Path) -> None:
    """Write one rank's files; the same state gives the same bytes.

    Raises:
        ValueError: a fact of the state is NaN or infinite, which JSON has no word for.
    """
    from safetensors.torch import save_file

    directory.mkdir(parents=True, exist_ok=True)
    save_file(staged.tensors, directory / SHARD_FILE)
    save_file(staged.rng, directory / RNG_FILE)
    pieces = {key: asdict(piece) for key, piece in staged.pieces.items()}
    for name, facts in (
        (PIECES_FILE, {"format": FORMAT, "pieces": pieces}),
        (STATE_FILE, staged.state),
    ):
        (directory / name).write_text(json.dumps(facts, sort_keys=True, allow_nan=False))


# ----------------------------------------------------------------------------------------- find


def checkpoint_version(step: int) -> str:
    """Version of the checkpoint after `step` steps; sorts by step."""
    return f"step-{step:08d}"


def read_checkpoint(store: Store, handle: Handle, *, job_digest: str) -> Checkpoint:
    """The index behind `handle`, if it belongs to this job and each of its parts has all files.

    Raises:
        CheckpointError: it is unreadable or of another job, or a file of a part is lost or has
            another size; the reason is named.
        StoreError: an object is missing or differs from its manifest, or the store fails for now.
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
    for part in found.parts:
        if not store.exists(part):
            raise DamagedCheckpoint(
                explain(f"checkpoint part {part.name} {part.version} is not whole in the store")
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
    """All pieces of a published checkpoint; shards are fetched as their pieces are asked for."""

    store: Store
    parts: Sequence[Handle]
    """One per rank that wrote it, in rank order."""
    state: dict[str, Any]
    """The JSON facts that rank 0 kept."""
    pieces: dict[str, dict[int, Piece]]
    """By tensor name and number of the part."""
    _files: dict[int, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, store: Store, parts: Sequence[Handle]) -> Shards:
        """Read what the parts hold; their tensors stay in the store.

        Raises:
            DamagedCheckpoint: a file is missing or differs from its manifest.
            CheckpointError: a file is unreadable or of another format.
        """
        pieces: dict[str, dict[int, Piece]] = {}
        for number, part in enumerate(parts):
            for key, piece in _read_pieces(store, part):
                pieces.setdefault(key, {})[number] = piece
        return cls(
            store=store,
            parts=parts,
            state=_read_object(store, parts[0], STATE_FILE),
            pieces=pieces,
        )

    def close(self) -> None:
        """Let go of the shard files that were read."""
        self._files.clear()

    def copy_into(self, key: str, tensor: torch.Tensor) -> None:
        """Fill this rank's elements of `tensor` from the pieces that overlap with them.

        Raises:
            DamagedCheckpoint: a shard is missing or differs from its manifest.
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
            for number, piece in self.pieces[key].items():
                if piece.shape != target.shape:
                    raise CheckpointError(
                        explain(
                            f"checkpoint tensor {key} has another shape",
                            got=piece.shape,
                            expected=target.shape,
                            remedy="resume with the model that the checkpoint was made from",
                        )
                    )
                overlap = _overlap(piece, target)
                if overlap is not None:
                    values = self._values(number, key, overlap.stored, local.dtype)
                    local[overlap.target].copy_(values)
                    covered += values.numel()
        if covered != local.numel():
            raise CheckpointError(
                explain(
                    f"checkpoint does not cover tensor {key}",
                    got=f"{covered} elements",
                    expected=f"{local.numel()}",
                )
            )

    def rng(self, rank: int) -> dict[str, torch.Tensor]:
        """Generator states of `rank` by kind of device; none where that rank did not exist then."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        if rank >= len(self.parts):
            return {}
        with _refusals(self.parts[rank]):
            data = self.store.read_bytes(self.parts[rank], RNG_FILE)
        try:
            return load(data)
        # The parser lets several kinds of its own and of Python's errors through.
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise _unreadable(RNG_FILE, error) from error

    def _values(
        self, number: int, key: str, where: tuple[slice, ...], dtype: torch.dtype
    ) -> torch.Tensor:
        """Some elements of a stored piece."""
        file = self._shard(number)
        stored = file.get_slice(key)
        if tuple(stored.get_shape()) != self.pieces[key][number].size:
            raise CheckpointError(explain(f"{SHARD_FILE}: pieces and tensors differ", got=key))
        values: torch.Tensor = stored[where] if where else file.get_tensor(key)
        if values.dtype != dtype:
            raise CheckpointError(
                explain(
                    f"checkpoint tensor {key} has another type", got=values.dtype, expected=dtype
                )
            )
        return values

    def _shard(self, number: int) -> Any:
        """The open shard of a part, fetched and verified at its first use."""
        from safetensors import SafetensorError, safe_open

        if number not in self._files:
            part = self.parts[number]
            with _refusals(part):
                path = self.store.fetch(part) / SHARD_FILE
            try:
                file: Any = safe_open(path, framework="pt")  # untyped upstream
                stored = set(file.keys())
            except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
                raise _unreadable(SHARD_FILE, error) from error
            if stored != {key for key, found in self.pieces.items() if number in found}:
                raise CheckpointError(explain(f"{SHARD_FILE}: pieces and tensors differ"))
            self._files[number] = file
        return self._files[number]


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
    step = float(shards.state["step"])
    for name, parameter in model.named_parameters():
        shards.copy_into(f"model/{name}", parameter)
        if f"{MOMENTS[0]}/{name}" not in shards.pieces:
            continue
        moments = {m: torch.zeros_like(parameter) for m in MOMENTS}
        for moment, tensor in moments.items():
            shards.copy_into(f"{moment}/{name}", tensor)
        steps = shards.state["adam_steps"].get(name, step)
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
        return (tensor.to_local(), _whole(tensor)) if found is None else found
    return tensor, _whole(tensor)


class _Overlap(NamedTuple):
    """The same elements, within a stored piece and within the piece that is filled."""

    stored: tuple[slice, ...]
    target: tuple[slice, ...]


def _overlap(stored: Piece, target: Piece) -> _Overlap | None:
    """What two pieces of one tensor share; None for nothing."""
    there, here = [], []
    for dim in range(len(target.shape)):
        start = max(stored.offset[dim], target.offset[dim])
        stop = min(stored.offset[dim] + stored.size[dim], target.offset[dim] + target.size[dim])
        if stop <= start:
            return None
        there.append(slice(start - stored.offset[dim], stop - stored.offset[dim]))
        here.append(slice(start - target.offset[dim], stop - target.offset[dim]))
    return _Overlap(tuple(there), tuple(here))


def _read_pieces(store: Store, part: Handle) -> Iterator[tuple[str, Piece]]:
    record = _read_object(store, part, PIECES_FILE)
    if record.get("format") != FORMAT:
        raise CheckpointError(
            explain("checkpoint part of another format", got=record.get("format"), expected=FORMAT)
        )
    try:
        for key, fields in record["pieces"].items():
            piece = Piece(**{name: tuple(numbers) for name, numbers in fields.items()})
            _check_piece(key, piece)
            yield key, piece
    except (AttributeError, KeyError, TypeError) as error:
        raise _unreadable(PIECES_FILE, error) from error


def _check_piece(key: str, piece: Piece) -> None:
    numbers = (*piece.shape, *piece.offset, *piece.size)
    alike = len(piece.shape) == len(piece.offset) == len(piece.size)
    fits = alike and all(type(number) is int for number in numbers)
    fits = fits and all(
        offset >= 0 and length >= 0 and offset + length <= whole
        for offset, length, whole in zip(piece.offset, piece.size, piece.shape, strict=True)
    )
    if not fits:
        raise CheckpointError(
            explain(
                f"checkpoint piece {key} lies outside its tensor",
                got=(piece.offset, piece.size),
                expected=f"within {piece.shape}",
            )
        )


def _read_object(store: Store, part: Handle, name: str) -> dict[str, Any]:
    """A JSON object among the files of a part."""
    with _refusals(part):
        data = store.read_bytes(part, name)
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _unreadable(name, error) from error
    if not isinstance(found, dict):
        raise _unreadable(name, f"a {type(found).__name__} and no object")
    return found


@contextlib.contextmanager
def _refusals(part: Handle) -> Iterator[None]:
    """Tell a part that is lost or damaged from a store that fails for now."""
    try:
        yield
    except (MissingError, CorruptionError) as error:
        raise DamagedCheckpoint(
            explain(f"checkpoint part {part.name} {part.version}", got=str(error))
        ) from error


def _unreadable(name: str, error: object) -> CheckpointError:
    return CheckpointError(explain(f"unreadable checkpoint file {name}", got=str(error)))
