"""`still bank`: look into the rollout bank of a store."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from deployments.cli.parameters import DEFAULT_STORE, StoreRoot, open_store
from still_core.errors import ConfigError, explain

if TYPE_CHECKING:
    from still_core.rollout.bank import Filter, RolloutBank

Problem = Annotated[str | None, Parameter(help="Problem id or digest.")]
Policy = Annotated[str | None, Parameter(help="Policy digest, or its first digits.")]
Verdict = Annotated[
    str | None,
    Parameter(help="correct, wrong, no_answer, unparsable, timeout or error."),
]
Round = Annotated[int | None, Parameter(help="t of the M_t that drew it; 0: backbone, -1: no M_t.")]


def ls(
    *,
    store: StoreRoot = DEFAULT_STORE,
    problem: Problem = None,
    policy: Policy = None,
    verdict: Verdict = None,
    round: Round = None,
    limit: Annotated[int, Parameter(help="Most rows printed; 0 prints all.")] = 50,
) -> None:
    """List rollouts, one line each: id, problem, round, policy, sample, tokens, finish, verdict."""
    if limit < 0:
        raise ConfigError(explain("--limit", got=limit, expected="0 or more"))
    rows = _open(store).rows(_filter(problem, policy, verdict, round))
    print("id               round policy           sample tokens finish verdict    problem")
    for row in rows[: limit or None]:
        print(
            f"{row['id']:16} {row['policy_version']:>5} {row['policy_digest'][:16]:16} "
            f"{row['sample_index']:>6} {row['num_tokens']:>6} {row['finish_reason']:6} "
            f"{row['outcome'] or 'unjudged':10} {_one_line(row['problem_id'])}"
        )
    if limit and len(rows) > limit:
        print(f"... {len(rows) - limit} more; --limit 0 lists all", file=sys.stderr)


def show(rollout_id: str, /, *, store: StoreRoot = DEFAULT_STORE) -> None:
    """Print one rollout: its text, where it comes from, and what was made from it."""
    bank = _open(store)
    facts = bank.provenance(rollout_id)
    print(json.dumps(facts, indent=2, ensure_ascii=False))
    print("\n" + bank.get([rollout_id])[rollout_id].text)


def stats(
    *, store: StoreRoot = DEFAULT_STORE, json_output: Annotated[bool, Parameter("--json")] = False
) -> None:
    """Print counts, sizes, and for each policy its verdicts and pass rate."""
    from dataclasses import asdict

    found = _open(store).stats()
    if json_output:
        print(json.dumps(asdict(found), indent=2))
        return
    print(
        f"{found.rollouts} rollouts of {found.problems} problems, {found.tokens} tokens, "
        f"{found.num_bytes / 2**20:.1f} MiB in {found.shards} shards"
    )
    for policy in found.policies:
        verdicts = ", ".join(f"{name} {count}" for name, count in policy.outcomes.items())
        print(
            f"round {policy.policy_version:>2}  {policy.policy_digest[:16]}  "
            f"{policy.rollouts} rollouts, pass rate {policy.pass_rate:.3f}, "
            f"solved {policy.problems_solved} of {policy.problems} problems  ({verdicts})"
        )
    for name in found.damaged:
        print(f"damaged: {name}; `still bank gc --yes` sets it aside", file=sys.stderr)


def export(
    output: Path,
    /,
    *,
    store: StoreRoot = DEFAULT_STORE,
    problem: Problem = None,
    policy: Policy = None,
    verdict: Verdict = None,
    round: Round = None,
) -> None:
    """Write rollouts to OUTPUT, a .jsonl or .parquet file that pandas reads."""
    count = _open(store).export(output, _filter(problem, policy, verdict, round))
    print(f"{count} rollouts in {output}")


def gc(
    *,
    store: StoreRoot = DEFAULT_STORE,
    yes: Annotated[bool, Parameter(help="Do it; without it, only name it.")] = False,
) -> None:
    """Merge small shards, drop duplicate rows and set damaged shards aside.

    Without `--yes` it names them and changes nothing.
    """
    report = _open(store).gc(dry_run=not yes)
    print("\n".join(report.lines()))
    if not yes:
        print("nothing was changed; add --yes", file=sys.stderr)


def regrade(
    *,
    store: StoreRoot = DEFAULT_STORE,
    problem: Problem = None,
    policy: Policy = None,
    verdict: Verdict = None,
    round: Round = None,
    workers: Annotated[int, Parameter(help="Verifier processes.")] = 1,
    recipe: Annotated[
        str | None,
        Parameter(help="Preset name or file whose conventions and time limit judge."),
    ] = None,
    deadline: Annotated[
        float | None, Parameter(help="Wall-clock seconds for one answer, in place of the recipe's.")
    ] = None,
) -> None:
    """Judge stored rollouts by the present verifier; gold answers come from published problems."""
    from still_core.recipes.loading import load_recipe
    from still_core.verify import VerifierPool
    from still_core.verify.recipe import VerifyRecipe

    verify = VerifyRecipe() if recipe is None else load_recipe(recipe).verify
    with VerifierPool(
        workers=workers,
        deadline_s=verify.deadline_s if deadline is None else deadline,
        conventions=verify.conventions,
    ) as verifier:
        report = _open(store).regrade(verifier, asked=_filter(problem, policy, verdict, round))
    print(
        f"verifier {verifier.version}: {report.num_in} rollouts = {report.unchanged} unchanged "
        f"+ {sum(report.changed.values())} changed + {report.unknown_problem} of unknown problems"
        f" + {report.lost} lost"
    )
    for change, count in report.changed.items():
        print(f"{count:>8}  {change}")


def _one_line(text: str) -> str:
    """Control characters and line ends as escapes: an id comes from whoever wrote the data."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _open(root: str) -> RolloutBank:
    from still_core.rollout.bank import RolloutBank

    return RolloutBank(open_store(root))


def _filter(
    problem: str | None, policy: str | None, verdict: str | None, round: int | None
) -> Filter:
    from still_core.rollout.bank import Filter
    from still_core.verify.verdict import Outcome

    known = [str(outcome) for outcome in Outcome]
    if verdict is not None and verdict not in known:
        raise ConfigError(explain("unknown verdict", got=verdict, expected=", ".join(known)))
    return Filter(problem=problem, policy=policy, outcome=verdict, round=round)
