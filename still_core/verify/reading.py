r"""From text to a tree: the reader of answers, LaTeX and plain.

    text -> tokens -> list of items (comma, semicolon, "and", "or") -> Node

Recursive descent with a depth cap; no `eval`, no SymPy, time linear in the number of tokens. What
it does not know raises `NotReadError`: integrals and limits go to SymPy, garbage to nobody.
"""

from __future__ import annotations

import re
from fractions import Fraction

from still_core.verify.nodes import (
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    NAMED_SETS,
    PREFIX_FUNCTIONS,
    RELATIONS,
    SET_OPERATIONS,
    Node,
    NotReadError,
    names,
    number,
)
from still_core.verify.tokens import Token, clean, tokenize
from still_core.verify.units import canonical_unit, is_unit_word

MAX_DEPTH = 60
"""Deepest nesting the reader follows; its own recursion, hence below Python's limit."""
MAX_DECIMAL_EXPONENT = 400
"""Largest exponent of scientific notation (1.5E300)."""

_CLOSERS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}"}
_NAMES = sorted({*FUNCTIONS, *GREEK, *CONSTANTS} - {"re", "im", "tr", "in"}, key=len, reverse=True)
_NAME = re.compile("|".join(name for name in _NAMES if len(name) > 1 and name not in ("mod", "oo")))
_SEPARATORS = frozenset({",", ";", "\\\\", "\\&", "&"})
_UNREAD = frozenset(
    names("iint oint partial nabla input write include def let csname immediate char")
)
_ACCENTS = frozenset(names("overline bar vec hat tilde overrightarrow widehat dot"))
_MATRICES = frozenset(
    names("matrix pmatrix bmatrix vmatrix Bmatrix Vmatrix array smallmatrix cases")
)
_FUNCTION_LETTERS = frozenset("fghFG") | {"phi", "Phi", "psi", "Psi", "Gamma", "zeta"}
_EXTERNAL = frozenset(
    names(
        "Eq Interval Matrix Integral Limit Derivative Sum Product Union Intersection Complement "
        "FiniteSet Ne Ge Gt Le Lt"
    )
)


def read(text: str, *, loose_division: bool = False) -> list[Node]:
    """The items of an answer, in order; `(1, 2)` is one item, `1, 2` are two.

    Args:
        loose_division: read `1/2x` as `(1/2)x` rather than `1/(2x)`.

    Raises:
        NotReadError: not an answer this reader knows.
    """
    tokens = tokenize(clean(text))
    if not tokens:
        raise NotReadError("nothing to read")
    return _Reader(tokens, loose_division).items()


class _Reader:
    def __init__(self, tokens: list[Token], loose_division: bool) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.calls = 0
        """How many function arguments are open: there degrees are angles, not units."""
        self.loose = loose_division
        self.program = any(token.value in ("*", "**") for token in tokens) and not any(
            token.kind == "cmd" for token in tokens
        )
        """Whether the text is spelt as programs do: there `E` is Euler's number."""

    # -- tokens ------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> Token:
        """The token `ahead` of the present one; an `end` token past the last."""
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else Token("end", "", True)

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def is_op(self, *values: str) -> bool:
        token = self.peek()
        return token.kind == "op" and token.value in values

    def is_cmd(self, *values: str) -> bool:
        token = self.peek()
        return token.kind == "cmd" and token.value in values

    def expect(self, value: str) -> None:
        if not self.is_op(value):
            raise NotReadError(f"expected {value}")
        self.at += 1

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise NotReadError("nested too deeply")

    # -- lists -------------------------------------------------------------------------------

    def items(self) -> list[Node]:
        """All items of the text; groups of assignments become tuples."""
        groups: list[list[Node]] = [[]]
        while self.peek().kind != "end":
            if self.separates():
                token = self.take()
                if token.value != "," and groups[-1]:
                    groups.append([])
                continue
            if self.is_op(".") and self.peek(1).kind == "end":
                break
            groups[-1].append(self.relation())
            if self.peek().kind != "end" and not self.separates() and not self.is_op("."):
                raise NotReadError(f"unexpected {self.peek().value!r}")
        groups = [group for group in groups if group]
        if not groups:
            raise NotReadError("nothing to read")
        widths = {len(group) for group in groups}
        if len(groups) > 1 and len(widths) == 1 and widths != {1} and _all_assignments(groups):
            return [Node("group", tuple(group), "()") for group in groups]
        return [item for group in groups for item in group]

    def separates(self) -> bool:
        """Whether the present token separates items at this level."""
        token = self.peek()
        if token.kind == "op":
            return token.value in _SEPARATORS
        return token.value in ("and", "or") and token.kind in ("word", "text")

    # -- relations ---------------------------------------------------------------------------

    def relation(self) -> Node:
        """operand (sign operand)*; a leading equals sign says nothing."""
        if self.peek().value in ("=", "approx", "simeq"):
            self.at += 1
        operands, signs = [self.operand()], []
        while (sign := self.relation_sign()) is not None:
            signs.append(sign)
            operands.append(self.operand())
        if not signs:
            return operands[0]
        return Node("chain", tuple(operands), " ".join(signs))

    def relation_sign(self) -> str | None:
        token = self.peek()
        if token.kind not in ("op", "cmd") or token.value not in RELATIONS:
            return None
        if token.kind == "op" and token.value in ("in", "to"):
            return None
        self.at += 1
        if token.value in ("<", ">") and self.is_op("="):
            self.at += 1
            return RELATIONS[token.value + "="]
        return RELATIONS[token.value]

    def operand(self) -> Node:
        """sets (: sets)*, with a unit before or after."""
        self.deeper()
        unit = ""
        if self.is_op("\\$", "$"):
            self.at += 1
            unit = "dollar"
        node = self.words() or self.set_expression()
        parts = [node]
        while self.is_op(":") and self.peek(1).kind != "end":
            self.at += 1
            parts.append(self.set_expression())
        if len(parts) > 1:
            node = Node("ratio", tuple(parts))
        unit = self.unit() or unit
        self.depth -= 1
        return Node("unit", (node,), unit) if unit and node.op != "words" else node

    def words(self) -> Node | None:
        """Plain words up to the next separator or relation, None where mathematics stands."""
        taken: list[str] = []
        ahead = 0
        while self.peek(ahead).kind in ("word", "text"):
            if self.peek(ahead).value in ("and", "or"):
                break
            taken.append(self.peek(ahead).value)
            ahead += 1
        if not taken or self.peek(ahead).kind not in ("end", "op", "word", "text"):
            return None
        follows = self.peek(ahead)
        if follows.kind == "op" and follows.value not in {*_SEPARATORS, "=", ".", ")", "]", "}"}:
            return None
        if all(self.peek(index).kind == "word" for index in range(ahead)) and not _is_prose(taken):
            return None
        self.at += ahead
        return Node("words", name=" ".join(taken))

    def unit(self) -> str:
        """Canonical unit that stands here, "" where none does."""
        start = self.at
        while True:
            token = self.peek()
            known = token.kind == "text" or (token.kind == "word" and _follows_number(token))
            if (known and token.value not in ("and", "or")) or self.is_op("\\%", "%", "\\$", "$"):
                self.at += 1
            elif self.at > start and self.is_op("^") and self.peek(1).kind in ("num", "op"):
                self.at += 1
                self.group_text()
            elif self.at > start and self.is_op("/") and self.peek(1).kind in ("word", "text"):
                self.at += 2
            elif self.at > start and self.is_op("."):
                self.at += 1
            else:
                break
        raw = " ".join(token.value for token in self.tokens[start : self.at])
        return canonical_unit(raw.replace("\\$", "dollar").replace("$", "dollar"))

    # -- sets --------------------------------------------------------------------------------

    def set_expression(self) -> Node:
        """expression (cup expression)*"""
        node = self.expression()
        while self.peek().kind == "cmd" and self.peek().value in SET_OPERATIONS:
            operation = SET_OPERATIONS[self.take().value]
            node = Node(operation, (node, self.expression()))
        return node

    def bracketed(self, opening: str) -> Node:
        """A parenthesis, interval, tuple or set; the opening sign has been taken."""
        self.deeper()
        bars, self.bars = self.bars, 0
        builder = self.builder() if opening == "\\{" else None
        parts: list[Node] = [] if builder is None else [builder]
        closers = (")", "]", "\\}", "}")
        while builder is None and not self.is_op(*closers):
            if self.is_op(",", ";"):
                self.at += 1
                continue
            for part in self.split_number() or [self.relation()]:
                parts.append(part)
            if not self.is_op(",", ";", *closers):
                raise NotReadError(f"unclosed {opening}")
        if self.peek().kind == "end":
            raise NotReadError(f"unclosed {opening}")
        closing = self.take().value
        self.bars = bars
        self.depth -= 1
        if opening == "\\{" and closing in ("\\}", "}"):
            return builder or Node("set", tuple(parts))
        if not parts:
            raise NotReadError("empty brackets")
        if opening == "{" and closing == "}":
            return parts[0] if len(parts) == 1 else Node("group", tuple(parts), "{}")
        if opening not in ("(", "[") or closing not in (")", "]"):
            raise NotReadError(f"{opening} closed by {closing}")
        if len(parts) == 1:
            return parts[0]
        return Node("group", tuple(parts), opening + closing)

    def split_number(self) -> list[Node] | None:
        """In brackets `100,200` are two numbers, `1 000` is one."""
        token = self.peek()
        following = self.peek(1)
        if token.kind != "num" or "," not in token.value:
            return None
        if following.kind != "op" or following.value not in (",", ";", ")", "]", "\\}", "}"):
            return None
        self.at += 1
        return [_number(part) for part in token.value.split(",")]

    def builder(self) -> Node | None:
        r"""`\{x \mid condition\}` is its condition; None where no builder stands here."""
        ahead = 1
        if self.peek().kind not in ("word", "cmd"):
            return None
        if self.peek(ahead).kind == "cmd" and self.peek(ahead).value == "in":
            while ahead < 8 and self.peek(ahead).value not in ("mid", "|", ":"):
                ahead += 1
        sign = self.peek(ahead)
        if sign.value not in ("mid", "|", ":"):
            return None
        self.at += ahead + 1
        condition = self.relation()
        if not self.is_op("\\}", "}"):
            raise NotReadError("a set builder with several conditions")
        return condition

    # -- scalars -----------------------------------------------------------------------------

    def expression(self) -> Node:
        """[sign] term (sign term)*"""
        self.deeper()
        terms = [self.signed()]
        while self.is_op("+", "-") or self.is_cmd("pm", "mp"):
            terms.append(self.signed())
        node = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
        if self.is_cmd("choose"):
            self.at += 1
            node = Node("call", (node, self.expression()), "binomial")
        self.depth -= 1
        return node

    def signed(self) -> Node:
        wrappers = []
        while self.is_op("+", "-") or self.is_cmd("pm", "mp"):
            sign = self.take().value
            if sign != "+":
                wrappers.append({"-": "neg", "pm": "pm", "mp": "mp"}[sign])
        if self.is_op("*"):  # `\pm*sqrt(19)`, as programs print it
            self.at += 1
        node = self.term()
        for wrapper in reversed(wrappers):
            if wrapper == "neg" and node.op == "num" and node.number is not None:
                node = number(-node.number, node.places)
            else:
                node = Node(wrapper, (node,))
        while self.is_cmd("bmod", "mod", "pmod") or (
            self.peek().kind == "word" and self.peek().value == "mod"
        ):
            self.at += 1
            negative = self.is_op("-")
            self.at += negative
            modulus = self.term()
            if negative:
                modulus = Node("neg", (modulus,))
            node = Node("call", (node, modulus), "mod")
        return node

    def term(self) -> Node:
        """factor (times factor | over factor | factor)*; a product without sign binds tighter."""
        node = self.product()
        while True:
            if self.is_op("*") or self.is_cmd("cdot", "times", "ast", "star"):
                self.at += 1
                node = _multiply(node, self.signed_factor())
            elif self.is_op("/") or self.is_cmd("div", "over"):
                self.at += 1
                if self.is_op("/"):
                    raise NotReadError("//")
                node = Node("div", (node, self.signed_factor()))
                while self.loose and self.starts_factor():
                    node = _multiply(node, self.power())
            else:
                return node

    def signed_factor(self) -> Node:
        if self.is_op("-"):
            self.at += 1
            return Node("neg", (self.signed_factor(),))
        if self.is_op("+"):
            self.at += 1
        return self.power() if self.loose else self.product()

    def product(self) -> Node:
        """factor factor ... without a sign between them."""
        node = self.power()
        while self.starts_factor():
            mixed = _mixed_number(node, self)
            node = mixed if mixed is not None else _multiply(node, self.power())
        return node

    def starts_factor(self) -> bool:
        """Whether a factor may start here without a sign of multiplication."""
        token = self.peek()
        if token.kind == "num":
            return True
        if token.kind == "word":
            return token.value not in ("and", "or", "mod", "if", "for") and not _follows_number(
                token
            )
        if token.kind == "op":
            if token.value == "|":
                return self.bars == 0
            return token.value in ("(", "[", "{", "\\{", "\\|")
        if token.kind != "cmd" or token.value in RELATIONS or token.value in SET_OPERATIONS:
            return False
        return token.value not in {
            *names(
                "pm mp cdot times ast star div over bmod mod pmod choose end mid rfloor rceil "
                "rvert "
                "rangle"
            ),
            *names("rbrace rVert circ"),
        }

    def power(self) -> Node:
        """atom [^ exponent] postfix*"""
        self.deeper()
        node = self.postfix(self.atom())
        if self.is_op("^", "**"):
            self.at += 1
            if self.is_cmd("circ", "degree") or self.at_circle():
                self.skip_circle()
                node = self.degrees(node)
            elif self.is_op("'") or self.is_cmd("prime"):
                self.at += 1
                node = Node("call", (node,), "prime")
            elif stars := self.conjugations():
                for _ in range(stars):
                    node = Node("call", (node,), "dagger")
            else:
                node = self.inverse(node) or Node("pow", (node, self.exponent()))
            node = self.postfix(node)
            if self.is_op("^", "**"):
                return self.power_of(node)
        self.depth -= 1
        return node

    def inverse(self, node: Node) -> Node | None:
        r"""`f^{-1}(x)`: the inverse function's value, not a power."""
        start = self.at
        if node.op != "sym" or node.name not in _FUNCTION_LETTERS:
            return None
        if self.exponent() == number(-1) and self.is_op("("):
            return self.symbol(f"{node.name}^-1")
        self.at = start
        return None

    def conjugations(self) -> int:
        r"""How many stars or daggers stand as exponent (`A^{\ast\ast}`, `A^H`); 0 where none
        does."""
        start = self.at
        braced = self.is_op("{")
        self.at += braced
        stars = 0
        while self.is_cmd("ast", "star", "dagger") or self.is_op("*", "**"):
            stars += len(self.take().value) if self.is_op("*", "**") else bool(self.take())
        if not stars and self.peek().value in ("H", "dagger"):
            self.at, stars = self.at + 1, 1
        if stars and (not braced or self.is_op("}")):
            self.at += braced
            return stars
        self.at = start
        return 0

    def power_of(self, node: Node) -> Node:
        """`30^{2}^\\circ` and the like: only a degree sign may follow a power."""
        self.at += 1
        if not (self.is_cmd("circ", "degree") or self.at_circle()):
            raise NotReadError("a double power")
        self.skip_circle()
        self.depth -= 1
        return self.degrees(node)

    def degrees(self, node: Node) -> Node:
        """Degrees are an angle inside a function, and a unit elsewhere."""
        if self.calls:
            return Node("mul", (node, Node("div", (Node("sym", name="pi"), number(180)))))
        if self.peek().kind == "word" and self.peek().value in ("C", "F"):
            self.at += 1
        return Node("unit", (node,), "degree")

    def at_circle(self) -> bool:
        return self.is_op("{") and self.peek(1).value in ("circ", "degree")

    def skip_circle(self) -> None:
        if self.is_op("{"):
            self.at += 2
            self.expect("}")
        else:
            self.at += 1

    def exponent(self) -> Node:
        if self.is_op("{"):
            self.at += 1
            return self.bracketed("{")
        if self.is_op("-", "+"):
            negative = self.take().value == "-"
            inner = self.exponent()
            return Node("neg", (inner,)) if negative else inner
        node = self.atom()
        if self.is_op("^", "**") and not self.at_circle_after_power():
            self.at += 1
            node = Node("pow", (node, self.exponent()))
        return node

    def at_circle_after_power(self) -> bool:
        following = self.peek(1)
        return following.value in ("circ", "degree") or (
            following.value == "{" and self.peek(2).value in ("circ", "degree")
        )

    def postfix(self, node: Node) -> Node:
        while True:
            if self.is_op("!"):
                self.at += 1
                node = Node("call", (node,), "factorial")
            elif self.is_op("'") and node.op == "sym":
                self.at += 1
                node = Node("sym", name=node.name + "'")
            elif self.is_op("\\%", "%") and self.continues(1):
                self.at += 1
                node = Node("div", (node, number(100)))
            else:
                return node

    def continues(self, ahead: int) -> bool:
        """Whether arithmetic goes on after `ahead` tokens: there a percent sign is a factor."""
        token = self.peek(ahead)
        return token.kind == "num" or (
            token.value in ("+", "-", "*", "/", "cdot", "times", "of") and token.kind != "end"
        )

    def atom(self) -> Node:
        token = self.take()
        if token.kind == "num":
            return self.numeral(token)
        if token.kind == "word":
            return self.letters(token)
        if token.kind == "cmd":
            return self.command(token.value)
        if token.kind == "op" and token.value in _CLOSERS:
            return self.bracketed(token.value)
        if token.kind == "op" and token.value in ("|", "\\|"):
            return self.absolute(token.value)
        if token.value == "\\$":
            return self.atom()
        raise NotReadError(f"unexpected {token.value!r}")

    def numeral(self, token: Token) -> Node:
        node = _number(token.value)
        if self.is_op("_"):
            self.at += 1
            base = self.group_text()
            if not (base.isascii() and base.isdigit()) or not 2 <= int(base[:3]) <= 36:
                raise NotReadError("a number with a subscript that is no base")
            return Node("based", name=token.value, number=Fraction(int(base)))
        return node

    def absolute(self, sign: str) -> Node:
        self.deeper()
        self.bars += 1
        inner = self.expression()
        self.expect(sign)
        self.bars -= 1
        self.depth -= 1
        return Node("call", (inner,), "abs")

    # -- names -------------------------------------------------------------------------------

    def letters(self, token: Token) -> Node:
        """A run of letters: a known name, or one letter after the other."""
        text = token.value
        if text in _EXTERNAL and self.is_op("(", "."):
            return self.external(text)
        if text in ("frac", "sqrt") and self.is_op("{"):
            return self.command(text)
        if text in _ACCENTS and self.is_op("{"):
            return self.command(text)
        if self.program and text == "E":
            return self.symbol("e")
        name = _NAME.match(text)
        if (text in FUNCTIONS and self.is_op("(")) or text in CONSTANTS:
            head = text
        elif name is not None:
            head = name[0]
        else:
            head = text[0]
        if len(head) < len(text):
            self.at -= 1
            self.tokens[self.at] = Token("word", text[len(head) :], False)
        if head in FUNCTIONS:
            return self.function(FUNCTIONS[head])
        if head == "I" and not self.is_op("_"):
            return Node("sym", name="i")
        return self.symbol(CONSTANTS.get(head, head))

    def index(self) -> Node | None:
        """A subscript that is an expression (`a_{n+1}`), None where it is a mere name."""
        ahead = 1
        if self.peek().value != "{":
            return None
        while self.peek(ahead).value not in ("}", ""):
            ahead += 1
        values = {self.peek(index).value for index in range(1, ahead)}
        if not values & {"+", "-", "^", "**", "*", "/"} or "{" in values:
            return None
        start = self.at
        self.at += 1
        try:
            node = self.expression()
            self.expect("}")
        except NotReadError:  # then it is a name with signs in it
            self.at = start
            return None
        return node

    def symbol(self, name: str) -> Node:
        """A symbol with its subscript and primes, or a call of a function letter."""
        if self.is_op("_"):
            self.at += 1
            if (index := self.index()) is not None:
                return Node("call", (index,), f"fn:{name}_")
            name = f"{name}_{self.group_text()}"
        primes = 0
        while self.is_op("'"):
            self.at += 1
            primes += 1
        if self.is_op("_"):
            self.at += 1
            name = f"{name}_{self.group_text()}"
        name += "'" * primes
        if self.is_op("(") and re.split(r"[_^']", name)[0] in _FUNCTION_LETTERS:
            self.at += 1
            inner = self.bracketed("(")
            args = inner.args if inner.op == "group" else (inner,)
            return Node("call", args, "fn:" + name)
        return Node("sym", name=name)

    def group_text(self) -> str:
        """The raw text of a subscript, blanks and braces removed."""
        token = self.take()
        if token.kind == "end":
            raise NotReadError("an empty subscript")
        if token != Token("op", "{", token.spaced):
            return token.value
        pieces, depth = [], 1
        while depth:
            token = self.take()
            if token.kind == "end":
                raise NotReadError("an unclosed subscript")
            depth += {"{": 1, "}": -1}.get(token.value, 0) if token.kind == "op" else 0
            if token.kind != "op" or token.value not in "{}":
                pieces.append(token.value)
        return "".join(pieces)

    def command(self, name: str) -> Node:
        r"""What a `\name` stands for."""
        if name in _UNREAD:
            raise NotReadError(f"\\{name}")
        if name == "frac" and (derivative := self.derivative()) is not None:
            return derivative
        if name == "frac":
            top, bottom = self.single(), self.single()
            return Node("div", (top, bottom))
        if name in ("binom", "choose"):
            return Node("call", (self.single(), self.single()), "binomial")
        if name == "begin":
            return self.matrix()
        if name in ("sum", "prod"):
            return self.bound(name)
        if name == "lim":
            return self.limit()
        if name == "int":
            return self.integral()
        if name in ("mathbb", "mathcal", "Bbb"):
            letter = self.group_text()
            return Node("sym", name=NAMED_SETS.get(letter, letter))
        pairs = {"lvert": "rvert", "lVert": "rVert", "lfloor": "rfloor", "lceil": "rceil"}
        if name in pairs:
            return self.fenced(name, pairs[name])
        if name == "langle":
            return self.vector()
        if name == "lbrace":
            return self.bracketed("\\{")
        if name in _ACCENTS:
            return self.accented("bar" if name == "overline" else name)
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in CONSTANTS or name in GREEK:
            return self.symbol(CONSTANTS.get(name, name))
        if name in ("prime", "circ", "end", "text", "hline") or name in RELATIONS:
            raise NotReadError(f"\\{name}")
        return self.symbol("\\" + name)

    def single(self) -> Node:
        r"""One argument of a command: a group, or the next digit or sign (`\frac12`)."""
        token = self.peek()
        if (
            token.kind == "num"
            and len(token.value) > 1
            and (token.value.isascii() and token.value.isdigit())
        ):
            self.tokens[self.at] = Token("num", token.value[1:], False)
            return _number(token.value[0])
        if self.is_op("{"):
            self.at += 1
            return self.bracketed("{")
        if token.kind == "word" and len(token.value) > 1:
            self.tokens[self.at] = Token("word", token.value[1:], False)
            return Node("sym", name=token.value[0])
        return self.atom()

    def accented(self, accent: str) -> Node:
        """A name with an accent; a bar over an expression is its conjugate."""
        if accent == "bar" and self.is_op("{") and self.peek(2).value != "}":
            self.at += 1
            return Node("call", (self.bracketed("{"),), "conj")
        return self.symbol(f"{accent}({self.group_text()})")

    def derivative(self) -> Node | None:
        r"""`\frac{d}{dx} f` and `\frac{df}{dx}`; None where the fraction is none of the two."""
        start = self.at
        top = self.peek(1)
        if not self.is_op("{") or top.kind != "word" or top.value[0] != "d":
            return None
        try:
            self.at += 2
            body = None
            if len(top.value) > 1:
                self.at -= 1
                self.tokens[self.at] = Token("word", top.value[1:], False)
            if not self.is_op("}"):
                body = self.expression()
            self.expect("}")
            self.expect("{")
            variable = self.differential()
            self.expect("}")
        except NotReadError:
            variable = None
        if variable is None:
            self.at = start
            self.tokens[start + 1] = top
            return None
        return Node("bound", (body if body is not None else self.term(), variable), "diff")

    def differential(self) -> Node | None:
        """`dx` or `d\\theta` at this place, as the variable."""
        token = self.peek()
        if token.kind != "word" or token.value[0] != "d" or len(token.value) > 2:
            return None
        self.at += 1
        if len(token.value) == 2:
            return Node("sym", name=token.value[1])
        return self.atom()

    def limit(self) -> Node:
        r"""`\lim_{x \to 3^+} body`: body, variable, place; the side is part of the name."""
        self.expect("_")
        self.expect("{")
        variable = self.atom()
        if self.relation_sign() != "->" or variable.op != "sym":
            raise NotReadError("\\lim without an arrow")
        place, side = self.term_or_signed(), ""
        if self.is_op("^"):
            raise NotReadError("\\lim with a power")
        if self.is_op("+", "-"):
            side = self.take().value
        self.expect("}")
        body = self.term()
        return Node("bound", (body, variable, place), "lim-" if side == "-" else "lim")

    def term_or_signed(self) -> Node:
        """A limit's place, whose side (`3^+`, `3^{-}`) is left standing."""
        negative = self.is_op("-")
        self.at += negative
        node = self.atom()
        if self.is_op("^") and self.peek(1).value in ("+", "-"):
            self.at += 1
        elif self.is_op("^") and self.peek(2).value in ("+", "-") and self.peek(3).value == "}":
            self.at += 1
            self.tokens[self.at : self.at + 3] = [self.peek(1)]
        return Node("neg", (node,)) if negative else node

    def integral(self) -> Node:
        r"""`\int_a^b body dx`: body, variable, and the bounds where there are some."""
        bounds: dict[str, Node] = {}
        while self.is_op("_", "^"):
            sign = self.take().value
            bounds[sign] = self.limit_value()
        end = self.at
        depth = 0
        while end < len(self.tokens):
            token = self.tokens[end]
            depth += (token.value in ("{", "(")) - (token.value in ("}", ")"))
            if token.kind == "word" and depth == 0 and token.value[-2:-1] == "d":
                break
            if token.kind == "word" and depth == 0 and token.value == "d":
                break
            end += 1
        if end >= len(self.tokens):
            raise NotReadError("\\int without a differential")
        word = self.tokens[end].value
        lead = word[:-1] if word == "d" else word[:-2]
        tail = word[len(lead) :]
        inner = self.tokens[self.at : end] + ([Token("word", lead, False)] if lead else [])
        self.at = end
        self.tokens[end] = Token("word", tail, False)
        variable = self.differential()
        body = number(1)
        if inner:
            reader = _Reader(inner, self.loose)
            body = reader.expression()
            if reader.peek().kind != "end":
                raise NotReadError("\\int of something else")
        if variable is None:
            raise NotReadError("\\int without a variable")
        return Node("bound", (body, variable, *(bounds[s] for s in "_^" if s in bounds)), "int")

    def fenced(self, opening: str, closing: str) -> Node:
        self.deeper()
        bars, self.bars = self.bars, 0
        inner = self.expression()
        if not self.is_cmd(closing):
            raise NotReadError(f"unclosed \\{opening}")
        self.at += 1
        self.bars = bars
        self.depth -= 1
        name = {"lfloor": "floor", "lceil": "ceil"}.get(opening, "abs")
        return Node("call", (inner,), name)

    def vector(self) -> Node:
        parts = [self.relation()]
        while self.is_op(",", ";"):
            self.at += 1
            parts.append(self.relation())
        if not self.is_cmd("rangle"):
            raise NotReadError("unclosed \\langle")
        self.at += 1
        return Node("group", tuple(parts), "()")

    def function(self, name: str) -> Node:
        r"""A known function with its argument: `\sin x`, `\sin^2 x`, `\log_2 x`, `sqrt(2)`."""
        self.deeper()
        self.calls += 1
        base = power = None
        for _ in range(2):
            if self.is_op("_"):
                self.at += 1
                base = self.single()
            elif self.is_op("^", "**") and power is None:
                self.at += 1
                power = self.exponent()
        root = self.root() if name == "sqrt" else None
        if name in ("sqrt", "cbrt") and not self.is_op("(", "{"):
            args: tuple[Node, ...] = (self.power_without_sign(),)
        else:
            args = self.arguments(name)
        self.calls -= 1
        self.depth -= 1
        return _apply(name, args, base, power, root)

    def root(self) -> Node | None:
        if not self.is_op("["):
            return None
        self.at += 1
        inner = self.expression()
        self.expect("]")
        return inner

    def power_without_sign(self) -> Node:
        r"""What `\sqrt` without braces takes: a whole number or one letter."""
        token = self.peek()
        if token.kind == "word" and len(token.value) > 1 and _NAME.match(token.value) is None:
            return self.single()
        return self.atom()

    def arguments(self, name: str) -> tuple[Node, ...]:
        if self.is_op("(", "{", "["):
            opening = self.take().value
            inner = self.bracketed(opening)
            if inner.op == "group" and inner.name in ("()", "{}", "[]"):
                return inner.args
            # `\sin(x)^2` is the square of the sine; `\log(x) y` is a product.
            return (inner,)
        if name not in PREFIX_FUNCTIONS and name not in ("abs", "re", "im"):
            raise NotReadError(f"{name} without an argument")
        node = self.power()
        while self.starts_factor() and not self.at_function():
            node = _multiply(node, self.power())
        return (node,)

    def at_function(self) -> bool:
        token = self.peek()
        return (
            token.value in FUNCTIONS
            or (
                token.kind == "word"
                and (match := _NAME.match(token.value)) is not None
                and match[0] in FUNCTIONS
            )
            or (token.kind == "op" and token.value in ("(", "["))
        )

    # -- larger things -----------------------------------------------------------------------

    def matrix(self) -> Node:
        name = self.group_text()
        if name not in _MATRICES:
            raise NotReadError(f"environment {name}")
        if name == "array" and self.is_op("{"):
            self.group_text()
        self.deeper()
        rows: list[list[Node]] = [[]]
        while not self.is_cmd("end"):
            if self.peek().kind == "end":
                raise NotReadError(f"unclosed {name}")
            if self.is_op("&"):
                self.at += 1
            elif self.is_op("\\\\"):
                self.at += 1
                rows.append([])
            elif self.is_cmd("hline"):
                self.at += 1
            else:
                rows[-1].append(self.relation())
        self.at += 1
        self.group_text()
        self.depth -= 1
        kept = tuple(Node("row", tuple(row)) for row in rows if row)
        if not kept or len({len(row.args) for row in kept}) != 1:
            raise NotReadError("rows of different lengths")
        matrix = Node("matrix", kept)
        if name == "vmatrix":
            return Node("call", (matrix,), "det")
        return matrix

    def bound(self, name: str) -> Node:
        r"""`\sum_{k=0}^{n} body`: name, body, variable, from, to."""
        upper: Node | None = None
        if self.is_op("^"):
            self.at += 1
            upper = self.limit_value()
        self.expect("_")
        self.expect("{")
        start = self.relation()
        self.expect("}")
        if start.op != "chain" or start.name != "=" or start.args[0].op != "sym":
            raise NotReadError(f"\\{name} over a condition")
        if upper is None:
            self.expect("^")
            upper = self.limit_value()
        self.deeper()
        body = self.term()
        self.depth -= 1
        return Node("bound", (body, start.args[0], start.args[1], upper), name)

    def transposed(self, node: Node) -> Node:
        """`Matrix(...).T`."""
        if self.is_op(".") and self.peek(1).value == "T":
            self.at += 2
            return Node("pow", (node, Node("sym", name="T")))
        return node

    def external_limit(self) -> Node:
        """`Limit(f, x, 3, dir='-')` after its parenthesis."""
        args = [self.relation()]
        while self.is_op(",") and self.peek(1).value != "dir":
            self.at += 1
            args.append(self.relation())
        side = ""
        if self.is_op(","):
            start = self.at
            while not self.is_op(")") and self.peek().kind != "end":
                self.at += 1
            side = "".join(token.value for token in self.tokens[start : self.at])
        self.expect(")")
        if len(args) != 3:
            raise NotReadError("Limit")
        # SymPy writes '+-' for both sides and '-' for one at infinity.
        left = side.endswith("'-'") and not any(node.name == "oo" for node in args[2].walk())
        return Node("bound", tuple(args), "lim-" if left else "lim")

    def limit_value(self) -> Node:
        """A bound: a group or one sign; a number's subscript is the other bound, not a base."""
        token = self.peek()
        if token.kind == "num":
            self.at += 1
            return _number(token.value)
        if token.kind == "word" and len(token.value) == 1:
            self.at += 1
            return Node("sym", name=token.value)
        return self.exponent()

    def external(self, text: str) -> Node:
        """SymPy's own spelling of what LaTeX has signs for: `Eq(a, b)`, `Interval.open(0, 1)`."""
        variant = ""
        if self.is_op("."):
            self.at += 1
            variant = self.take().value
        self.expect("(")
        if text == "Limit":
            return self.external_limit()
        inner = self.bracketed("(")
        args = inner.args if inner.op == "group" and inner.name == "()" else (inner,)
        if text in ("Integral", "Derivative", "Sum", "Product"):
            return _external_bound(text, args)
        if text in _EXTERNAL_RELATIONS and len(args) == 2:
            return Node("chain", args, _EXTERNAL_RELATIONS[text])
        if text == "Interval" and len(args) == 2:
            fences = {"": "[]", "open": "()", "Lopen": "(]", "Ropen": "[)"}
            return Node("group", args, fences.get(variant, "[]"))
        if text == "Matrix":
            return self.transposed(_listed_matrix(inner))
        if text in ("Union", "Intersection", "Complement") and len(args) == 2:
            names = {"Union": "union", "Intersection": "intersect", "Complement": "minus"}
            return Node(names[text], args)
        if text == "FiniteSet":
            return Node("set", args)
        raise NotReadError(text)


_EXTERNAL_RELATIONS = {"Eq": "=", "Ne": "!=", "Ge": ">=", "Gt": ">", "Le": "<=", "Lt": "<"}


def _external_bound(text: str, args: tuple[Node, ...]) -> Node:
    """`Integral(f, (x, a, b))` and its kin as the node that LaTeX's spelling gives."""
    name = {"Integral": "int", "Derivative": "diff", "Sum": "sum", "Product": "prod"}[text]
    if len(args) != 2:
        raise NotReadError(text)
    body, over = args
    parts = over.args if over.op == "group" else (over,)
    if parts[0].op != "sym" or (name in ("sum", "prod") and len(parts) != 3):
        raise NotReadError(text)
    return Node("bound", (body, *parts), name)


def _listed_matrix(inner: Node) -> Node:
    """`[[1, 2], [3, 4]]` as a matrix; a row of one element has lost its brackets to the reader."""
    rows = inner.args if inner.op == "group" and inner.name == "[]" else (inner,)
    if all(row.op == "group" and row.name == "[]" for row in rows):
        return Node("matrix", tuple(Node("row", row.args) for row in rows))
    if any(row.op == "group" for row in rows):
        raise NotReadError("rows of different lengths")
    return Node("matrix", tuple(Node("row", (row,)) for row in rows))


def _all_assignments(groups: list[list[Node]]) -> bool:
    return all(item.op == "chain" and item.name == "=" for group in groups for item in group)


def _is_prose(words: list[str]) -> bool:
    """Whether plain letters are words rather than a product of variables."""
    if len(words) > 1:
        return any(len(word) > 2 and word not in FUNCTIONS for word in words)
    word = words[0]
    if word in FUNCTIONS or word in GREEK or word in CONSTANTS or word in _EXTERNAL:
        return False
    if word.lower() in ("no", "on"):
        return True
    if len(word) < 3 or set(word) <= set("abcxyz") or not re.search(r"[aeiouyAEIOUY]", word):
        return False
    return _NAME.match(word) is None or len(word) > 6


def _follows_number(token: Token) -> bool:
    """Whether a plain word that follows a value is a unit or a noun rather than variables."""
    word = token.value
    if is_unit_word(word) and word not in ("in",):
        return True
    return len(word) >= 4 and _NAME.search(word) is None and re.search("[aeiou]", word) is not None


def _number(text: str) -> Node:
    """A number as written, grouping removed."""
    plain = text.replace(",", "").replace(" ", "")
    mantissa, _, exponent = plain.lower().partition("e")
    if exponent and abs(int(exponent)) > MAX_DECIMAL_EXPONENT:
        raise NotReadError("an exponent beyond the cap")
    whole, _, decimals = mantissa.partition(".")
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    if exponent:
        return number(value * Fraction(10) ** int(exponent))
    return number(value, len(decimals))


def _mixed_number(node: Node, reader: _Reader) -> Node | None:
    r"""`2\frac{5}{8}` and `1 1/2` are two and five eighths, one and a half."""
    whole = node.number
    if node.op != "num" or whole is None or whole.denominator != 1 or node.places:
        return None
    start = reader.at
    if reader.is_cmd("frac"):
        reader.at += 1
        top, bottom = reader.single(), reader.single()
    elif (
        reader.peek().kind == "num"
        and reader.peek().spaced
        and reader.peek(1).value == "/"
        and reader.peek(2).kind == "num"
    ):
        top, bottom = _number(reader.peek().value), _number(reader.peek(2).value)
        reader.at += 3
    else:
        if reader.peek().kind == "num":
            raise NotReadError("two numbers side by side")
        return None
    part, whole_part = top.number, bottom.number
    if part is not None and whole_part is not None and 0 < part < whole_part:
        return Node("add", (node, Node("div", (top, bottom))))
    reader.at = start
    if reader.peek().kind == "num":
        raise NotReadError("two numbers side by side")
    return None


def _multiply(left: Node, right: Node) -> Node:
    # In a product, braces around one term are brackets.
    left, right = (
        part.args[0] if part.op == "set" and len(part.args) == 1 else part for part in (left, right)
    )
    args = (*left.args, right) if left.op == "mul" else (left, right)
    return Node("mul", args)


def _apply(
    name: str,
    args: tuple[Node, ...],
    base: Node | None,
    power: Node | None,
    root: Node | None,
) -> Node:
    if name in ("lg",):
        name, base = "log", number(10)
    if name in ("log", "ln") and base is not None:
        args = (*args, base)
    if name == "exp":
        node = Node("pow", (Node("sym", name="e"), *args))
    elif name in ("sqrt", "cbrt"):
        degree = number(3) if name == "cbrt" else root or number(2)
        node = Node("call", (*args, degree), "root")
    elif name == "root":
        node = Node("call", args, "root")
    else:
        node = Node("call", args, name)
    if power is None:
        return node
    if power == number(-1) and name in FUNCTIONS.values() and "a" + name in FUNCTIONS.values():
        return Node("call", args, "a" + name)
    return Node("pow", (node, power))
