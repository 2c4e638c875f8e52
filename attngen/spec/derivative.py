"""Derivatives of score expressions: SymPy differentiates and collects, nodes go in and come out.

What does not depend on the variable is a symbol to SymPy. What does is an expression that remembers its node, so a
value that the derivative uses comes back as it was written; quotients and powers stay whole for the same reason,
and so that no part of a derivative overflows where the value does not.
"""

from __future__ import annotations

import math
from functools import reduce

import sympy as sp
from sympy.core.parameters import distribute

from attngen.spec.grammar import MAX_INTEGER
from attngen.spec.nodes import Binary, Call, Compare, Name, Node, Number, Select, Tensor, Unary
from attngen.spec.reads import varying_operands


def derivative(tree: Node, wrt: Name | Tensor) -> Node:
    """The derivative of ``tree``, a float, with respect to the score ``s`` or to one read of a tensor.

    At ties min and max share it equally and abs has none, as in PyTorch.
    """
    with distribute(False):  # 3 * (s - m) as 3 * s - 3 * m would lose digits
        algebra = _Algebra(wrt)
        slope = algebra.expression(tree).diff(algebra.symbol(wrt))
        return _as_float(algebra.node(slope))


class _Exp(sp.Function):
    def fdiff(self, argindex=1):
        return self


class _Log(sp.Function):
    def fdiff(self, argindex=1):
        return 1 / self.args[0]


class _Sqrt(sp.Function):
    def fdiff(self, argindex=1):
        return 1 / (2 * self)


class _Tanh(sp.Function):
    def fdiff(self, argindex=1):
        return 1 - self**2


class _Sigmoid(sp.Function):
    def fdiff(self, argindex=1):
        return self * (1 - self)


_FUNCTIONS = {"exp": _Exp, "log": _Log, "sqrt": _Sqrt, "tanh": _Tanh, "sigmoid": _Sigmoid}


class _Quotient(sp.Function):
    """x / y."""

    def fdiff(self, argindex=1):
        return (1 if argindex == 1 else -self) / self.args[1]


class _Power(sp.Function):
    """x ** n, for a whole number n."""

    @classmethod
    def eval(cls, x, n):
        if n == 0:
            return sp.Integer(1)
        return x if n == 1 else None

    def fdiff(self, argindex=1):
        x, n = self.args
        return n * (self / x if n < 0 else _Power(x, n - 1))


class _Remainder(sp.Function):
    """x % y, which is x - (x // y) * y; the third argument is x // y."""

    def fdiff(self, argindex=1):
        return sp.Integer(1) if argindex == 1 else -self.args[2]


class _Choice(sp.Function):
    """``then`` where the condition holds, else ``otherwise``."""

    @classmethod
    def eval(cls, condition, then, otherwise):
        return then if then == otherwise else None

    def _eval_derivative(self, s):
        condition, then, otherwise = self.args
        return _Choice(condition, then.diff(s), otherwise.diff(s))


class _Abs(sp.Function):
    """abs(x); the other arguments are the conditions x > 0 and x < 0."""

    def fdiff(self, argindex=1):
        _, positive, negative = self.args
        return _Choice(positive, sp.Integer(1), _Choice(negative, sp.Integer(-1), sp.Integer(0)))


class _Extreme(sp.Function):
    """min or max of x and y; the other arguments are the conditions under which it is x alone, and y alone."""

    def _eval_derivative(self, s):
        x, y, first, second = self.args
        return _share(x.diff(s), first, second) + _share(y.diff(s), second, first)


def _share(slope: sp.Expr, alone: sp.Symbol, never: sp.Symbol) -> sp.Expr:
    """What ``slope`` adds: all, none, or half at a tie; it is written once, or nested ones would double."""
    return _Choice(never, sp.Integer(0), slope * _Choice(alone, sp.Integer(1), sp.Rational(1, 2)))


class _Algebra:
    """Nodes as SymPy expressions, and back."""

    def __init__(self, wrt: Node) -> None:
        self.wrt = wrt
        self.symbols: dict[Node, sp.Symbol] = {}
        self.nodes: dict[sp.Expr, Node] = {}  # what each expression was made from

    def symbol(self, node: Node) -> sp.Symbol:
        """``node`` as one symbol, whatever it is made of."""
        symbol = self.symbols.setdefault(node, sp.Symbol(f"x{len(self.symbols):04}", real=True))
        self.nodes[symbol] = node
        return symbol

    def expression(self, node: Node) -> sp.Expr:
        if isinstance(node, Number) and math.isfinite(node.value):
            return sp.Rational(node.value)
        if node == self.wrt or not self.varies(node):
            return self.symbol(node)
        result = self.varying(node)
        if not result.is_Number:
            self.nodes.setdefault(result, node)
        return result

    def varies(self, node: Node) -> bool:
        return node == self.wrt or any(self.varies(operand) for operand in varying_operands(node))

    def varying(self, node: Node) -> sp.Expr:
        expression = self.expression
        match node:
            case Unary(operand=x):
                return -expression(x)
            case Binary(op="+", left=x, right=y):
                return expression(x) + expression(y)
            case Binary(op="-", left=x, right=y):
                return expression(x) - expression(y)
            case Binary(op="*", left=x, right=y):
                return expression(x) * expression(y)
            case Binary(op="/", left=x, right=y):
                return _Quotient(expression(x), self.divisor(y)) if self.varies(y) else expression(x) / expression(y)
            case Binary(op="%", left=x, right=y):
                return _Remainder(expression(x), expression(y), self.symbol(Binary("//", x, y)))
            case Binary(op="**", left=x, right=n):
                return _Power(self.divisor(x), expression(n))
            case Select(condition=condition, then=x, otherwise=y):
                return _Choice(self.symbol(condition), expression(x), expression(y))
            case Call(function="min" | "max" as function, arguments=(x, y)):
                return self.extreme(function, x, y)
            case Call(function="min" | "max" as function, arguments=(*others, y)):
                return self.extreme(function, Call(function, tuple(others)), y)
            case Call(function="abs", arguments=(x,)):
                positive, negative = Compare(">", x, Number(0)), Compare("<", x, Number(0))
                return _Abs(expression(x), self.symbol(positive), self.symbol(negative))
            case Call(function=function, arguments=(x,)):
                return _FUNCTIONS[function](expression(x))
        raise TypeError(f"no derivative of {node!r}")

    def divisor(self, node: Node) -> sp.Expr:
        """An expression to divide by; one that is zero to SymPy, such as s - s, stays a symbol."""
        expression = self.expression(node)
        return self.symbol(node) if expression == 0 else expression

    def extreme(self, function: str, x: Node, y: Node) -> sp.Expr:
        above, below = self.symbol(Compare(">", x, y)), self.symbol(Compare("<", x, y))
        conditions = (above, below) if function == "max" else (below, above)
        return _Extreme(self.expression(x), self.expression(y), *conditions)

    def node(self, e: sp.Expr) -> Node:
        if e in self.nodes:
            return self.nodes[e]
        if isinstance(e, _Choice):
            condition, then, otherwise = e.args
            return Select(self.nodes[condition], _as_float(self.node(then)), _as_float(self.node(otherwise)))
        if isinstance(e, _Power) or (e.is_Pow and e.exp.is_positive):
            base, exponent = e.args
            return Binary("**", _as_float(self.node(base)), Number(int(exponent)))
        return self.sum(e) if e.is_Add else self.product(e)

    def sum(self, e: sp.Expr) -> Node:
        """Terms with a plus before those with a minus."""
        first, *others = sorted(e.args, key=lambda term: (_is_negative(term), sp.default_sort_key(term)))
        node = self.term(first)
        for term in others:
            negative = _is_negative(term)
            node = Binary("-" if negative else "+", node, self.term(-term if negative else term))
        return node

    def term(self, e: sp.Expr) -> Node:
        node = self.node(e)
        return node if isinstance(node, Number) else _as_float(node)

    def product(self, e: sp.Expr) -> Node:
        """The number first, then quotients, and floats before whole numbers, whose products could overflow."""
        coefficient, rest = e.as_coeff_Mul()
        parts = [part for part in sp.Mul.make_args(rest) if part != 1]
        parts.sort(key=lambda part: (not isinstance(part, _Quotient), sp.default_sort_key(part)))
        divisors = [part for part in parts if part.is_Pow and part.exp.is_negative]
        factors = [self.node(part) for part in parts if part not in divisors]
        factors.sort(key=lambda factor: factor.type == "int")
        number, divisor = _fraction(coefficient)
        if not factors or factors[0].type == "int":
            factors.insert(0, Number(float(number)))
        elif number == -1:
            factors[0] = Unary("-", factors[0])
        elif number != 1:
            factors.insert(0, Number(number))
        node = reduce(lambda x, y: Binary("*", x, y), factors)
        below = [self.node(1 / part) for part in divisors] + [Number(divisor)] * (divisor != 1)
        return reduce(lambda x, y: Binary("/", x, y), below, node)


def _is_negative(e: sp.Expr) -> bool:
    return bool(e.as_coeff_Mul()[0] < 0)


def _fraction(value: sp.Rational) -> tuple[int | float, int]:
    """``value`` as a number over a whole number: 2 / 3 stays a quotient, 1 / 2 is 0.5."""
    p, q = int(value.p), int(value.q)
    small = max(abs(p), q) <= MAX_INTEGER
    return (p, q) if small and (q == 1 or q.bit_count() > 1) else (float(value), 1)


def _as_float(node: Node) -> Node:
    if isinstance(node, Number):
        return Number(float(node.value))
    return node if node.type == "float" else Binary("*", Number(1.0), node)
