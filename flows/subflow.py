"""A part of a flow that the UI shows as its own run and `still plan` walks without Prefect."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import flow

from tasks.planning import current_plan

P = ParamSpec("P")
R = TypeVar("R")


def subflow(*, name: str, run_name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function a Prefect subflow named `name`; in planning mode it is called plainly."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        # Parameters are our own frozen objects, already validated by the outer flow.
        inner: Any = flow(name=name, flow_run_name=run_name, validate_parameters=False)(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            chosen = function if current_plan() is not None else inner
            result: R = chosen(*args, **kwargs)
            return result

        return call

    return wrap
