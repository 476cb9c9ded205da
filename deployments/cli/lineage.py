"""`still lineage`: from an artefact back to its sources, and forward to all that came from it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot, open_store


def lineage(
    artefact: Annotated[
        str, Parameter(help="Its name, name@version or digest; each may be cut short.")
    ],
    /,
    *,
    store: StoreRoot = DEFAULT_STORE,
) -> None:
    """Print what an artefact was made of, what came from it, and the rollouts it drew."""
    from still_core.rollout.bank import RolloutBank
    from still_core.store.lineage import ancestors, descendants, find_artefact

    root = open_store(store)
    handle = find_artefact(root, artefact)
    print(f"{handle.name}@{handle.version}  digest {handle.digest[:16]}")
    for title, found in (
        ("made of", ancestors(root, handle)),
        ("went into", descendants(root, handle)),
    ):
        print(f"\n{title}{'' if found else ' nothing'}")
        for one in found:
            print(f"  {one.name}@{one.version}")
    for policy in RolloutBank(root).stats().policies:
        if policy.policy_digest == handle.digest:
            print(
                f"\ndrew {policy.rollouts} rollouts of {policy.problems} problems in round "
                f"{policy.policy_version}; see `still bank ls --policy {handle.digest[:16]}`"
            )
