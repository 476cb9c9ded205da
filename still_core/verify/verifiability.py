"""Which problems a rule can verify: STILL-3's digit filter and question-type filter.

STILL-3 (section 2.1) drops multiple-choice, proof, concept, open-ended and multi-part questions,
then answers that SymPy can not parse to digits. Both are pure functions of the text; the digit
filter runs SymPy and so belongs in a pool worker (`VerifierPool.digits`) when the text is not
trusted.
"""

from __future__ import annotations

import re

from still_core.problems.problem import QuestionType
from still_core.verify.caps import over_cap
from still_core.verify.nodes import CapError, Node, NotReadError
from still_core.verify.reading import read
from still_core.verify.symbolic import to_sympy

MAX_EXPONENT_BITS = 40_000
"""Largest number, in bits, that SymPy is asked to write out."""


_CHOICES = re.compile(
    r"(?:^|\n|\\\\|\s)[(]?A[).:]\s?.{1,400}?(?:^|\n|\\\\|\s)[(]?B[).:]\s?.{1,400}?"
    r"(?:^|\n|\\\\|\s)[(]?C[).:]\s?",
    re.DOTALL,
)
_TEXT_CHOICES = re.compile(r"\\text(?:bf)?\{\s*\(A\).{0,400}?\\text(?:bf)?\{\s*\(B\)", re.DOTALL)
_WHICH_OF = re.compile(r"which (?:one )?of the following|choose the correct|select all", re.I)
_PROOF = re.compile(
    r"\b(?:prove|show that|show (?:how|why)|demonstrate that|verify that|disprove|justify)\b"
    r"|\bproof\b",
    re.IGNORECASE,
)
_ASKS_VALUE = re.compile(
    r"\b(?:find|compute|calculate|evaluate|determine|how many|how much|what is|what are|solve)\b",
    re.IGNORECASE,
)
_CONCEPT = re.compile(
    r"^\s*(?:define|state|explain|describe|what (?:is|are) (?:meant by|the (?:definition|meaning|"
    r"difference))|name the)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:give an example|construct|discuss|describe|explain|design|sketch|draw|in your own words|"
    r"write (?:a|an) (?:essay|story|program)|list some|propose)\b",
    re.IGNORECASE,
)
_PARTS = re.compile(
    r"(?:^|\n|\s)(?:\(\s*(?:a|i|1)\s*\)|(?:a|i|1)\)|part\s+\(?(?:a|1|i)\)?[:.)])\s(?P<first>.{3,}?)"
    r"(?:^|\n|\s)(?:\(\s*(?:b|ii|2)\s*\)|(?:b|ii|2)\)|part\s+\(?(?:b|2|ii)\)?[:.)])\s",
    re.IGNORECASE | re.DOTALL,
)
_DRAWING = re.compile(r"\[asy\].*?\[/asy\]", re.DOTALL)
LONGEST_STATEMENT = 20_000
"""Characters of a statement that are looked at: bounds the patterns' work."""


def question_type(statement: str) -> QuestionType:
    """The type of a question, by what its statement says.

    >>> question_type("Prove that 2 is prime.").value
    'proof'
    """
    text = _DRAWING.sub(" ", statement[:LONGEST_STATEMENT])
    if _TEXT_CHOICES.search(text) or _CHOICES.search(text) or _WHICH_OF.search(text):
        return QuestionType.MULTIPLE_CHOICE
    if (parts := _PARTS.search(text)) is not None and _asks_twice(text, parts):
        return QuestionType.MULTI_PART
    if _PROOF.search(text) and not _asks_value_last(text):
        return QuestionType.PROOF
    if (concept := _CONCEPT.search(text)) is not None and not (
        re.search(r"\d", text) or _ASKS_VALUE.search(text, concept.end())
    ):
        return QuestionType.CONCEPT
    if _OPEN.search(text) and not _ASKS_VALUE.search(text):
        return QuestionType.OPEN_ENDED
    return QuestionType.COMPUTATION


def _asks_twice(text: str, parts: re.Match[str]) -> bool:
    """Whether both parts ask for something; conditions are numbered like parts."""
    asks = [
        bool(_ASKS_VALUE.search(part) or _PROOF.search(part) or "?" in part)
        for part in (text[parts.start("first") : parts.end("first")], text[parts.end() :])
    ]
    return all(asks)


def _asks_value_last(text: str) -> bool:
    """Whether a value is asked for after the last call for a proof."""
    proofs = [match.end() for match in _PROOF.finditer(text)]
    return _ASKS_VALUE.search(text, proofs[-1]) is not None


def parses_to_digits(gold: str) -> bool:
    """Whether SymPy turns a gold answer into one real number (STILL-3's digit filter).

    Equations, sets, tuples, expressions with symbols and words do not; units are dropped first.
    """
    if over_cap(gold) is not None:
        return False
    try:
        items = read(gold)
    except NotReadError:
        return False
    if len(items) != 1:
        return False
    node = items[0].args[0] if items[0].op == "unit" else items[0]
    try:
        _check_size(node)
        value = to_sympy(node)
    except (NotReadError, CapError, ZeroDivisionError):
        return False
    return bool(value.is_number and value.is_real and value.is_finite)


def _check_size(node: Node) -> None:
    """Refuse towers of powers before SymPy computes them: the product of the exponents is
    capped."""
    for part in node.walk():
        if part.op != "pow":
            continue
        bits, base = 1.0, part
        while base.op == "pow":
            exponent = base.args[1].number
            if exponent is None and base.args[1].op != "div":
                raise CapError("exponent_cap")
            bits *= float(abs(exponent)) if exponent is not None else 1.0
            base = base.args[0]
        size = base.number.numerator.bit_length() if base.number is not None else 8
        if bits * max(size, 1) > MAX_EXPONENT_BITS:
            raise CapError("exponent_cap")
