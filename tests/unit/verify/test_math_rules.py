"""The rules of mathematical equality, on hand-made pairs; every setting changes what it says."""

from __future__ import annotations

import pytest

from still_core.verify.conventions import Conventions
from still_core.verify.judging import judge_math
from still_core.verify.verdict import Outcome

DEFAULT = Conventions()


def accepted(gold: str, pred: str, conventions: Conventions = DEFAULT) -> bool:
    return judge_math(gold, pred, conventions)[0] is Outcome.CORRECT


SAME = [
    (r"\frac{3\sqrt{3}}{4}", "3*sqrt(3)/4"),
    (r"\frac{639}{40}", r"15\frac{39}{40}"),
    ("1.5", "1 1/2"),
    (r"6\sqrt{2}", r"\sqrt{72}"),
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt{2}}{2}"),
    (r"2^{2008} - 2", r"2(2^{2007} - 1)"),
    (r"\frac{n(n+1)}{2}", r"\binom{n+1}{2}"),
    (r"\tan^2(y)+1", r"\sec^2 y"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}, 1-\sqrt{19}"),
    (r"\{1, 2, 3\}", r"3, 2 \text{ and } 1"),
    (r"(2, \infty)", "x > 2"),
    (r"x \in [-2,7]", r"-2 \le x \le 7"),
    (r"1\leq|z|\leq \frac{3}{2}", r"[-\frac{3}{2}, -1] \cup [1, \frac{3}{2}]"),
    (r"x \ne 2", r"\mathbb{R} \setminus \{2\}"),
    ("x <= 1", "-x >= -1"),
    ("2x+4y-3=0", r"y=-\frac{1}{2}x+\frac{3}{4}"),
    ("y = 2x + 3", "2x+3"),
    ("(p,q)=(3,2)", "(3, 2)"),
    ("p=5,q=2;p=7,q=2", "(5,2),(7,2)"),
    (r"\begin{pmatrix} 1/5 \\ -18/5 \end{pmatrix}", r"\begin{bmatrix}0.2\\-3.6\end{bmatrix}"),
    (r"90^\circ", r"90 \text{ degrees}"),
    (r"\$36", "36"),
    (r"10\text{ cm}", "10 centimeters"),
    ("14{,}916", "14916"),
    ("4210_5", "4210_{5}"),
    ("7:32", r"\frac{7}{32}"),
    ("08:34 PM", "20:34"),
    (r"\frac{1}{3}", "0.3333"),
    (r"\text{east}", "East"),
    (r"\text{(C)}", "C"),
    ("5", "five"),
    (r"f(x) = x^2", "x^2"),
    (r"\sum_{k=1}^{10} k", "55"),
    (r"i(2-i)", "1+2i"),
]
DIFFERENT = [
    (r"2^{2008} - 2", r"2^{2008} - 1"),
    (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    (r"\frac{22}{7}", r"\pi"),
    ("(5, 2)", "(7, 3)"),
    ("(0,9)", "[0,9)"),
    ("(1, 3, 2)", "(1, 2, 3)"),
    (r"\pm 2021", "2021"),
    ("x > 5", "x < 5"),
    ("x < 1", "x > -1"),
    ("2x + z = 1", "1"),
    ("7 = 11a+c", "11a+c"),
    (r"\cos(x)=\frac{42}{59}", r"\sin(x)=\frac{42}{59}"),
    ("x = 4", "y = 4"),
    ("3, 5, 7", "3, 5"),
    ("3", "3, 4"),
    ("5", "5.001"),
    ("6.17", "6.16"),
    (r"\frac{1}{3}", "0.33"),
    (r"\frac{1}{2}", r"50\%"),
    (r"10\text{ cm}", r"10\text{ m}"),
    ("1.5", "11/2"),
    ("x^2", "x^3"),
    ("|x|", "x"),
    (r"\sqrt{x^2}", "x"),
    ("f(x)", "f(y)"),
    ("odd", r"\text{oddd}"),
    ("Ian", "nia"),
    ("a", "\u0430"),
    ("7919/10", "\u0667919/10"),
    ("7", "x = x"),
    ("0", "x"),
]


@pytest.mark.parametrize(("gold", "pred"), SAME)
def test_equal_answers_are_accepted(gold: str, pred: str) -> None:
    assert accepted(gold, pred)


@pytest.mark.parametrize(("gold", "pred"), DIFFERENT)
def test_different_answers_are_not_accepted(gold: str, pred: str) -> None:
    assert not accepted(gold, pred)


@pytest.mark.parametrize(
    ("gold", "pred"), [(g, p) for g, p in SAME if "=" not in g and ":" not in g]
)
def test_equality_does_not_depend_on_which_side_is_gold(gold: str, pred: str) -> None:
    assert accepted(pred, gold)


@pytest.mark.parametrize(
    ("setting", "gold", "pred"),
    [
        ({"percent": "value"}, "0.5", r"50\%"),
        ({"percent": "either"}, "0.5", r"50\%"),
        ({"rounding_digits": 2}, r"\frac{1}{3}", "0.33"),
        ({"units": "ignored"}, r"10\text{ cm}", r"10\text{ m}"),
    ],
)
def test_a_lenient_setting_accepts_what_the_default_does_not(
    setting: dict[str, str], gold: str, pred: str
) -> None:
    assert not accepted(gold, pred)
    assert accepted(gold, pred, Conventions(**setting))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("setting", "gold", "pred"),
    [
        ({"percent": "value"}, "50", r"50\%"),
        ({"order": "fixed"}, "1, 2", "2, 1"),
        ({"rounding_digits": 0}, r"\frac{1}{3}", "0.3333333333"),
        ({"reduced": "lowest"}, r"\frac{1}{2}", r"\frac{2}{4}"),
        ({"units": "required"}, r"10\text{ cm}", "10"),
        ({"left_side": "required"}, "x = 5", "5"),
    ],
)
def test_a_strict_setting_refuses_what_the_default_accepts(
    setting: dict[str, str], gold: str, pred: str
) -> None:
    assert accepted(gold, pred)
    assert not accepted(gold, pred, Conventions(**setting))  # type: ignore[arg-type]
