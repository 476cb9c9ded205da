"""`still up` and `still down`."""

from __future__ import annotations

from pathlib import Path

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot
from deployments.environment import prepare_environment
from deployments.services import start_services, stop_services

FOLDER = Path(".still/services")


def up(*, port: int = 4200, store: StoreRoot = DEFAULT_STORE) -> None:
    """Start the Prefect server with its UI and a worker, and register the deployments.

    Args:
        port: where the server listens, on this machine alone.
    """
    prepare_environment()
    root = store if "://" in store else str(Path(store).absolute())
    address = start_services(FOLDER, port=port, store=root)
    print(f"UI            {address}")
    print("start a run   prefect deployment run 'still-2/miniature'")
    print(f"              (with PREFECT_API_URL={address}/api)")
    print("stop          still down")


def down() -> None:
    """Stop what `still up` started."""
    ended = stop_services(FOLDER)
    print(f"stopped {', '.join(ended)}" if ended else "nothing was up")
