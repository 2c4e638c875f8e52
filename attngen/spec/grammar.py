"""From an expression's text to its tree: Python's grammar by ``ast``, every construct checked against a whitelist."""

from __future__ import annotations

import ast
import math
import re
from typing import Literal

from attngen.errors import AttngenError, did_you_mean, one_line, one_of
from attngen.spec.nodes import (
    MATH_FUNCTIONS,
    SCORE,
    Binary,
    Boolean,
    Call,
    Compare,
    Logic,
    Name,
    Node,
    Not,
    Number,
    Scalar,
    Select,
    Tensor,
    Unary,
)

Role = Literal["mask", "score"]

POSITIONS = ("i", "j", "h", "b")  # query position, key position, query head, batch
CONSTANTS = {"inf": math.inf, "pi": math.pi}
FUNCTIONS = (*MATH_FUNCTIONS, "abs", "floor", "min", "max", "where")
OP_NAMES = (  # keywords and tensors of an op
    "q k v o out lse batch seq_q seq_k head heads kv head_dim layer layers kind sink alibi_slopes prefix offsets "
    "q_scale k_scale v_scale key_range cu_seqlens_q cu_seqlens_k max_seqlen_q max_seqlen_k blocks indices "
    "block_table scale softmax_scale return_lse config dtype device self wanted dout dq dk dv dlse dsink row_log_sum "
    "row_delta"
)
RESERVED = frozenset(OP_NAMES.split())  # an expression's argument cannot take these names
SUMS = re.compile(r"d(row|column|element)_\d+")  # nor these, which a backward pass takes

MAX_CHARACTERS = 1000
MAX_DEPTH = 64
MAX_ARGUMENTS = 16
MAX_NAME = 40
MAX_RANK = 4
MAX_INTEGER = 2**31 - 1
MAX_EXPONENT = 16


class ExpressionError(AttngenError):
    """An expression that is not accepted; ``column`` counts from 0 in its text."""

    def __init__(self, problem: str, remedy: str, column: int) -> None:
        super().__init__(problem, remedy, column)
        self.problem = one_line(problem)
        self.remedy = one_line(remedy)
        self.column = column

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}"


ARITHMETIC = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**"}
COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}
INSTEAD_OF = {  # operators of Python left out, and what to write instead
    ast.BitAnd: ("'&'", "write 'and'"),
    ast.BitOr: ("'|'", "write 'or'"),
    ast.BitXor: ("'^'", "write '**' for a power, '!=' for one of two"),
    ast.LShift: ("'<<'", "multiply by a power of two"),
    ast.RShift: ("'>>'", "divide with '//'"),
    ast.MatMult: ("'@'", "write '*'"),
    ast.Invert: ("'~'", "write 'not'"),
    ast.Is: ("'is'", "write '=='"),
    ast.IsNot: ("'is not'", "write '!='"),
    ast.In: ("'in'", "compare with '==' and 'or'"),
    ast.NotIn: ("'not in'", "compare with '!=' and 'and'"),
}
GRAMMAR = "it is made of numbers, names, tensor[...], arithmetic, comparisons, and/or/not, if/else and functions"
EXAMPLES = {"mask": "i - j < 128", "score": "s * 0.5"}


def parse_tree(text: str, role: Role) -> tuple[str, Node]:
    """The normal form of an expression and its tree; ExpressionError when it is not one of the language."""
    check_length(len(text), role)
    for column, character in enumerate(text):
        if not (character.isascii() and (character.isprintable() or character in "\t\r\n")) or character in "#\\":
            raise ExpressionError(f"character {character!a} in an expression", GRAMMAR, column)
    flat = "".join(" " if character in "\t\r\n" else character for character in text)
    source = flat.lstrip()
    indent = len(flat) - len(source)
    if not source:
        raise ExpressionError(f"the {role} expression is empty", f"'{EXAMPLES[role]}' is one", 0)
    try:
        parsed = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        column = error.offset - 1 if error.offset and error.offset <= len(source) else len(source)
        problem = f"the {role} expression is not arithmetic that can be read"
        raise ExpressionError(problem, f"'{EXAMPLES[role]}' is one that can", indent + column) from None
    except (RecursionError, MemoryError):
        raise _too_deep(indent) from None
    tree = _Converter(role, indent).top(parsed)
    normal = ast.unparse(parsed)
    check_length(len(normal), role)
    return normal, tree


def check_length(characters: int, role: Role) -> None:
    if characters > MAX_CHARACTERS:
        problem = f"the {role} expression has {characters} characters"
        raise ExpressionError(problem, f"at most {MAX_CHARACTERS} would be right", 0)


def _too_deep(column: int) -> ExpressionError:
    return ExpressionError(f"the expression is nested more than {MAX_DEPTH} deep", "split or shorten it", column)


def _kind_of(node: Node) -> str:
    return "a condition" if node.type == "bool" else "a number"


class _Converter:
    """Turns Python's tree into ours, node by node, refusing whatever is not listed."""

    def __init__(self, role: Role, indent: int) -> None:
        self.role = role
        self.indent = indent
        self.ranks: dict[str, int] = {}  # argument name -> rank, 0 for a scalar

    def error(self, at: ast.expr, problem: str, remedy: str) -> ExpressionError:
        return ExpressionError(problem, remedy, self.indent + at.col_offset)

    def top(self, parsed: ast.expr) -> Node:
        tree = self.convert(parsed, 0)
        if self.role == "mask" and tree.type != "bool":
            raise self.error(
                parsed, "a mask must be a condition, and this is a number", "compare it: '... != 0', for example"
            )
        if self.role == "score" and tree.type == "bool":
            raise self.error(
                parsed, "a score must be a number, and this is a condition", "where(condition, s, -inf) is one"
            )
        return tree

    def convert(self, at: ast.expr, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _too_deep(self.indent + at.col_offset)
        method = getattr(self, f"from_{type(at).__name__}", None)  # the whitelist: the from_ methods below
        if method is None:
            raise self.error(at, f"{_describe(at)} is not part of the expression language", GRAMMAR)
        return method(at, depth + 1)

    def number(self, at: ast.expr, depth: int, where: str) -> Node:
        node = self.convert(at, depth)
        if node.type == "bool":
            raise self.error(at, f"{where} is a condition", "turn it into a number with where(condition, 1, 0)")
        return node

    def condition(self, at: ast.expr, depth: int, where: str) -> Node:
        node = self.convert(at, depth)
        if node.type != "bool":
            raise self.error(at, f"{where} is a number", "compare it: '... != 0', for example")
        return node

    def from_Constant(self, at: ast.Constant, depth: int) -> Node:
        value = at.value
        if isinstance(value, bool):
            return Boolean(value)
        if isinstance(value, int) and value <= MAX_INTEGER:
            return Number(value)
        if isinstance(value, float) and math.isfinite(value):
            return Number(value)
        if isinstance(value, (int, float)):
            raise self.error(at, "a number too large", f"integers go to {MAX_INTEGER}, and 'inf' is infinity")
        raise self.error(at, f"a {type(value).__name__} constant is not part of the expression language", GRAMMAR)

    def from_Name(self, at: ast.Name, depth: int) -> Node:
        name = at.id
        if name in POSITIONS:
            return Name(name)
        if name == SCORE:
            if self.role == "mask":
                raise self.error(at, "a mask cannot use the score s", "s belongs to 'score', which may give -inf")
            return Name(name)
        if name in CONSTANTS:
            return Number(CONSTANTS[name])
        if name in FUNCTIONS:
            raise self.error(at, f"'{name}' is a function", f"call it: {name}(...)")
        self.declare(at, name, 0)
        return Scalar(name)

    def from_Subscript(self, at: ast.Subscript, depth: int) -> Node:
        if not isinstance(at.value, ast.Name):
            raise self.error(at, "only a named tensor can be indexed", "bias[h, i - j] is one")
        name = at.value.id
        if name in (*POSITIONS, SCORE, *CONSTANTS, *FUNCTIONS):
            raise self.error(at, f"'{name}' is not a tensor", "rename the tensor")
        parts = at.slice.elts if isinstance(at.slice, ast.Tuple) else [at.slice]
        if not 1 <= len(parts) <= MAX_RANK:
            raise self.error(at, f"'{name}' is indexed by {len(parts)} expressions", f"1 to {MAX_RANK} are allowed")
        self.declare(at, name, len(parts))
        indices = tuple(self.number(part, depth, f"an index of '{name}'") for part in parts)
        for part, index in zip(parts, indices, strict=True):
            if index.type != "int":
                raise self.error(part, f"an index of '{name}' is not an integer", "floor(...) makes it one")
        return Tensor(name, indices)

    def declare(self, at: ast.expr, name: str, rank: int) -> None:
        if name in RESERVED or SUMS.fullmatch(name):
            raise self.error(at, f"'{name}' already names an argument of the op", "choose another name for yours")
        if name.startswith("_") or len(name) > MAX_NAME:
            raise self.error(at, f"'{name}' cannot name an argument", f"letters first, at most {MAX_NAME} characters")
        known = self.ranks.setdefault(name, rank)
        if known != rank:
            both = one_of(sorted({_rank(known), _rank(rank)}))
            raise self.error(at, f"'{name}' is used in two ways: {both}", "an argument keeps one rank everywhere")
        if len(self.ranks) > MAX_ARGUMENTS:
            raise self.error(at, f"the expression names more than {MAX_ARGUMENTS} arguments", "gather them in tensors")

    def from_UnaryOp(self, at: ast.UnaryOp, depth: int) -> Node:
        if isinstance(at.op, ast.Not):
            return Not(self.condition(at.operand, depth, "what follows 'not'"))
        if type(at.op) in INSTEAD_OF:
            raise self.instead(at, at.op)
        operand = self.number(at.operand, depth, "the operand of a sign")
        if isinstance(at.op, ast.UAdd):
            return operand
        return Number(-operand.value) if isinstance(operand, Number) else Unary("-", operand)

    def instead(self, at: ast.expr, op: ast.AST) -> ExpressionError:
        shown, remedy = INSTEAD_OF[type(op)]  # type: ignore[index]
        return self.error(at, f"operator {shown} is not part of the expression language", remedy)

    def from_BinOp(self, at: ast.BinOp, depth: int) -> Node:
        op = ARITHMETIC.get(type(at.op))
        if op is None:
            raise self.instead(at, at.op)
        left = self.number(at.left, depth, f"the left side of '{op}'")
        right = self.number(at.right, depth, f"the right side of '{op}'")
        if op in ("/", "//", "%") and isinstance(right, Number) and right.value == 0:
            raise self.error(at.right, f"the right side of '{op}' is zero", "divide by something else")
        if op == "**" and not (isinstance(right, Number) and right.type == "int" and abs(right.value) <= MAX_EXPONENT):
            remedy = f"a whole number from -{MAX_EXPONENT} to {MAX_EXPONENT} would be right; exp(y * log(x)) is x**y"
            raise self.error(at.right, "the exponent of '**' is not a small whole number", remedy)
        return Binary(op, left, right)  # type: ignore[arg-type]

    def from_Compare(self, at: ast.Compare, depth: int) -> Node:
        sides = [self.number(side, depth, "one side of a comparison") for side in (at.left, *at.comparators)]
        for op in at.ops:
            if type(op) in INSTEAD_OF:
                raise self.instead(at, op)
        chain = tuple(
            Compare(COMPARISONS[type(op)], left, right)  # type: ignore[index,arg-type]
            for op, left, right in zip(at.ops, sides, sides[1:], strict=False)
        )
        return chain[0] if len(chain) == 1 else Logic("and", chain)

    def from_BoolOp(self, at: ast.BoolOp, depth: int) -> Node:
        op: Literal["and", "or"] = "and" if isinstance(at.op, ast.And) else "or"
        return Logic(op, tuple(self.condition(value, depth, f"one side of '{op}'") for value in at.values))

    def from_IfExp(self, at: ast.IfExp, depth: int) -> Node:
        return self.select(at, at.test, at.body, at.orelse, depth)

    def select(self, at: ast.expr, test: ast.expr, then: ast.expr, otherwise: ast.expr, depth: int) -> Node:
        condition = self.condition(test, depth, "what is tested")
        left, right = self.convert(then, depth), self.convert(otherwise, depth)
        if (left.type == "bool") != (right.type == "bool"):
            raise self.error(at, f"one choice is {_kind_of(left)}, the other {_kind_of(right)}", "both must be alike")
        return Select(condition, left, right)

    def from_Call(self, at: ast.Call, depth: int) -> Node:
        if not isinstance(at.func, ast.Name):
            raise self.error(at, "only a named function can be called", f"{one_of(FUNCTIONS)} would be right")
        name = at.func.id
        if name not in FUNCTIONS:
            raise self.error(at, f"unknown function '{name}'", did_you_mean(name, FUNCTIONS))
        if at.keywords or any(isinstance(argument, ast.Starred) for argument in at.args):
            raise self.error(at, f"{name}() is called with keywords or stars", "plain arguments would be right")
        fewest, most = {"where": (3, 3), "min": (2, 16), "max": (2, 16)}.get(name, (1, 1))
        if not fewest <= len(at.args) <= most:
            count = f"{fewest}" if fewest == most else f"{fewest} to {most}"
            raise self.error(at, f"{name}() has {len(at.args)} argument(s)", f"it takes {count}")
        if name == "where":
            test, then, otherwise = at.args
            return self.select(at, test, then, otherwise, depth)
        return Call(name, tuple(self.number(argument, depth, f"an argument of {name}()") for argument in at.args))


def _rank(rank: int) -> str:
    return f"a tensor of rank {rank}" if rank else "a number"


def _describe(at: ast.expr) -> str:
    names = {
        ast.Attribute: "an attribute ('.')", ast.Lambda: "lambda", ast.Slice: "a slice (':')", ast.Tuple: "a tuple",
        ast.List: "a list", ast.JoinedStr: "a string", ast.NamedExpr: "an assignment (':=')", ast.Starred: "a star",
    }  # fmt: skip
    return names.get(type(at), f"'{type(at).__name__}'")
