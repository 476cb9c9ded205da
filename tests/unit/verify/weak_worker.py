"""A deliberately weak verifier: no caps, SymPy's `sympify` (which runs code), containment as match.

Speaks the pool's protocol, so that the hostile tests can be shown to fail.
"""

from __future__ import annotations

import os

from still_core.verify.worker import encode_message, read_message


def main() -> None:
    """Answer requests without any care."""
    import sys

    import sympy

    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    replies.write(encode_message({"ready": True}))
    while (request := read_message(sys.stdin.buffer)) is not None:
        try:
            sympy.sympify(request["pred"])
        except Exception:
            outcome = "wrong"
        else:
            outcome = "correct" if "7919" in request["pred"] else "wrong"
        replies.write(encode_message({"outcome": outcome, "rule": "weak"}))


if __name__ == "__main__":
    main()
