"""`still up` and `still down`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE
from deployments.environment import prepare_environment
from deployments.s3_server import DEVELOPMENT, PORT
from deployments.services import start_services, stop_services
from still_core.errors import ConfigError, explain

FOLDER = Path(".still/services")
S3_DATA = Path(".still/s3")
S3_STORE = f"s3://{DEVELOPMENT.bucket}/store"


def up(
    *,
    port: int = 4200,
    store: Annotated[str | None, Parameter(env_var="STILL_STORE")] = None,
    s3: Annotated[bool, Parameter(negative="")] = False,
    s3_port: int = PORT,
) -> None:
    """Start the Prefect server with its UI and a worker, and register the deployments.

    Args:
        port: where the server listens, on this machine alone.
        store: of the deployments: a folder (.still/store by default) or s3://bucket/prefix.
        s3: start an S3 server (SeaweedFS) too, keep its data in .still/s3, and let the deployments
            store there.
        s3_port: where it listens, on this machine alone.
    """
    root = _root(store, s3=s3)
    prepare_environment()
    started = start_services(
        FOLDER,
        port=port,
        store=root,
        s3_data=S3_DATA.absolute() if s3 else None,
        s3_port=s3_port,
    )
    print(f"UI            {started.address}")
    print(f"store         {root}")
    print("start a run   prefect deployment run 'still-2/miniature'")
    print(f"              (with PREFECT_API_URL={started.address}/api)")
    print("stop          still down")
    if started.client:
        print("in a shell that is to use this store")
        for name, value in {**started.client, "STILL_STORE": root}.items():
            print(f"export {name}={value}")


def down() -> None:
    """Stop what `still up` started."""
    ended = stop_services(FOLDER)
    print(f"stopped {', '.join(ended)}" if ended else "nothing was up")


def _root(store: str | None, *, s3: bool) -> str:
    """Root of the deployments' store; with a server of our own, one in its bucket.

    Raises:
        ConfigError: the store asked for is not on that server.
    """
    if s3:
        if store is not None and not store.startswith(f"s3://{DEVELOPMENT.bucket}/"):
            raise ConfigError(
                explain(
                    "--s3 brings a store of its own",
                    got=store,
                    expected=S3_STORE,
                    remedy="leave out --s3, or --store and STILL_STORE",
                )
            )
        return store or S3_STORE
    store = store or DEFAULT_STORE
    return store if "://" in store else str(Path(store).absolute())
