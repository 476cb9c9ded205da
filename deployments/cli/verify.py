"""`still verify`: judge answers against gold, row by row."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def verify(
    *,
    input: Annotated[Path, Parameter(name="--input")],
    output: Annotated[Path, Parameter(name="--output")],
    workers: int = 1,
    deadline: float = 2.0,
    audit: bool = False,
) -> None:
    """Judge answers against gold.

    Parameters
    ----------
    input
        JSONL with rows `{id, gold, pred, kind?}`; `pred` is an answer or a whole response, `kind`
        math (default), choice, code or text; for code, `gold` holds the tests.
    output
        JSONL with rows `{id, verdict, extracted, rule, seconds}` in input order.
    workers
        Worker processes.
    deadline
        Wall-clock seconds for one answer.
    audit
        Ask a second, independent verifier too, and list the disagreements in
        `OUTPUT.disagreements.jsonl`.
    """
    from still_core.verify.files import verify_file

    summary = verify_file(input, output, workers=workers, deadline_s=deadline, audit=audit)
    print("\n".join(summary.lines()), file=sys.stderr)
