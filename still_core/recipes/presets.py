"""Recipes that ship with the package.

`miniature` is the newcomer's first run; `still_2_32b` is the paper's. They differ in values alone.
A value marked "ours" is one that the paper leaves open (`docs/reference/recipes.md` lists them).
"""

from __future__ import annotations

from collections.abc import Callable

from still_core.evaluate.recipe import EvaluateRecipe
from still_core.problems.pool import PoolRecipe
from still_core.problems.problem import Bucket
from still_core.problems.recipe import BenchmarkSpec, ProblemsRecipe, SourceSpec
from still_core.recipes.recipe import BackboneRecipe, Resources, Still2Recipe
from still_core.refine.recipe import CleanRecipe, DistilRecipe, MixRecipe, SelectRecipe, Teacher
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe
from still_core.rollout.recipe import Resources as RolloutResources
from still_core.rollout.rollout import Sampling
from still_core.train.recipe import SftRecipe, TrainResources


def still_2_32b() -> Still2Recipe:
    """STILL-2 on Qwen2.5-32B-Instruct: the paper's values, ours where it gives none."""
    return Still2Recipe(
        name="still-2-32b",
        rounds=3,  # ours: the paper stops when gains fade, after the first rounds
        backbone=BackboneRecipe(model="Qwen/Qwen2.5-32B-Instruct", prompt="still-2"),
        problems=ProblemsRecipe(
            sources=(
                SourceSpec(
                    name="numina-olympiads",
                    adapter="numina",
                    path="hf:AI-MO/NuminaMath-CoT?split=train",
                    subsets=("olympiads",),
                    bucket=Bucket.HARD_MATH,
                ),
                SourceSpec(
                    name="numina-math",
                    adapter="numina",
                    path="hf:AI-MO/NuminaMath-CoT?split=train",
                    subsets=("math",),
                    bucket=Bucket.NORMAL_MATH,
                ),
                SourceSpec(
                    name="aime", adapter="aime", path="hf:di-zhang-fdu/AIME_1983_2024?split=train"
                ),
                SourceSpec(
                    name="leetcode",
                    adapter="leetcode",
                    path="hf:newfacade/LeetCodeDataset?split=train",
                ),
                SourceSpec(
                    name="opencoder",
                    adapter="opencoder",
                    path="hf:OpenCoder-LLM/opc-sft-stage2?split=train&config=educational_instruct",
                ),
                *(
                    SourceSpec(
                        name=f"camel-{science}",
                        adapter="camel",
                        path=f"hf:camel-ai/{science}?split=train",
                        domain=science,
                    )
                    for science in ("physics", "chemistry", "biology")
                ),
                SourceSpec(
                    name="riddlesense",
                    adapter="riddlesense",
                    path="hf:INK-USC/riddle_sense?split=train",
                ),
            ),
            benchmarks=(
                BenchmarkSpec(
                    name="math-oai-normal",
                    level="normal",
                    source=SourceSpec(
                        name="math-oai",
                        adapter="math-oai",
                        path="hf:HuggingFaceH4/MATH-500?split=test",
                    ),
                ),
                BenchmarkSpec(
                    name="aime24-hard",
                    level="hard",
                    source=SourceSpec(
                        name="aime24", adapter="aime24", path="hf:Maxwell-Jia/AIME_2024?split=train"
                    ),
                ),
                BenchmarkSpec(
                    name="gpqa-diamond-hard",
                    level="hard",
                    source=SourceSpec(
                        name="gpqa",
                        adapter="gpqa",
                        path="hf:Idavidrein/gpqa?split=train&config=gpqa_diamond",
                    ),
                ),
            ),
        ),
        pool=PoolRecipe(buckets=(Bucket.HARD_MATH, Bucket.OTHER), problems_per_round=4000),  # ours
        distil=DistilRecipe(
            teachers=(
                Teacher(
                    name="deepseek-r1-lite-and-qwq",
                    kind="file",
                    source="hf:RUC-AIBOX/long_form_thought_data_5k?split=train",
                    style="auto",
                ),
            ),
            temperature=0.6,
            top_p=0.95,
            max_tokens=20_000,
        ),
        clean=CleanRecipe(min_thought_characters=2000),  # ours; the paper drops "relatively short"
        select=SelectRecipe(
            perplexity_share=0.7, per_problem=1
        ),  # ours; the paper keeps higher ones
        mix=MixRecipe(target_size=3900),
        sft=SftRecipe(
            learning_rate=1e-5, batch_size=96, epochs=5, max_length=20_000
        ),  # epochs: ours
        engine=EngineRecipe(kind="vllm", dtype="bfloat16", max_model_len=34_816),
        explore=ExploreRecipe(
            sampling=Sampling(temperature=0.6, top_p=0.95, max_tokens=32_768),  # T, top-p: ours
            max_attempts=20,
        ),
        evaluate=EvaluateRecipe(sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=32_768)),
    )


def resources_32b() -> Resources:
    """Four nodes of eight 80 GB GPUs: what the 32B recipe is planned for."""
    return Resources(
        rollout=RolloutResources(
            num_actors=16,
            cpus_per_actor=8,
            gpus_per_actor=2,
            tensor_parallel=2,
            max_num_seqs=256,
            enforce_eager=False,
        ),
        train=TrainResources(num_ranks=32, cpus_per_rank=8, gpus_per_rank=1, checkpoint_every=50),
        verify_workers=16,
    )


def miniature() -> Still2Recipe:
    """The newcomer's first run: the whole loop in a world small enough for two cores."""
    arithmetic = "miniature:arithmetic"
    return Still2Recipe(
        name="miniature",
        rounds=2,
        backbone=BackboneRecipe(model="miniature", prompt="bare"),
        problems=ProblemsRecipe(
            sources=(
                SourceSpec(
                    name="normal", adapter="miniature", path=f"{arithmetic}/normal?count=300&seed=1"
                ),
                SourceSpec(
                    name="hard", adapter="miniature", path=f"{arithmetic}/hard?count=30&seed=2"
                ),
                SourceSpec(
                    name="explore", adapter="miniature", path=f"{arithmetic}/hard?count=400&seed=3"
                ),
                SourceSpec(
                    name="puzzle",
                    adapter="miniature",
                    path="miniature:puzzle/normal?count=100&seed=4",
                ),
                SourceSpec(
                    name="code", adapter="miniature", path="miniature:code/normal?count=100&seed=5"
                ),
            ),
            benchmarks=tuple(
                BenchmarkSpec(
                    name=f"{domain}-{level}",
                    level=level,
                    source=SourceSpec(
                        name=f"{domain}-{level}",
                        adapter="miniature",
                        path=f"miniature:{domain}/{level}@held-out?count=250&seed=9",
                    ),
                )
                for domain in ("arithmetic", "puzzle", "code")
                for level in ("normal", "hard")
            ),
        ),
        pool=PoolRecipe(sources=("explore",), buckets=tuple(Bucket), problems_per_round=200),
        distil=DistilRecipe(
            teachers=(
                Teacher(
                    name="separate",
                    kind="scripted",
                    source="separate",
                    style="r1",
                    problems=("normal", "hard", "puzzle", "code"),
                ),
            )
        ),
        clean=CleanRecipe(min_thought_characters=1),
        select=SelectRecipe(),
        mix=MixRecipe(target_size=100_000),
        sft=SftRecipe(
            learning_rate=1e-3,
            batch_size=32,
            epochs=3,
            max_length=256,
            dtype="float32",
            gradient_checkpointing=False,
        ),
        engine=EngineRecipe(kind="vllm", dtype="float32", max_model_len=384),
        explore=ExploreRecipe(sampling=Sampling(temperature=1.0, top_p=1.0, max_tokens=160)),
        evaluate=EvaluateRecipe(sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=160)),
    )


PRESETS: dict[str, Callable[[], Still2Recipe]] = {
    "miniature": miniature,
    "still-2-32b": still_2_32b,
}
"""Recipes by name."""

PRESET_RESOURCES: dict[str, Callable[[], Resources]] = {"still-2-32b": resources_32b}
"""What a preset is planned for; the others run on one machine."""
