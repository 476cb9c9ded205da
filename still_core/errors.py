"""Every error that a user can meet.

    StillError
      x ConfigError (ValueError)          a recipe, option or path that can not be used
      x DataError (ValueError)            problems, responses or tables that can not be read
        - ResponseFormatError             a response that breaks the thought/solution format
      x StoreError (RuntimeError)         the object store refused or failed
        - MissingError                    a manifest or object that should be there is not
        - ConflictError                   another writer got there first with other content
        - CorruptionError                 size or sha256 differs from the manifest
        - LeaseError                      work in progress belongs to somebody else
      x VerifierError (RuntimeError)      the verifier itself failed (never a verdict on an answer)
      x SandboxError (RuntimeError)       isolation is not available or broke
      x RolloutError (RuntimeError)       the rollout engines can not go on
      x TrainingError (RuntimeError)      a training job can not go on
        - CheckpointError                 a checkpoint is refused
      x StalledError (RuntimeError)       a stage stood still for its limit and was ended

Errors cross process boundaries (Ray, multiprocessing), so none has a custom ``__init__``: build
the text with :func:`explain`.
"""

from __future__ import annotations


class StillError(Exception):
    """Base of all errors raised on purpose; its text is one line fit for a user."""


class ConfigError(StillError, ValueError):
    """A recipe, option or path that can not be used."""


class DataError(StillError, ValueError):
    """Problems, responses or tables that can not be read."""


class ResponseFormatError(DataError):
    """A response that breaks the thought/solution format."""


class StoreError(StillError, RuntimeError):
    """The object store refused or failed."""


class MissingError(StoreError):
    """A manifest or object that should be there is not."""


class ConflictError(StoreError):
    """Another writer published other content under the same name first."""


class CorruptionError(StoreError):
    """Bytes in the store differ from what the manifest promises."""


class LeaseError(StoreError):
    """Work in progress belongs to somebody else, or was taken over."""


class VerifierError(StillError, RuntimeError):
    """The verifier itself failed; never a verdict on an answer."""


class SandboxError(StillError, RuntimeError):
    """Isolation for model-written code is not available or broke."""


class RolloutError(StillError, RuntimeError):
    """The rollout engines can not go on."""


class TrainingError(StillError, RuntimeError):
    """A training job can not go on."""


class CheckpointError(TrainingError):
    """A checkpoint is refused."""


class StalledError(StillError, RuntimeError):
    """A stage stood still for its limit and was ended."""


def explain(what: str, *, got: object = None, expected: object = None, remedy: str = "") -> str:
    """One line for a user: what is wrong, what was found, what was expected, what to do.

    >>> explain("unknown recipe", got="mini", expected="miniature", remedy="fix --recipe")
    "unknown recipe: got 'mini', expected miniature; fix --recipe"
    """
    facts = []
    if got is not None:
        facts.append(f"got {_short(got)}")
    if expected is not None:
        facts.append(f"expected {expected}")
    line = what + (": " + ", ".join(facts) if facts else "")
    return " ".join((line + (f"; {remedy}" if remedy else "")).split())


def _short(value: object, limit: int = 200) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
