r"""The grammar of answers: lists of relations of sums of products.

items -> relation -> operand -> set expression -> expression -> term -> product -> power -> atom
"""

from __future__ import annotations

from still_core.verify.nodes import (
    CONNECTIVES,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    MULTIPLIERS,
    NAMED_SETS,
    RELATIONS,
    SET_OPERATIONS,
    Node,
    NotReadError,
    multiplied,
    names,
    number,
)
from still_core.verify.reading.brackets import (
    read_absolute,
    read_bracketed,
    read_fenced,
    read_vector,
)
from still_core.verify.reading.calculus import (
    read_bound,
    read_derivative,
    read_integral,
    read_limit,
)
from still_core.verify.reading.cursor import SEPARATORS, Cursor
from still_core.verify.reading.functions import conjugated, read_function
from still_core.verify.reading.matrices import read_matrix
from still_core.verify.reading.numerals import mixed_number, number_of, read_numeral
from still_core.verify.reading.powers import read_power
from still_core.verify.reading.symbols import ACCENTS, read_accented, read_letters, read_symbol
from still_core.verify.reading.tokens import Token
from still_core.verify.reading.words import follows_number, read_unit, read_words
from still_core.verify.scalars import free_symbols
from still_core.verify.units import CURRENCIES, canonical_unit

_BRACKETS = {"(": ")", "[": "]", "\\{": "\\}", "{": "}"}
_UNREAD = frozenset(
    names("iint oint partial nabla input write include def let csname immediate char")
)


_NO_FACTORS = frozenset(names("and or mod if for to"))
_ROUGHLY = frozenset(names("approximately approx about roughly nearly around"))
"""Words before a number that say nothing of what it is."""


class Reader(Cursor):
    """Lists, relations, sums and products; the rest has rooms of its own."""

    def items(self) -> list[Node]:
        """All items of the text; groups of assignments become tuples."""
        groups: list[list[Node]] = [[]]
        tied = ""
        while self.peek().kind != "end":
            if self.separates():
                token = self.take()
                tied = CONNECTIVES.get(token.value, "")
                if token.value != "," and groups[-1]:
                    groups.append([])
                continue
            if self.is_op(".") and self.peek(1).kind == "end":
                break
            item = self.relation()
            if tied and (condition := _tied(groups, tied, item)) is not None:
                groups[-2:] = [[condition]]
            else:
                groups[-1].append(item)
            tied = ""
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
            return token.value in SEPARATORS
        return token.value in CONNECTIVES and token.kind in ("word", "text", "cmd")

    def relation(self) -> Node:
        """operand (sign operand)*; a leading equals sign says nothing."""
        if self.peek().value in ("=", "approx", "simeq") or self.peek().value.lower() in _ROUGHLY:
            self.at += 1
        operands, signs = [self.operand()], []
        while (sign := self.relation_sign()) is not None:
            signs.append(sign)
            operands.append(self.operand())
        if not signs:
            return operands[0]
        return Node("chain", tuple(operands), " ".join(signs))

    def relation_sign(self) -> str | None:
        """The relation that stands here, taken; None where none does."""
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
        elif (currency := canonical_unit(self.peek().value)) in CURRENCIES and self.amount(1):
            self.at += 1 + (self.peek(1).value == ".")
            unit = currency
        node = read_words(self) or self.set_expression()
        parts = [node]
        while (self.is_op(":") and self.peek(1).kind != "end") or self.ranges():
            self.at += 1
            parts.append(self.set_expression())
        if len(parts) > 1:
            node = Node("ratio", tuple(parts))
        if (factor := MULTIPLIERS.get(self.peek().value.lower())) is not None:
            self.at += 1
            node = multiplied(node, number(factor))
        unit = read_unit(self) or unit
        self.depth -= 1
        return Node("unit", (node,), unit) if unit and node.op != "words" else node

    def amount(self, ahead: int) -> bool:
        """Whether a number stands after so many tokens and perhaps a point."""
        return self.peek(ahead + (self.peek(ahead).value == ".")).kind == "num"

    def ranges(self) -> bool:
        """Whether "to" stands here between two numbers: `3 to 4` is a ratio."""
        token = self.peek()
        return (
            token.value == "to"
            and token.kind in ("word", "text")
            and self.peek(1).kind == "num"
            and self.peek(-1).kind == "num"
        )

    def set_expression(self) -> Node:
        """expression (cup expression)*"""
        node = self.expression()
        while self.peek().kind == "cmd" and self.peek().value in SET_OPERATIONS:
            operation = SET_OPERATIONS[self.take().value]
            node = Node(operation, (node, self.expression()))
        return node

    def expression(self) -> Node:
        """[sign] term (sign term)*"""
        self.deeper()
        terms = [self.signed()]
        while self.is_op("+", "-") or self.is_cmd("pm", "mp"):
            terms.append(self.signed())
        node = terms[0] if len(terms) == 1 else _difference_of_sets(terms)
        if self.is_cmd("choose"):
            self.at += 1
            node = Node("call", (node, self.expression()), "binomial")
        self.depth -= 1
        return node

    def signed(self) -> Node:
        """[sign ...] term [mod term]"""
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
                node = multiplied(node, self.signed_factor())
            elif self.is_op("/") or self.is_cmd("div", "over"):
                self.at += 1
                if self.is_op("/"):
                    raise NotReadError("//")
                node = Node("div", (node, self.signed_factor()))
                while self.loose and self.starts_factor():
                    node = multiplied(node, read_power(self))
            else:
                return node

    def signed_factor(self) -> Node:
        """[sign ...] factor, after a sign of multiplication or division."""
        if self.is_op("-"):
            self.at += 1
            return Node("neg", (self.signed_factor(),))
        if self.is_op("+"):
            self.at += 1
        return read_power(self) if self.loose else self.product()

    def product(self) -> Node:
        """factor factor ... without a sign between them."""
        node = read_power(self)
        while self.starts_factor():
            mixed = mixed_number(node, self)
            node = mixed if mixed is not None else multiplied(node, read_power(self))
        return node

    def starts_factor(self) -> bool:
        """Whether a factor may start here without a sign of multiplication."""
        token = self.peek()
        if token.kind == "num":
            return True
        if token.kind == "word":
            return token.value not in _NO_FACTORS and not follows_number(token)
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
            *names("rbrace rVert circ wedge land vee lor"),
        }

    def atom(self) -> Node:
        """A number, a name, a command or something in brackets."""
        token = self.take()
        if token.kind == "num":
            return read_numeral(self, token)
        if token.kind == "word":
            return read_letters(self, token)
        if token.kind == "cmd":
            return self.command(token.value)
        if token.kind == "op" and token.value in _BRACKETS:
            return read_bracketed(self, token.value)
        if token.kind == "op" and token.value in ("|", "\\|"):
            return read_absolute(self, token.value)
        if token.value == "\\$":
            return self.atom()
        raise NotReadError(f"unexpected {token.value!r}")

    def command(self, name: str) -> Node:
        r"""What a `\name` stands for."""
        if name in _UNREAD:
            raise NotReadError(f"\\{name}")
        if name == "frac" and (derivative := read_derivative(self)) is not None:
            return derivative
        if name == "frac":
            top, bottom = self.single(), self.single()
            return Node("div", (top, bottom))
        if name in ("binom", "choose"):
            return Node("call", (self.single(), self.single()), "binomial")
        if name == "begin":
            return read_matrix(self)
        if name in ("sum", "prod"):
            return read_bound(self, name)
        if name == "lim":
            return read_limit(self)
        if name == "int":
            return read_integral(self)
        if name in ("mathbb", "mathcal", "Bbb"):
            return self.named_set(self.group_text())
        pairs = {"lvert": "rvert", "lVert": "rVert", "lfloor": "rfloor", "lceil": "rceil"}
        if name in pairs:
            return read_fenced(self, name, pairs[name])
        if name == "langle":
            return read_vector(self)
        if name == "lbrace":
            return read_bracketed(self, "\\{")
        if name in ACCENTS:
            return read_accented(self, "bar" if name == "overline" else name)
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in CONSTANTS or name in GREEK:
            return read_symbol(self, CONSTANTS.get(name, name))
        if name in ("prime", "circ", "end", "text", "hline") or name in RELATIONS:
            raise NotReadError(f"\\{name}")
        return read_symbol(self, "\\" + name)

    def function(self, name: str) -> Node:
        """A known function with its argument, for names that turn out to be one."""
        return read_function(self, name)

    def conjugate(self, node: Node) -> Node:
        """The conjugate of an expression under a bar."""
        return conjugated(node)

    def named_set(self, letter: str) -> Node:
        r"""`\mathbb{R}` and its halves, `\mathbb{R}^+` and `\mathbb{R}_{-}`."""
        start = self.at
        if letter == "R" and self.is_op("^", "_"):
            self.at += 1
            sign = self.group_text()
            zero, far = number(0), Node("sym", name="oo")
            if sign == "+":
                return Node("group", (zero, far), "()")
            if sign == "-":
                return Node("group", (Node("neg", (far,)), zero), "()")
            self.at = start
        return Node("sym", name=NAMED_SETS.get(letter, letter))

    def single(self) -> Node:
        r"""One argument of a command: a group, or the next digit or sign (`\frac12`)."""
        token = self.peek()
        if (
            token.kind == "num"
            and len(token.value) > 1
            and (token.value.isascii() and token.value.isdigit())
        ):
            self.tokens[self.at] = Token("num", token.value[1:], False)
            return number_of(token.value[0])
        if self.is_op("{"):
            self.at += 1
            return read_bracketed(self, "{")
        if token.kind == "word" and len(token.value) > 1:
            self.tokens[self.at] = Token("word", token.value[1:], False)
            return Node("sym", name=token.value[0])
        return self.atom()


def _all_assignments(groups: list[list[Node]]) -> bool:
    return all(item.op == "chain" and item.name == "=" for group in groups for item in group)


_ORDER = frozenset({"<", ">", "<=", ">=", "!="})


def _is_condition(node: Node) -> bool:
    return node.op == "chain" and set(node.name.split()) <= _ORDER


def _tied(groups: list[list[Node]], connective: str, item: Node) -> Node | None:
    """Two conditions tied by "and" or "or" as one; None where one is something else."""
    before = groups[-2][-1] if len(groups) > 1 and not groups[-1] and groups[-2] else None
    if before is None or len(groups[-2]) > 1 or not _is_condition(item):
        return None
    if not (_is_condition(before) or before.op in ("both", "union")):
        return None
    if len(free_symbols(before) | free_symbols(item)) != 1:
        return None
    return Node("both" if connective == "and" else "union", (before, item))


def _difference_of_sets(terms: list[Node]) -> Node:
    r"""`\mathbb{R} - \{1\}` takes members away; anything else is a sum."""
    first, rest = terms[0], terms[1:]
    named = first.op == "sym" and first.name in NAMED_SETS.values()
    if named and all(term.op == "neg" and term.args[0].op in ("set", "group") for term in rest):
        return Node("minus", (first, *(term.args[0] for term in rest)))
    return Node("add", tuple(terms))
