"""Hostile answers: fixed ones by family, and generated ones by splicing and nesting.

No case is the right answer to `GOLD`; none may be rewarded, hang, take memory or run code.
"""

# ruff: noqa: E501 - one case a line, names in one line
from __future__ import annotations

import random
from collections.abc import Iterator

GOLD = r"\frac{7919}{104729}"

_SIZES = (30, 300, 3_000, 30_000)


def _towers() -> Iterator[str]:
    for base in ("9", "x", r"\pi", "(9+1)", "0.1", r"\sqrt{2}"):
        for height in (3, 4, 8, 30):
            yield "^{".join([base] * height) + "}" * (height - 1)
            yield "**".join([base] * height)
    yield from (
        r"((9**9)**9999)**9999",
        "2**30**5",
        "9^{9^{9}}!",
        r"10^{10^{10^{10}}}",
        "2^{-9^{9^9}}",
    )
    yield from (r"\sqrt[9999999]{9^{9^9}}", r"9^{9^{9}} \bmod 7", r"\exp(\exp(\exp(\exp(9))))")
    yield from ("1e999999", "1E400", "9e9**9e9", r"1 \times 10^{999999999}", "0." + "0" * 300 + "1")


def _combinatorics() -> Iterator[str]:
    for n in ("100000", "100000000", "10^9", "9!", "99!!!!"):
        yield f"{n}!"
        yield f"({n}!)!"
        yield rf"\binom{{{n}}}{{{n}/2}}"
        yield rf"\sum_{{k=1}}^{{{n}}} k^k"
        yield rf"\prod_{{k=1}}^{{{n}}} k!"
        yield rf"\int_0^{{{n}}} x^x dx"
        yield rf"\gcd({n}, 7)"
        yield rf"\operatorname{{lcm}}({n}, x^{{{n}}} + 1)"
    for depth in (2, 3, 5):
        sums = "".join(rf"\sum_{{{name}=1}}^{{999}} " for name in "abcde"[:depth])
        yield sums + "a"
    yield from (
        r"\gcd(x^{5000}-1, x^{4999}-1)",
        r"\lim_{n \to \infty} (1+1/n)^{n!}",
        "(x+y+z+w)^{400}",
    )


def _nesting() -> Iterator[str]:
    pairs = [
        ("(", ")"),
        ("[", "]"),
        (r"\{", r"\}"),
        ("{", "}"),
        ("|", "|"),
        (r"\left(", r"\right)"),
    ]
    pairs += [(r"\frac{1}{", "}"), (r"\sqrt{", "}"), (r"\boxed{", "}"), (r"\text{", "}"), ("-", "")]
    pairs += [(r"\begin{pmatrix}", r"\end{pmatrix}"), (r"\lfloor ", r"\rfloor "), (r"\sin(", ")")]
    for opening, closing in pairs:
        for size in _SIZES:
            yield opening * size + "1" + closing * size
            yield opening * size
    yield from ("f(" * 1000 + "x" + ")" * 1000, "x_{" * 1000 + "1" + "}" * 1000, "||" * 999 + "x")


def _bulk() -> Iterator[str]:
    for char in ("9", "$", "a", "x ", "1,", "1+", r"\ ", "-", "=", "<", r"\pm 1 ", "é", "\0", "\n"):
        for size in (5_000, 200_000):
            yield char * size
    yield from ("1" * 1_000_000, "0." + "3" * 1_000_000, "x" * 1_000_000, r"\boxed{" * 20_000)
    yield ",".join(str(n) for n in range(900))
    yield r"\{" + ",".join(rf"\pm {n}" for n in range(300)) + r"\}"
    yield r"\begin{pmatrix}" + r"\\".join("&".join("1" * 40) for _ in range(40)) + r"\end{pmatrix}"
    yield (
        r"\det\begin{pmatrix}"
        + r"\\".join("&".join("x" * 12) for _ in range(12))
        + r"\end{pmatrix}"
    )
    yield r"\begin{pmatrix}2&1\\1&2\end{pmatrix}^{999999999}"
    yield " \\cup ".join(f"({n},{n + 1})" for n in range(200))
    yield " < ".join("x" * 300)
    yield "".join(rf"\frac{{{n}}}{{x+{n}}}+" for n in range(120)) + "1"


def _regex_bait() -> Iterator[str]:
    for bait in (
        "a" * 30 + "!",
        "(a+)+$",
        "((a*)*)*",
        "1 " * 500 + "!",
        "1,000" * 400,
        "1,00" * 400,
        "A B " * 400 + "x",
        "answer" + " :" * 900 + " x",
        "A, " * 900 + "x",
    ):
        yield bait
        yield "the answer is " + bait * 20
        yield "answer: " * 500 + bait
    for part in (r"\text{", "$a", r"\(", r"\[", "\\\\", r"\left", "{,}", "answer is ", "**", "\\ "):
        yield part * 3_000
        yield (part + " ") * 1_000 + "1"
    yield "\\boxed{" + "{" * 2_000 + "}" * 1_999


def _lookalikes() -> Iterator[str]:
    plain = "7919/104729"
    for old, new in (("7", "\u0667"), ("1", "\U0001d7cf"), ("9", "\u0be9"), ("/", "\u2044")):
        yield plain.replace(old, new)
    yield from ("\u202e" + plain[::-1], plain + "\u200b0", "7919\u2215104729", "\u217c/\u217d")
    yield from ("\u0430\u0441", "\u03bf", "\uff58", "\u2160", "\u00bd", "\u221e", "\u221a" * 500)
    yield from (
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        "\ufeff",
        "\u0301" * 999,
    )


def _injections(canary: str) -> Iterator[str]:
    calls = (
        f"__import__('os').system('touch {canary}')",
        f"open('{canary}','w').write('x')",
        f"exec(\"open('{canary}','w')\")",
        f"eval(\"__import__('os').system('touch {canary}')\")",
        f"().__class__.__base__.__subclasses__()[0]('{canary}')",
        f"(lambda: open('{canary}','w'))()",
        f'f\'{{open("{canary}","w")}}\'',
        f"getattr(__builtins__,'open')('{canary}','w')",
        f"[c for c in ().__class__.__base__.__subclasses__()][-1].__init__.__globals__['os'].system('touch {canary}')",
        f'sympify(\'open("{canary}","w")\')',
        f"Lambda(x, open('{canary}','w'))(1)",
        f"Symbol.__init__.__globals__['sys'].modules['os'].system('touch {canary}')",
        f"x.func.__globals__['__builtins__']['open']('{canary}','w')",
        f"import os; os.system('touch {canary}')",
        f"\\write18{{touch {canary}}}",
        f"\\input{{|touch {canary}}}",
        f"\\immediate\\write18{{touch {canary}}}",
        f"\\openout\\f={canary} \\write\\f{{x}}",
        f"\\catcode`\\%=12 \\input {canary}",
        f"\\def\\x{{\\x\\x}}\\x {canary}",
        f"$(touch {canary})",
        f"`touch {canary}`",
        f"1; touch {canary}",
        f"1\n\ntouch {canary}\n",
    )
    frames = ("{}", "${}$", r"\boxed{{{}}}", r"\text{{{}}}", "1 + {}", r"\frac{{{}}}{{1}}")
    for call in calls:
        for frame in frames:
            yield frame.format(call)


def _tricks() -> Iterator[str]:
    yield from (
        "",
        " ",
        ":",
        ".",
        r"\boxed{}",
        "Thought process:",
        "None",
        "nan",
        "inf",
        "zoo",
        "oo",
        "i",
    )
    yield from (
        "x",
        "true",
        "True",
        "gold",
        "GOLD",
        r"\text{gold}",
        "the answer",
        "7919, 104729",
        "all",
    )
    yield from ("1 or 2 or 3", ", ".join(map(str, range(50))), r"\mathbb{R}", r"(-\infty, \infty)")
    yield from (
        "x = x",
        "0 = 0",
        "1 = 1",
        r"x \in \mathbb{R}",
        "0/0",
        "1/0",
        r"\frac{0}{0}",
        r"\log 0",
    )
    yield from ("0.07", "0.08", "0.1", "0.076", "0.0757", "[0, 1]", "7919", "104729", "7919:104728")
    yield from (
        r"\frac{7919}{104729} + \epsilon",
        r"7919/104729 \text{ or } 0",
        r"\frac{7919}{104729} x",
    )
    yield from (r"\pm\frac{7919}{104729}", "-7919/104729", r"\sqrt{7919/104729}", "7919/104729, 1")


def fixed_cases(canary: str) -> list[str]:
    """Every fixed hostile answer; `canary` is a path that no answer may create."""
    families = (_towers(), _combinatorics(), _nesting(), _bulk(), _regex_bait(), _lookalikes())
    return [case for family in (*families, _injections(canary), _tricks()) for case in family]


_ATOMS = (
    *["x", "y", "z", "n", "e", "i", "0", "1", "2", "9", "10", "99", "3.14", ".5", "1e9", "1,000"],
    *[
        r"\pi",
        r"\infty",
        r"\theta",
        r"\emptyset",
        r"\mathbb{R}",
        r"\text{cm}",
        r"\%",
        r"^\circ",
        r"\ldots",
        r"\\",
        r"&",
        r"!",
        r"'",
        r"_",
        r"=",
        r"<",
        r">",
        r",",
        r";",
        r":",
        r"|",
        r"$",
    ],
)
_PLAIN = (
    "x",
    "y",
    "n",
    "i",
    "e",
    "0",
    "1",
    "2",
    "3",
    "9",
    "10",
    "99",
    "3.14",
    "1e9",
    r"\pi",
    r"\infty",
)
_LARGE = (
    *[
        "x",
        "y",
        "2",
        "99",
        "999",
        "2000",
        "9!",
        "99!",
        "1999!",
        "1e300",
        "1e-300",
        "9^{9^9}",
        "x^{99}",
    ],
    *[
        "10^{99}",
        r"\pi^{999}",
        r"\binom{2000}{999}",
        r"\sum_{k=1}^{999} k^{99}",
        r"\sin(10^{5})",
        "0.1^{999}",
    ],
    *[
        r"\begin{pmatrix}1&x\\y&9\end{pmatrix}",
        r"\prod_{k=1}^{99} (x+k)",
        "(x+y)^{99}",
        r"\sqrt[99]{x}",
    ],
)
_SHAPES = (
    "{a}^{{{b}}}", r"\frac{{{a}}}{{{b}}}", r"\sqrt[{a}]{{{b}}}", "({a},{b})", "[{a},{b})", "{a}{b}",
    "{a}+{b}", "{a}-{b}", "{a}*{b}", "{a}/{b}", r"\{{{a},{b}\}}", "|{a}|{b}", r"\sin {a} {b}", "{a}!{b}",
    r"\binom{{{a}}}{{{b}}}", r"\sum_{{k={a}}}^{{{b}}} k", "{a}={b}", r"{a} \le {b}", r"{a} \pm {b}",
    r"\begin{{pmatrix}}{a}&{b}\\{b}&{a}\end{{pmatrix}}", r"\log_{{{a}}} {b}", r"{a} \cup {b}", "{a}, {b}",
    r"\lfloor {a} \rfloor {b}", "{a}:{b}", r"{a} \text{{ and }} {b}", "f({a}) {b}", "{a}_{{{b}}}",
    r"\int_{{{a}}}^{{{b}}} x dx", r"\lim_{{x \to {a}}} {b}", r"\gcd({a}, {b})", "{a}**{b}", r"\boxed{{{a}}} {b}",
    r"{a} \bmod {b}", r"\overline{{{a}}}{b}", r"\left({a}\right){b}", "{a}e{b}", "the answer is {a} {b}",
)  # fmt: skip


def generated_cases(count: int, seed: int) -> Iterator[str]:
    """Answers grown at random from shapes, a third each from fragments, plain terms and large ones.

    A tenth is then cut or has a character put in.
    """
    rng = random.Random(seed)
    for _ in range(count):
        text = _grown(rng, rng.randint(0, 8), rng.choice((_ATOMS, _PLAIN, _LARGE)))
        if rng.random() < 0.1 and text:
            at = rng.randrange(len(text))
            text = rng.choice(
                (text[:at], text[at:], text[:at] + chr(rng.randrange(1, 0x2FFF)) + text[at:])
            )
        yield rng.choice((text, text, rf"\boxed{{{text}}}", f"${text}$"))


def _grown(rng: random.Random, depth: int, atoms: tuple[str, ...]) -> str:
    if depth == 0:
        return rng.choice(atoms)
    parts = [_grown(rng, rng.randrange(depth), atoms) for _ in range(2)]
    return rng.choice(_SHAPES).format(a=parts[0], b=parts[1])
