"""The miniature's laboratory: the whole STILL-2 loop in one process, in minutes on two cores.

    M_0 -> SFT on D_0 -> M_1 -> explore -> SFT of M_0 on D_1 -> M_2 -> explore -> M_3

Plain torch in place of Ray, vLLM and TRL; the same problems and teachers, answers compared as
text. It searches the design on the `dev` split and shows the chosen one on the `held-out` split:

    python tests/benchmarks/miniature_lab.py --backbone DIR --seeds 1 2 3 --split held-out
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from still_core.evaluate.paired import mcnemar
from still_core.miniature.backbone import backbone_directory
from still_core.miniature.problems import generate, parse
from still_core.miniature.recipe import FaultRates
from still_core.miniature.soundness import thought_is_sound
from still_core.miniature.teachers import distil
from still_core.miniature.tokenizer import ASSISTANT, END, USER, build_tokenizer, vocabulary
from still_core.problems.problem import Problem
from still_core.responses.format import classify, render_response
from still_core.responses.response import Response
from still_core.responses.unify import unify
from still_core.verify.extraction import extract_final_answer

Example = tuple[str, str]
"""A statement and the response to learn."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """What the search turns: D_0, the pools, SFT and sampling."""

    d0: tuple[tuple[str, str, int], ...] = (
        ("arithmetic", "normal", 240),
        ("arithmetic", "hard", 24),
        ("puzzle", "normal", 120),
        ("puzzle", "hard", 30),
        ("code", "normal", 80),
        ("code", "hard", 20),
    )
    stream_share: float = 0.25
    pool: tuple[tuple[str, str, int], ...] = (("arithmetic", "hard", 150),)
    rounds: int = 2
    fresh_pool: bool = True
    """Each round explores new problems; otherwise those still unsolved of one pool."""
    attempts: int = 20
    temperature: float = 0.7
    max_tokens: int = 160
    learning_rate: float = 1e-3
    epochs: int = 5
    batch_size: int = 16
    weight_decay: float = 0.01
    warmup_ratio: float = 0.1
    evaluation: tuple[tuple[str, str, int], ...] = (
        ("arithmetic", "normal", 250),
        ("arithmetic", "hard", 500),
        ("puzzle", "normal", 250),
        ("puzzle", "hard", 250),
        ("code", "normal", 250),
        ("code", "hard", 250),
    )


class Sampler:
    """Batched decoding of a Qwen2 model with a static key/value cache, left-padded prompts."""

    def __init__(self, model: Any, device: str) -> None:
        self.model, self.device = model, device
        config = model.config
        self.heads, self.size = config.num_attention_heads, config.hidden_size
        self.width = self.size // self.heads
        theta = 10_000.0
        rope = getattr(config, "rope_parameters", None) or {}
        theta = float(rope.get("rope_theta", theta))
        frequencies = theta ** (-torch.arange(0, self.width, 2).float() / self.width)
        angles = torch.outer(torch.arange(1024).float(), frequencies)
        self.cos = torch.cat([angles.cos(), angles.cos()], -1).to(device)
        self.sin = torch.cat([angles.sin(), angles.sin()], -1).to(device)

    def _layers(
        self, hidden: Tensor, cache: Tensor, start: int, places: Tensor, mask: Tensor
    ) -> Tensor:
        """One forward of T new tokens: hidden [B, T, D], cache [L, 2, B, H, S, W]."""
        rows, new, _ = hidden.shape
        cos, sin = self.cos[places][:, None], self.sin[places][:, None]
        for index, layer in enumerate(self.model.model.layers):
            x, attention = layer.input_layernorm(hidden), layer.self_attn
            parts = [
                projection(x).view(rows, new, self.heads, self.width).transpose(1, 2)
                for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
            ]
            query, key = (p * cos + _rotate(p) * sin for p in parts[:2])
            cache[index, 0, :, :, start : start + new] = key
            cache[index, 1, :, :, start : start + new] = parts[2]
            keys, values = (cache[index, i, :, :, : start + new] for i in (0, 1))
            mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            hidden = hidden + attention.o_proj(mixed.transpose(1, 2).reshape(rows, new, self.size))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.model.model.norm(hidden)

    @torch.inference_mode()
    def draw(
        self,
        prompts: Sequence[list[int]],
        temperature: float,
        max_tokens: int,
        generator: torch.Generator,
    ) -> list[list[int]]:
        """One completion per prompt, end-of-sequence token included where it came."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        texts: list[list[int]] = [[] for _ in prompts]
        for first in range(0, len(order), 256):
            chunk = order[first : first + 256]
            for i, ids in zip(
                chunk,
                self._draw([prompts[i] for i in chunk], temperature, max_tokens, generator),
                strict=True,
            ):
                texts[i] = ids
        return texts

    def _draw(
        self,
        prompts: list[list[int]],
        temperature: float,
        max_tokens: int,
        generator: torch.Generator,
    ) -> list[list[int]]:
        ids = vocabulary()
        rows, longest = len(prompts), max(map(len, prompts))
        pads = torch.tensor([longest - len(p) for p in prompts], device=self.device)
        tokens = torch.tensor([[0] * (longest - len(p)) + p for p in prompts], device=self.device)
        span = torch.arange(longest + max_tokens, device=self.device)
        seen = span[None] >= pads[:, None]  # [B, S]
        cache = torch.zeros(
            len(self.model.model.layers),
            2,
            rows,
            self.heads,
            longest + max_tokens,
            self.width,
            device=self.device,
        )
        causal = (span[None, :longest] <= span[:longest, None])[None] & seen[:, None, :longest]
        # A pad row sees itself, so that no row of the softmax is empty.
        causal |= torch.eye(longest, dtype=torch.bool, device=self.device)[None]
        places = (span[:longest][None] - pads[:, None]).clamp(min=0)
        embed = self.model.model.embed_tokens
        hidden = self._layers(embed(tokens), cache, 0, places, causal[:, None])[:, -1]
        drawn, alive = [], torch.ones(rows, dtype=torch.bool, device=self.device)
        for step in range(max_tokens):
            logits = self.model.lm_head(hidden).float()
            if temperature == 0:
                chosen = logits.argmax(-1)
            else:
                chosen = torch.multinomial(
                    (logits / temperature).softmax(-1), 1, generator=generator
                )[:, 0]
            drawn.append(torch.where(alive, chosen, torch.full_like(chosen, -1)))
            alive = alive & (chosen != ids[END])
            if not alive.any():
                break
            at = longest + step
            mask = seen[:, None, None, : at + 1]
            here = (at - pads)[:, None]
            hidden = self._layers(embed(chosen)[:, None], cache, at, here, mask)[:, -1]
        columns = torch.stack(drawn, 1).tolist()
        return [[t for t in row if t >= 0] for row in columns]


def _rotate(x: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat([-right, left], -1)


def load(directory: Path, device: str) -> Any:
    """The model in float32."""
    from transformers import Qwen2ForCausalLM

    return Qwen2ForCausalLM.from_pretrained(directory, dtype=torch.float32).to(device).eval()


def is_correct(problem: Problem, text: str) -> bool:
    """Whether the final answer is right; a program must be the expected one, to the letter."""
    answer = extract_final_answer(text)
    question = parse(problem.statement)
    return answer == question.answer()


class Lab:
    """One seed's loop."""

    def __init__(self, backbone: Path, design: Design, seed: int, split: str, device: str) -> None:
        self.design, self.seed, self.split, self.device = design, seed, split, device
        self.backbone, self.tokenizer = backbone, build_tokenizer()
        self.generator = torch.Generator(device).manual_seed(seed)
        self.evaluation = {
            f"{domain}-{level}": generate(domain, level, count, 1000, split=split)
            for domain, level, count in design.evaluation
        }

    def first_demonstrations(self) -> list[Example]:
        """D_0: what two teachers wrote, whole, right and clean; streams are completed."""
        kept: list[Example] = []
        for number, (domain, level, count) in enumerate(self.design.d0):
            problems = generate(domain, level, count, 10 * self.seed + number)
            cut = round(count * self.design.stream_share)
            for teacher, share in (("stream", problems[:cut]), ("separate", problems[cut:])):
                for raw in distil(share, teacher, faults=FaultRates(), seed=self.seed):
                    unified = unify(raw)
                    response = unified.response
                    if unified.needs_solution:
                        answer = parse(raw.problem.statement).answer()
                        response = Response(
                            thought=unified.thought, solution=f"\\boxed{{{answer}}}"
                        )
                    if response and thought_is_sound(raw.problem, response):
                        kept.append((raw.problem.statement, render_response(response)))
        return list(dict.fromkeys(kept))

    def train(self, examples: Sequence[Example]) -> Any:
        """SFT of M_0: AdamW, warm-up and cosine, loss on the response alone."""
        design, model = self.design, load(self.backbone, self.device).train()
        rows = []
        for statement, response in examples:
            prompt = self.tokenizer(USER + statement + ASSISTANT)["input_ids"]
            rows.append((prompt, self.tokenizer(response + END)["input_ids"]))
        decay = [p for p in model.parameters() if p.ndim == 2]
        rest = [p for p in model.parameters() if p.ndim != 2]
        optimizer = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": design.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=design.learning_rate,
        )
        steps = design.epochs * math.ceil(len(rows) / design.batch_size)
        warmup, step, rng = max(1, round(steps * design.warmup_ratio)), 0, random.Random(self.seed)
        for _ in range(design.epochs):
            rng.shuffle(rows)
            for first in range(0, len(rows), design.batch_size):
                done = (step - warmup) / max(1, steps - warmup)
                scale = (
                    (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * done))
                )
                for group in optimizer.param_groups:
                    group["lr"] = design.learning_rate * scale
                chunk = rows[first : first + design.batch_size]
                width = max(len(p) + len(r) for p, r in chunk)
                inputs = torch.tensor([p + r + [0] * (width - len(p) - len(r)) for p, r in chunk])
                labels = torch.tensor(
                    [[-100] * len(p) + r + [-100] * (width - len(p) - len(r)) for p, r in chunk]
                )
                with torch.autocast(self.device, torch.bfloat16):
                    logits = model(input_ids=inputs.to(self.device), use_cache=False).logits
                loss = functional.cross_entropy(
                    logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten().to(self.device)
                )
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
                step += 1
        return model.eval()

    def sample(self, model: Any, problems: Sequence[Problem], temperature: float) -> list[str]:
        """One response per problem."""
        prompts = [self.tokenizer(USER + p.statement + ASSISTANT)["input_ids"] for p in problems]
        drawn = Sampler(model, self.device).draw(
            prompts, temperature, self.design.max_tokens, self.generator
        )
        return [self.tokenizer.decode(ids).removesuffix(END) for ids in drawn]

    def evaluate(self, model: Any) -> dict[str, dict[str, Any]]:
        """Greedy accuracy per benchmark, with the per-problem marks for paired tests."""
        scores = {}
        for name, problems in self.evaluation.items():
            texts = self.sample(model, problems, 0.0)
            right = [is_correct(p, t) for p, t in zip(problems, texts, strict=True)]
            lucky = [
                r and not thought_is_sound(p, t)
                for r, p, t in zip(right, problems, texts, strict=True)
            ]
            by_length: dict[str, list[int]] = {}
            for p, r in zip(problems, right, strict=True):
                by_length.setdefault(f"{p.level:.0f}", [0, 0])
                by_length[f"{p.level:.0f}"][0] += r
                by_length[f"{p.level:.0f}"][1] += 1
            scores[name] = {
                "accuracy": sum(right) / len(right),
                "lucky": sum(lucky) / len(right),
                "tokens": sum(len(self.tokenizer(t)["input_ids"]) for t in texts) / len(texts),
                "by_length": {
                    k: round(a / n, 2)
                    for k, (a, n) in sorted(by_length.items(), key=lambda x: int(x[0]))
                },
                "right": right,
                "example": texts[0],
            }
        return scores

    def explore(
        self, model: Any, problems: Sequence[Problem]
    ) -> tuple[list[Example], dict[str, Any]]:
        """Roll out until a correct, well-formed response, at most `attempts` per problem."""
        open_, found, attempts, lucky = list(problems), [], 0, 0
        solved: set[str] = set()
        for _ in range(self.design.attempts):
            texts = self.sample(model, open_, self.design.temperature)
            attempts += len(texts)
            for problem, text in zip(open_, texts, strict=True):
                if isinstance(classify(text), Response) and is_correct(problem, text):
                    found.append((problem.statement, text))
                    solved.add(problem.id)
                    lucky += not thought_is_sound(problem, text)
            open_ = [p for p in open_ if p.id not in solved]
            if not open_:
                break
        facts = {
            "problems": len(problems),
            "solved": len(found),
            "attempts": attempts,
            "lucky": lucky,
        }
        return found, facts

    def run(self, say: Callable[[str], None]) -> list[dict[str, Any]]:
        """All rows: M_0, M_1, ... with paired tests against the row before."""
        rows: list[dict[str, Any]] = []

        def row(name: str, model: Any, size: int, **facts: Any) -> None:
            began = time.monotonic()
            scores = self.evaluate(model)
            tests = (
                {k: mcnemar(rows[-1]["scores"][k]["right"], v["right"]) for k, v in scores.items()}
                if rows
                else {}
            )
            rows.append({"name": name, "size": size, "scores": scores, "p": tests, **facts})
            line = " ".join(
                f"{k}={v['accuracy']:.3f}" + (f"(p={tests[k]:.1g})" if tests else "")
                for k, v in scores.items()
            )
            seconds = time.monotonic() - began
            say(f"seed {self.seed} {name} n={size} {line} | eval {seconds:.0f}s {facts}")

        row("M_0", load(self.backbone, self.device), 0)
        data = self.first_demonstrations()
        pool: list[Problem] = []
        for number in range(self.design.rounds + 1):
            began = time.monotonic()
            model = self.train(data)
            seconds = time.monotonic() - began
            if number == self.design.rounds:
                row(f"M_{number + 1}", model, len(data), sft_s=round(seconds))
                break
            if self.design.fresh_pool or not pool:
                pool = [
                    p
                    for i, (domain, level, count) in enumerate(self.design.pool)
                    for p in generate(
                        domain, level, count, 100_000 + 100 * self.seed + 10 * number + i
                    )
                ]
            began = time.monotonic()
            found, facts = self.explore(model, pool)
            solved = {statement for statement, _ in found}
            pool = [p for p in pool if p.statement not in solved]
            row(
                f"M_{number + 1}",
                model,
                len(data),
                sft_s=round(seconds),
                explore_s=round(time.monotonic() - began),
                **facts,
            )
            data = data + found
        return rows


def main() -> None:
    """Run the loop for the seeds asked for and write one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", type=Path, default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--split", default="dev")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--set", default="{}", help="JSON of fields of Design to replace")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    changes = {k: _tuples(v) for k, v in json.loads(options.set).items()}
    design = replace(Design(), **changes)
    for seed in options.seeds:
        torch.manual_seed(seed)
        lab = Lab(
            options.backbone or backbone_directory(), design, seed, options.split, options.device
        )
        rows = lab.run(lambda line: print(line, flush=True))
        if options.out:
            with options.out.open("a") as file:
                file.write(
                    json.dumps({"seed": seed, "design": asdict(design), "rows": rows}) + "\n"
                )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
