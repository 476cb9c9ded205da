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
from still_core.recipes.recipe import BackboneRecipe, Resources, SelfImproveRecipe, Still2Recipe
from still_core.refine.recipe import CleanRecipe, DistilRecipe, MixRecipe, SelectRecipe, Teacher
from still_core.rollout.recipe import EngineRecipe, ExploreRecipe, RolloutResources
from still_core.rollout.rollout import Sampling
from still_core.train.recipe import DpoRecipe, SftRecipe, TrainResources


def _paper_sources() -> tuple[SourceSpec, ...]:
    """The sources of STILL-2 section 2.2.1 in their public forms."""
    return (
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
        SourceSpec(name="aime", adapter="aime", path="hf:di-zhang-fdu/AIME_1983_2024?split=train"),
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
            name="long-thoughts",
            adapter="long-form-thought",
            path="hf:RUC-AIBOX/long_form_thought_data_5k?split=train",
        ),
        SourceSpec(
            name="riddlesense",
            adapter="riddlesense",
            path="hf:INK-USC/riddle_sense?split=train",
        ),
    )


def _paper_benchmarks() -> tuple[BenchmarkSpec, ...]:
    """The benchmarks of STILL-2 section 3.1."""
    return (
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
    )


def still_2_32b() -> Still2Recipe:
    """STILL-2 on Qwen2.5-32B-Instruct: the paper's values, ours where it gives none."""
    return Still2Recipe(
        name="still-2-32b",
        rounds=3,  # ours: the paper stops when gains fade, after the first rounds
        backbone=BackboneRecipe(model="Qwen/Qwen2.5-32B-Instruct", prompt="still-2"),
        problems=ProblemsRecipe(sources=_paper_sources(), benchmarks=_paper_benchmarks()),
        pool=PoolRecipe(buckets=(Bucket.HARD_MATH, Bucket.OTHER), problems_per_round=4000),  # ours
        distil=DistilRecipe(
            teachers=(
                Teacher(name="deepseek-r1-lite-and-qwq", kind="file", problems=("long-thoughts",)),
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
        self_improve=SelfImproveRecipe(dpo=DpoRecipe(max_length=16_384)),  # ours, by its memory
        # "32k" in the paper; the model's window of 32,768 tokens has to hold the problem too.
        engine=EngineRecipe(kind="vllm", dtype="bfloat16", max_model_len=32_768),
        explore=ExploreRecipe(
            sampling=Sampling(temperature=0.6, top_p=0.95, max_tokens=30_720),  # T, top-p: ours
            max_attempts=20,
        ),
        evaluate=EvaluateRecipe(sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=30_720)),
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


MINIATURE_D0 = {
    "arithmetic": {"normal": 240, "hard": 24},
    "puzzle": {"normal": 200, "hard": 50},
    "code": {"normal": 100, "hard": 40},
}
"""Problems that the scripted teachers answer: thin on hard ones, as a distilled set is."""

MINIATURE_BENCHMARKS = {
    "arithmetic": {"normal": 250, "hard": 500},
    "puzzle": {"normal": 250, "hard": 250},
    "code": {"normal": 250, "hard": 250},
}
"""Held-out problems by domain and level."""


MINIATURE_POOL = {"arithmetic": 300, "puzzle": 225, "code": 225}
"""Hard problems to explore, by domain."""


def _miniature_sources() -> tuple[SourceSpec, ...]:
    """A quarter of D_0's problems goes to the teacher whose thoughts need a solution."""
    sources = []
    for domain, levels in MINIATURE_D0.items():
        for level, count in levels.items():
            for teacher, share in (("separate", 0.75), ("stream", 0.25)):
                seed = 1 if teacher == "separate" else 2
                path = f"miniature:{domain}/{level}?count={round(share * count)}&seed={seed}"
                name = f"{domain}-{level}-{teacher}"
                sources.append(SourceSpec(name=name, adapter="miniature", path=path))
    for domain, count in MINIATURE_POOL.items():
        path = f"miniature:{domain}/hard?count={count}&seed=3"
        sources.append(SourceSpec(name=f"explore-{domain}", adapter="miniature", path=path))
    return tuple(sources)


def _miniature_teacher(name: str, style: str) -> Teacher:
    asked = tuple(s.name for s in _miniature_sources() if s.name.endswith(f"-{name}"))
    return Teacher(name=name, kind="scripted", source=name, style=style, problems=asked)


def miniature() -> Still2Recipe:
    """The newcomer's first run: the whole loop in a world small enough for two cores."""
    return Still2Recipe(
        name="miniature",
        rounds=2,
        backbone=BackboneRecipe(model="miniature", prompt="bare"),
        problems=ProblemsRecipe(
            sources=_miniature_sources(),
            benchmarks=tuple(
                BenchmarkSpec(
                    name=f"{domain}-{level}",
                    level=level,
                    source=SourceSpec(
                        name=f"held-out-{domain}-{level}",
                        adapter="miniature",
                        path=f"miniature:{domain}/{level}@held-out?count={count}&seed=3107",
                    ),
                )
                for domain, levels in MINIATURE_BENCHMARKS.items()
                for level, count in levels.items()
            ),
        ),
        pool=PoolRecipe(
            sources=tuple(f"explore-{domain}" for domain in MINIATURE_POOL),
            buckets=tuple(Bucket),
            problems_per_round=120,
            retry_unsolved=False,
        ),
        distil=DistilRecipe(
            teachers=(_miniature_teacher("separate", "r1"), _miniature_teacher("stream", "qwq")),
            solution_max_tokens=160,
        ),
        clean=CleanRecipe(min_thought_characters=6),
        select=SelectRecipe(),
        mix=MixRecipe(target_size=100_000),
        sft=SftRecipe(
            learning_rate=1e-3,
            batch_size=16,
            epochs=5,
            max_length=384,
            weight_decay=0.01,
            group_by_length=False,
            dtype="float32",
            gradient_checkpointing=False,
        ),
        self_improve=SelfImproveRecipe(
            dpo=DpoRecipe(
                learning_rate=1e-4,
                batch_size=16,
                epochs=3,
                max_length=384,
                dtype="float32",
                gradient_checkpointing=False,
            )
        ),
        engine=EngineRecipe(kind="vllm", dtype="float32", max_model_len=384),
        explore=ExploreRecipe(
            sampling=Sampling(temperature=0.7, top_p=1.0, max_tokens=160), max_attempts=20
        ),
        evaluate=EvaluateRecipe(sampling=Sampling(temperature=0.0, top_p=1.0, max_tokens=160)),
    )


PRESETS: dict[str, Callable[[], Still2Recipe]] = {
    "miniature": miniature,
    "still-2-32b": still_2_32b,
}
"""Recipes by name."""

PRESET_RESOURCES: dict[str, Callable[[], Resources]] = {"still-2-32b": resources_32b}
"""What a preset is planned for; the others run on one machine."""
