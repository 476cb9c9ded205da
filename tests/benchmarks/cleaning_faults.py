"""Recall of planted faults and false drops on real clean thoughts, a table per rule.

python tests/benchmarks/cleaning_faults.py [--per-fault 200] [--seed 1]

Clean rows are the complete responses of the real traces beside the project (../shared/data). Each
fault is planted in a copy of one of them; recall counts the copies that the named rule drops.
"""

from __future__ import annotations

import argparse
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from still_core.refine.clean import clean
from still_core.refine.kernels import jaccard, shingle_set
from still_core.refine.recipe import CleanRecipe
from still_core.refine.rules import ROW_RULES
from still_core.responses.response import Demonstration, Origin
from still_core.responses.unify import Style, unify_all

SHARED_DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
FILES = (
    "traces_r1distill32b_general",
    "traces_r1distill_llama8b_general",
    "model_outputs_thinking_gsm8k",
    "model_outputs_thinking_math500",
    "model_outputs_mcq_gpqa_mmlu",
    "huatuo_o1_demo",
)
RECIPE = CleanRecipe()


@dataclass(frozen=True)
class RealRaw:
    """One row of a real file in the shape that `unify` reads."""

    text: str
    reasoning: str


def real_rows(folder: Path, name: str) -> list[dict[str, object]]:
    """The rows of one file."""
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def clean_thoughts(folder: Path) -> list[Demonstration]:
    """Every complete response of the real traces, as a demonstration with a passing verdict."""
    rows = []
    for name in FILES:
        read = real_rows(folder, name)
        raws = [
            RealRaw(str(r.get("response", r.get("Response"))), str(r.get("Complex_CoT", "")))
            for r in read
        ]
        for number, (row, one) in enumerate(zip(read, unify_all(raws, Style.AUTO), strict=True)):
            if one.response is None:
                continue
            asked = row.get("question") or row.get("prompt_preview") or row.get("Question")
            rows.append(
                Demonstration(
                    id=f"{name}/{number:04d}",
                    problem_id=f"{name}/{number:04d}",
                    problem_digest=f"{name}/{number:04d}",
                    statement=str(asked or f"Question {number} of {name}"),
                    gold=str(number),
                    kind="math",
                    domain="math",
                    bucket="other",
                    level=None,
                    thought=one.response.thought,
                    solution=one.response.solution,
                    origin=Origin.DISTILLED,
                    author=name,
                    round=0,
                    source_row=f"{name}.jsonl:{number}",
                    verdict="correct",
                    verifier_version="given",
                )
            )
    return rows


def at_break(text: str, rng: random.Random, inner: str) -> str:
    """The text with `inner` at a random space outside the first and last tenth."""
    spaces = [i for i, c in enumerate(text) if c == " "]
    at = spaces[rng.randrange(len(spaces) // 10, max(len(spaces) // 10 + 1, 9 * len(spaces) // 10))]
    return f"{text[:at]} {inner}{text[at:]}"


def sentence_of(text: str, rng: random.Random) -> str:
    """One sentence of 6 to 40 words from the text."""
    found = [s.strip() for s in text.replace("\n", " ").split(". ")]
    good = [s for s in found if 6 <= len(s.split()) <= 40]
    return rng.choice(good or found) + "."


def loop_sentence(text: str, rng: random.Random) -> str:
    """A sentence that the writer can not leave: 5 to 30 turns, at least 60 words, to the end."""
    one = sentence_of(text, rng)
    turns = max(rng.randint(5, 30), 60 // max(1, len(one.split())) + 1)
    return text + " " + " ".join([one] * turns)


def loop_paragraph(text: str, rng: random.Random) -> str:
    """Steps of the thought that come round 3 to 8 times in its middle."""
    steps = text.split("\n\n")
    size = min(len(steps), rng.randint(3, 6))
    at = rng.randrange(len(steps) - size + 1)
    block = steps[at : at + size]
    return "\n\n".join(steps[: at + size] + block * rng.randint(2, 7) + steps[at + size :])


def loop_word(text: str, rng: random.Random) -> str:
    """One to three words over and over, 60 to 400 words in all."""
    unit = " ".join(rng.choice(text.split()) for _ in range(rng.randint(1, 3)))
    return at_break(text, rng, " ".join([unit] * (rng.randint(60, 400) // len(unit.split()))))


def loop_phrase(text: str, rng: random.Random) -> str:
    """Three to eight words in a row, 50 to 120 words in all."""
    words = text.split()
    size = rng.randint(3, 8)
    at = rng.randrange(max(1, len(words) - size))
    phrase = " ".join(words[at : at + size])
    return at_break(text, rng, " ".join([phrase] * (rng.randint(50, 120) // size)))


def loop_counted(text: str, rng: random.Random) -> str:
    """A sentence repeated 12 to 30 times whose number alone grows."""
    one = sentence_of(text, rng)
    return text + "\n\n" + "\n\n".join(f"Attempt {k}: {one}" for k in range(1, rng.randint(13, 31)))


def restart(text: str, rng: random.Random) -> str:
    """The whole thought twice."""
    return text + "\n\nWait, let me start over.\n\n" + text


def letters(text: str, rng: random.Random) -> str:
    """15 to 40 words of random letters."""
    words = (
        "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 9)))
        for _ in range(rng.randint(15, 40))
    )
    return at_break(text, rng, " ".join(words))


def capitals(text: str, rng: random.Random) -> str:
    """15 to 40 words of random capitals."""
    words = (
        "".join(rng.choice(string.ascii_uppercase) for _ in range(rng.randint(4, 9)))
        for _ in range(rng.randint(15, 40))
    )
    return at_break(text, rng, " ".join(words))


def alphanumeric(text: str, rng: random.Random) -> str:
    """20 to 40 words of random letters and digits."""
    keys = string.ascii_lowercase + string.digits
    words = (
        "".join(rng.choice(keys) for _ in range(rng.randint(5, 10)))
        for _ in range(rng.randint(20, 40))
    )
    return at_break(text, rng, " ".join(words))


def pictures(text: str, rng: random.Random) -> str:
    """40 to 80 random pictures and signs of Unicode."""
    pick = [*range(0x2190, 0x2BFF), *range(0x1F300, 0x1F6FF)]
    return at_break(text, rng, "".join(chr(rng.choice(pick)) for _ in range(rng.randint(40, 80))))


def printable(text: str, rng: random.Random) -> str:
    """120 to 400 random printable ASCII characters."""
    symbols = string.ascii_letters + string.digits + string.punctuation
    return at_break(text, rng, "".join(rng.choice(symbols) for _ in range(rng.randint(120, 400))))


def symbols(text: str, rng: random.Random) -> str:
    """100 to 300 random punctuation marks."""
    return at_break(
        text, rng, "".join(rng.choice(string.punctuation) for _ in range(rng.randint(100, 300)))
    )


def mash(text: str, rng: random.Random) -> str:
    """Keys hit at random on the middle row, 80 to 200 characters."""
    keys = "asdfghjkl;"
    return at_break(text, rng, "".join(rng.choice(keys) for _ in range(rng.randint(80, 200))))


def base64(text: str, rng: random.Random) -> str:
    """A blob of 120 to 400 base64 characters."""
    keys = string.ascii_letters + string.digits + "+/"
    return at_break(text, rng, "".join(rng.choice(keys) for _ in range(rng.randint(120, 400))))


def mojibake(text: str, rng: random.Random) -> str:
    """Chinese text read in the wrong encoding, 20 to 60 characters of it."""
    chinese = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(rng.randint(20, 60)))
    return at_break(text, rng, chinese.encode().decode("latin-1"))


def broken(text: str, rng: random.Random) -> str:
    """Replacement or control characters."""
    return at_break(text, rng, rng.choice(["\ufffd\ufffd", "\x00", "\x1b[0m", "\ue123"]))


def scattered(text: str, rng: random.Random) -> str:
    """Random characters of all the scripts of Unicode, 40 to 100 of them."""
    return at_break(
        text, rng, "".join(chr(rng.randrange(0x0250, 0x2000)) for _ in range(rng.randint(40, 100)))
    )


PHRASES = {
    "han": (
        "\u56e0\u6b64",
        "\u6211\u4eec\u53ef\u4ee5",
        "\u6240\u4ee5\u7b54\u6848\u662f",
        "\u9996\u5148\uff0c\u6839\u636e\u9898\u610f",
    ),
    "cyrillic": (
        "\u043f\u043e\u044d\u0442\u043e\u043c\u0443",
        "\u043e\u0434\u043d\u0430\u043a\u043e \u043c\u043e\u0436\u043d\u043e",
    ),
    "kana": ("\u3057\u305f\u304c\u3063\u3066", "\u307e\u305f\u306f"),
    "hangul": ("\uadf8\ub7ec\ubbc0\ub85c", "\ub530\ub77c\uc11c"),
    "arabic": ("\u0644\u0630\u0644\u0643", "\u0648\u0628\u0627\u0644\u062a\u0627\u0644\u064a"),
    "devanagari": ("\u0907\u0938\u0932\u093f\u090f",),
    "thai": ("\u0e14\u0e31\u0e07\u0e19\u0e31\u0e49\u0e19",),
    "hebrew": ("\u05dc\u05db\u05df",),
    "greek": ("\u03b5\u03c0\u03bf\u03bc\u03ad\u03bd\u03c9\u03c2",),
}


def mixed(script: str) -> Callable[[str, random.Random], str]:
    """Plant one short phrase of a script."""
    return lambda text, rng: at_break(text, rng, rng.choice(PHRASES[script]))


def cut(text: str, rng: random.Random) -> str:
    """The solution cut inside a word at a random place of its second half."""
    inside = [
        i
        for i in range(len(text) // 2, len(text) - 2)
        if text[i - 1].isalpha() and text[i].isalpha() and "\\boxed" not in text[:i]
    ]
    return text[: rng.choice(inside)] if inside else text[: max(1, len(text) // 3)].rstrip(".!? ")


Plant = Callable[[str, random.Random], str]
FAULTS: dict[str, tuple[str, str, Plant]] = {
    "loop: a sentence": ("repetition", "thought", loop_sentence),
    "loop: several steps": ("repetition", "thought", loop_paragraph),
    "loop: one to three words": ("repetition", "thought", loop_word),
    "loop: a phrase": ("repetition", "thought", loop_phrase),
    "loop: a numbered sentence": ("repetition", "thought", loop_counted),
    "loop: the thought twice": ("repetition", "thought", restart),
    "gibberish: random letters": ("gibberish", "thought", letters),
    "gibberish: random capitals": ("gibberish", "thought", capitals),
    "gibberish: letters and digits": ("gibberish", "thought", alphanumeric),
    "gibberish: pictures and signs": ("gibberish", "thought", pictures),
    "gibberish: random characters": ("gibberish", "thought", printable),
    "gibberish: random symbols": ("gibberish", "thought", symbols),
    "gibberish: keyboard row": ("gibberish", "thought", mash),
    "gibberish: base64": ("gibberish", "thought", base64),
    "gibberish: wrong encoding": ("gibberish", "thought", mojibake),
    "gibberish: broken characters": ("gibberish", "thought", broken),
    "mixed scripts: characters of all": ("scripts", "thought", scattered),
    **{f"mixed scripts: {s}": ("scripts", "thought", mixed(s)) for s in PHRASES},
    "truncated: solution cut in a word": ("truncated", "solution", cut),
    "tokens: a stray end of thought": (
        "markup",
        "thought",
        lambda text, rng: at_break(text, rng, "<|end_of_thought|>"),
    ),
    "tokens: a stray </think>": (
        "markup",
        "solution",
        lambda text, rng: text + "\n</think>",
    ),
}


def plant(row: Demonstration, fault: str, rng: random.Random) -> Demonstration:
    """A copy of the row with one fault."""
    _, part, change = FAULTS[fault]
    return replace(row, id=f"{row.id}/{fault}", **{part: change(getattr(row, part), rng)})


def near_copy(text: str, rng: random.Random, target: float) -> tuple[str, float]:
    """A copy whose words are changed one by one until its similarity falls to about `target`."""
    words = text.split(" ")
    own = shingle_set(text, RECIPE.shingle_tokens)
    vocabulary = sorted({w for w in words if w.isalpha()}) or ["so"]
    value, best = 1.0, text
    while value > target + 0.01:
        for _ in range(max(1, int(len(words) * (value - target) / 16))):
            words[rng.randrange(len(words))] = rng.choice(vocabulary)
        best = " ".join(words)
        value = jaccard(own, shingle_set(best, RECIPE.shingle_tokens))
    return best, value


def measure_row_rules(
    rows: list[Demonstration], per_fault: int, seed: int
) -> tuple[dict[str, tuple[str, int, int]], dict[str, list[str]]]:
    """((rule, planted, found) by fault, falsely dropped ids by rule)."""
    false = {
        rule: [row.id for row in rows if check(row, RECIPE) is not None]
        for rule, check in ROW_RULES.items()
    }
    dropped = {name for names in false.values() for name in names}
    sound = [row for row in rows if row.id not in dropped]
    found: dict[str, tuple[str, int, int]] = {}
    for fault, (rule, _, _) in FAULTS.items():
        rng = random.Random(f"{seed} {fault}")
        planted = [plant(rng.choice(sound), fault, rng) for _ in range(per_fault)]
        hits = sum(ROW_RULES[rule](row, RECIPE) is not None for row in planted)
        found[fault] = (rule, len(planted), hits)
    return found, false


def measure_duplicates(rows: list[Demonstration], per_fault: int, seed: int) -> dict[str, str]:
    """Recall of near copies by similarity, found among all rows, and false duplicates."""
    rng = random.Random(seed)
    chosen = rng.sample(rows, min(per_fault, len(rows)))
    copies, similarity = [], {}
    for number, row in enumerate(chosen):
        thought, _ = near_copy(row.thought, rng, 0.80 + 0.15 * (number + 1) / (len(chosen) + 1))
        copy = replace(
            row, id=f"zz/{row.id}", problem_id=f"zz{number}", thought=thought, gold=f"zz{number}"
        )
        whole = [
            shingle_set(f"{r.thought}\n\n{r.solution}", RECIPE.shingle_tokens) for r in (row, copy)
        ]
        similarity[copy.id] = jaccard(*whole)
        copies.append(copy)
    recipe = CleanRecipe(rules=("duplicate_response",))
    false = len(clean(rows, recipe).dropped)
    lost = {one.row.id for one in clean(rows + copies, recipe).dropped}
    inside = [name for name, value in similarity.items() if 0.8 <= value <= 0.95]
    hits = sum(name in lost for name in inside)
    return {
        "planted": str(len(inside)),
        "found": str(hits),
        "false": f"{false} of {len(rows)}",
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--per-fault", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rows = clean_thoughts(SHARED_DATA)
    found, false = measure_row_rules(rows, options.per_fault, options.seed)
    print(f"{len(rows)} real clean responses, {options.per_fault} planted per fault\n")
    print("| rule | planted fault | planted | found | recall |\n|---|---|---:|---:|---:|")
    for fault, (rule, planted, hits) in found.items():
        print(f"| {rule} | {fault} | {planted} | {hits} | {100 * hits / planted:.1f} % |")
    near = measure_duplicates(rows, options.per_fault, options.seed)
    recall = 100 * int(near["found"]) / int(near["planted"])
    print(
        f"| duplicate_response | near copies, Jaccard 0.80-0.95 | {near['planted']} "
        f"| {near['found']} | {recall:.1f} % |"
    )
    print("\n| rule | false drops | share |\n|---|---:|---:|")
    for rule, names in false.items():
        print(f"| {rule} | {len(names)} of {len(rows)} | {100 * len(names) / len(rows):.2f} % |")
    print(f"| duplicate_response | {near['false']} | |")
    any_rule = {name for names in false.values() for name in names}
    share = 100 * len(any_rule) / len(rows)
    print(f"| any row rule | {len(any_rule)} of {len(rows)} | {share:.2f} % |")


if __name__ == "__main__":
    main()
