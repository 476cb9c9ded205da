r"""From text to tokens: typesetting removed, Unicode signs spelt as LaTeX, numbers joined.

    text -> clean -> Token(kind, value, spaced)

Look-alike letters of other scripts are left as they are: they equal nothing but themselves.
"""

# ruff: noqa: RUF001 - a table of the signs of other scripts
from __future__ import annotations

import re
from typing import NamedTuple

from still_core.verify.extraction import closing_brace
from still_core.verify.nodes import NotReadError, names
from still_core.verify.units import is_unit_formula

MAX_TOKENS = 1_500
"""Most tokens of one answer; a 10 x 10 matrix of fractions has about 900."""


class Token(NamedTuple):
    """One token."""

    kind: str
    r"""`num`, `cmd` (`\name`), `word` (letters), `text` (content of `\text{}`), or `op` (a
    sign)."""
    value: str
    spaced: bool
    """Whether a blank stands before it."""


_SIGNS = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "÷": r"\div ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "∗": "*", "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ",
    "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∈": r"\in ", "∪": r"\cup ",
    "∩": r"\cap ", "∖": r"\setminus ", "±": r"\pm ", "∓": r"\mp ", "√": r"\sqrt ", "°": r"^\circ ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "∅": r"\emptyset ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "φ": r"\phi ",
    "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "⅓": r"\frac{1}{3}",
    "⅔": r"\frac{2}{3}", "²": "^{2}", "³": "^{3}", "⁴": "^{4}", "⟨": r"\langle ", "⟩": r"\rangle ",
    "（": "(", "）": ")", "，": ", ", "、": ", ", "；": "; ", "：": ":", "％": r"\%", "。": " ",
    "＝": "=", "＋": "+", "\u00a0": " ", "\u202f": " ", "\u2009": " ",
    "\u200b": "", "′": "'", "→": r"\to ", "∣": "|", "€": r"\text{euro}", "£": r"\text{sterling}",
    "₹": r"\text{rupee}", "¥": r"\text{yen}", "￥": r"\text{yen}",
    **{chr(0xFF10 + digit): str(digit) for digit in range(10)},
}  # fmt: skip
_SIGN = re.compile("|".join(map(re.escape, _SIGNS)))

_SPACES = re.compile(
    r"\\(?:q?quad|enspace|thinspace|medspace|thickspace|negmedspace|negthickspace|hfill)"
    r"(?![a-zA-Z])|\\[;: ]|~"
)
_THIN = re.compile(r"\\[,!]|\\(?:negthinspace|null|nobreak)(?![a-zA-Z])")
_DROPPED = re.compile(
    r"\\(?:left|right|middle|[bB]igg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits"
    r"|rm|bf|it|boldsymbol|mathopen|mathclose|hspace\*?\{[^{}]*\}|vspace\*?\{[^{}]*\}"
    r"|color\{[^{}]*\}|label\{[^{}]*\}|tag\*?\{[^{}]*\}|phantom\{[^{}]*\})(?![a-zA-Z])"
)
_LEFT_DOT = re.compile(r"\\(?:left|right)\s*\.")
_ENVIRONMENT = re.compile(r"\\(?:begin|end)\{(?:align|aligned|gather|equation|split|center)\*?\}")
_ROW_GAP = re.compile(r"\0\s*\[[\d.]+\s*(?:pt|em|ex|mm|cm)\]")
_THIN_COMMA = re.compile(r"(?<=\d)\s*,\s*\\[!,]\s*(?=\d)", re.ASCII)
_DISPLAY = re.compile(r"\\[()\[\]]|(?<!\\)\$")
_GROUPED_COMMA = re.compile(r"(?<=\d)\s*\{\s*,\s*\}\s*(?=\d)", re.ASCII)
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z!,;{}])")
_DOUBLED_NAME = re.compile(
    r"\\\\(?=(?:[dt]?frac|sqrt|text|pi|left|right|boxed|cdot|times)(?![a-zA-Z]))"
)
_SINGLE = re.compile(r"(?<!\\)\\[a-zA-Z]")
_REPEATED = re.compile(
    r"(?<![0-9.])([0-9]{0,40})\.([0-9]{0,40})\\(?:overline|bar|dot)\s*\{?([0-9]{1,40})\}?", re.ASCII
)
_ROUND = re.compile(
    r"(?<![0-9.])([0-9]{1,40})\.([0-9]{0,6}?)([0-9]{1,6})\3\3+(?:\.\.\.|\\[lc]?dots(?![a-z]))",
    re.ASCII,
)
_IN_BRACKETS = re.compile(
    r"([-+$\s]*[0-9]{0,40})\.([0-9]{0,40})\(([0-9]{1,40})\)([.$\s]*)", re.ASCII
)
_NUMBER_IN_BRACKETS = re.compile(r"\(\s*([0-9A-F]{1,40})\s*\)\s*(?=_)", re.ASCII)
_UNIT_FRACTION = re.compile(
    r"(?<=[\d}\s])\\frac\{((?:\\(?:text|mathrm)\{[^{}\\]{1,20}\}(?:\^\{?\d\}?)?){1,3})\}"
    r"\{((?:\\(?:text|mathrm)\{[^{}\\]{1,20}\}(?:\^\{?\d\}?)?){1,3})\}"
)
_UNIT_VECTOR = re.compile(
    r"\\(?:hat|vec|overrightarrow)\s*"
    r"(?:\{\s*(?:\\(?:math)?bf\s*)?\{?\s*(?:\\([ij])math|([ijk]))\s*\}?\s*\}"
    r"|\\([ij])math(?![a-zA-Z])|([ijk])(?![a-zA-Z]))"
)
_OHM = re.compile(r"(?<=\d)\s*\\Omega$")
_ELLIPSIS = re.compile(r"\\[ch]?dots[mbco]?(?![a-zA-Z])|\.\.\.")
_FRACTIONS = re.compile(r"\\[dtc]frac(?![a-zA-Z])")
_BINOMIALS = re.compile(r"\\[dt]binom(?![a-zA-Z])")
_TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|textnormal|mathrm|mathbf|mathit|mathsf|mathtt"
    r"|mathcal|mathscr|mathfrak|operatorname\*?|mbox|hbox|bm|emph|underline|variable)\s*\{"
)
_TOKEN = re.compile(
    r"(?P<num>(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,6}(?![\w]))?|\d+\.(?!\d))"
    r"|(?P<cmd>\\[a-zA-Z]+)|(?P<esc>\\.)|(?P<word>[A-Za-z]+)"
    r"|(?P<pair>\*\*|<=|>=|!=|==|:=|->)|(?P<op>.)",
    re.DOTALL | re.ASCII,
)
_DECIMALS = re.compile(r"\.\d+", re.ASCII)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])", re.ASCII)
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?!\d| \d)", re.ASCII)


def clean(text: str) -> str:
    r"""`text` without typesetting: no `$`, `\left`, thin spaces, `\dfrac`; signs spelt in ASCII."""
    text = _SIGN.sub(lambda match: _SIGNS[match[0]], text)
    if _DOUBLED.search(text) and not _SINGLE.search(text):
        text = text.replace("\\\\\\\\", "\0").replace("\\\\", "\\").replace("\0", "\\\\")
    elif "\\begin" not in text:
        text = _DOUBLED_NAME.sub(r"\\", text)
    if (period := _IN_BRACKETS.fullmatch(text)) is not None:
        text = rf"{period[1]}.{period[2]}\overline{{{period[3]}}}"
    text = _ELLIPSIS.sub(r"\\ldots ", _REPEATED.sub(_repeating, _ROUND.sub(_repeating, text)))
    text = _NUMBER_IN_BRACKETS.sub(r"\1", text)
    text = text.replace("\\\\", "\0")  # a row's end, out of the way of `\\ ` and `\\[`
    text = _DROPPED.sub(" ", _SPACES.sub(" ", _LEFT_DOT.sub(" ", text)))
    text = _ENVIRONMENT.sub(" ", _THIN.sub("", _THIN_COMMA.sub(",", text)))
    text = _DISPLAY.sub(" ", _ROW_GAP.sub("\0", text)).replace("\0", "\\\\ ")
    text = _GROUPED_COMMA.sub(",", text)
    text = _BINOMIALS.sub(r"\\binom", _FRACTIONS.sub(r"\\frac", text)).strip()
    return _unit_signs(_UNIT_VECTOR.sub(_unit_vector, text))


def _unit_signs(text: str) -> str:
    r"""Units in signs spelt as words: `\frac{\text{m}}{\text{s}}`, `5\Omega`."""
    return _UNIT_FRACTION.sub(_unit_quotient, _OHM.sub(r"\\text{ ohm}", text))


def _unit_quotient(match: re.Match[str]) -> str:
    top, bottom = (re.sub(r"\\(?:text|mathrm)|[{}]", " ", part) for part in match.groups())
    return rf"\text{{{' '.join(top.split())}/{' '.join(bottom.split())}}}"


def _unit_vector(match: re.Match[str]) -> str:
    r"""`\hat{\imath}` is `\mathbf{i}`."""
    return rf"\mathbf{{{match[1] or match[2] or match[3] or match[4]}}}"


def _repeating(match: re.Match[str]) -> str:
    r"""`0.1\overline{6}` and `0.1666...` as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3]
    top = int(whole + fixed + period) - int(whole + fixed)
    bottom = (10 ** len(period) - 1) * 10 ** len(fixed)
    return rf"\frac{{{top}}}{{{bottom}}}"


def tokenize(text: str) -> list[Token]:
    """Tokens of a cleaned text.

    Raises:
        NotReadError: too many tokens, or braces of a text command that do not close.
    """
    tokens: list[Token] = []
    index, spaced = 0, False
    while index < len(text):
        if text[index].isspace():
            index, spaced = index + 1, True
            continue
        if (match := _TEXT.match(text, index)) is not None:
            end = closing_brace(text, match.end() - 1)
            if end < 0:
                raise NotReadError("an unclosed text command")
            tokens.extend(_text_tokens(text[match.end() : end], spaced, match[0]))
            index, spaced = end + 1, False
            continue
        token, index = _next_token(text, index, spaced)
        tokens.append(token)
        spaced = False
        if len(tokens) > MAX_TOKENS:
            raise NotReadError("too many tokens")
    return tokens


def _next_token(text: str, index: int, spaced: bool) -> tuple[Token, int]:
    joined = _THOUSANDS.match(text, index) or _SPACED_THOUSANDS.match(text, index)
    if joined:
        end = joined.end()
        tail = _DECIMALS.match(text, end)
        if tail:
            end = tail.end()
        # The sign of grouping stays in the value: in brackets a comma may be a separator.
        return Token("num", text[index:end], spaced), end
    match = _TOKEN.match(text, index)
    assert match is not None
    kind = str(match.lastgroup)
    value = match[0]
    if kind == "cmd":
        return Token("cmd", value[1:], spaced), match.end()
    return Token("op" if kind in ("esc", "pair") else kind, value, spaced), match.end()


_MATHS_INSIDE = re.compile(r"[\d\\^=<>+*/(){}_]")
_COUNT = re.compile(
    r"([-+]?\\?\$?\d[\d,]*(?:\.\d+)?(?:/\d+)?\\?%?)\s+([A-Za-z][A-Za-z .]*)", re.ASCII
)
"""A number and what it counts: `\\text{72 clips}`."""
_FUNCTION_WORDS = frozenset(
    names("cis sin cos tan cot sec csc log ln arcsin arccos arctan gcd lcm")
)


def _text_tokens(content: str, spaced: bool, command: str) -> list[Token]:
    r"""Tokens of a text command: mathematics is read as such, a name as a name, else words."""
    stripped = content.strip()
    if not stripped:
        return []
    spaced = spaced or content[0].isspace()
    if "operatorname" in command or stripped in _FUNCTION_WORDS:
        return [Token("cmd", stripped.replace(" ", ""), spaced)]
    if stripped.lower().strip(",; ") in ("and", "or"):
        return [Token("text", stripped.lower().strip(",; "), True)]
    if len(stripped) == 1 and stripped.isalpha() and "text" not in command:
        return [Token("word", stripped, spaced)]
    if (count := _COUNT.fullmatch(stripped)) is not None:
        inner = [Token(*token[:2], token.spaced) for token in tokenize(count[1])]
        return [*inner, Token("text", " ".join(count[2].split()), True)]
    if is_unit_formula(stripped):
        return [Token("text", stripped, spaced)]
    if _MATHS_INSIDE.search(stripped) and not re.search(r"[A-Za-z]{3,}", stripped):
        return [Token(*token[:2], spaced or token.spaced) for token in tokenize(stripped)]
    tokens: list[Token] = []
    for part in re.split(r"\s*,\s*|\s+and\s+", stripped):
        tokens += [Token("op", ",", spaced)] if tokens else []
        tokens += [Token("text", " ".join(part.split()), spaced)] if part else []
    return tokens
