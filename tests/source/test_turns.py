"""Where one kernel makes all gradients, blocks of keys add to those of queries in turn: programs must agree on whose
turn it is, and wait for none that begins after them. The generated functions that say so are run as Python."""

import ast
from functools import cache
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.plan.backward import plan_backward
from attngen.plan.space import default_config
from attngen.source import render
from attngen.spec.model import Window
from attngen.target import get_target
from tests.op.cases import kind_of

H100 = get_target("h100")
QUERIES, KEYS = 64, 128  # of a tile, of a block
FIELDS = {
    "causal": {"causal": True},
    "every key": {},
    "window": {"causal": True, "window": Window(511, 0)},
    "window both ways": {"window": Window(400, 200)},
    "window ahead": {"window": Window(0, 300)},
    "window open behind": {"window": Window(None, 50)},
}
HEADS = ((3, 3), (4, 2))


class Checked(ast.NodeTransformer):
    """Divisions as a GPU has them: those of negative numbers would round the other way."""

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if not isinstance(node.op, ast.FloorDiv | ast.Mod):
            return node
        word = "divided" if isinstance(node.op, ast.FloorDiv) else "modulo"
        return ast.copy_location(ast.Call(ast.Name(word, ast.Load()), [node.left, node.right], []), node)


def divided(a, b):
    assert a >= 0 or a % b == 0
    return a // b


def modulo(a, b):
    assert a >= 0
    return a % b


class Fused:
    """The functions of one kernel."""

    def __init__(self, name, heads, changes):
        self.kind = kind_of(heads, (128, 128), **FIELDS[name])
        plan = plan_backward(self.kind).fused
        self.config = default_config(plan, H100).replace(**changes)
        module = ast.parse(render(plan, self.config).text)
        self.now, self.programs = 0, 0
        gl = SimpleNamespace(
            cdiv=lambda a, b: -(-a // b),
            maximum=max,
            minimum=min,
            where=lambda condition, yes, no: yes if condition else no,
            to_tensor=lambda value: value,
            load=int,
            program_id=lambda axis: self.now,
            num_programs=lambda axis: self.programs,
        )
        self._names = {"gl": gl, "divided": divided, "modulo": modulo}
        for node in module.body:
            if isinstance(node, ast.Assign) and isinstance(number := node.value.args[0], ast.Constant):
                self._names[node.targets[0].id] = number.value
            if isinstance(node, ast.FunctionDef) and node.name in ("locate", "ranges_of", "blocks_of"):
                node.decorator_list = []
                made = node if node.name == "locate" else Checked().visit(node)
                exec(compile(ast.fix_missing_locations(ast.Module([made], [])), node.name, "exec"), self._names)

    def __call__(self, name, **values):
        function = self._names[name]
        return function(*(values[one] for one in function.__code__.co_varnames[: function.__code__.co_argcount]))

    def located(self, batch, **values):
        """What each program finds, in the order in which they begin."""
        self.programs = -(-values["seq_k"] // KEYS) * self.kind.heads.kv * batch
        values |= {"heads": self.kind.heads.query, "heads_together": self.config["HEADS_TOGETHER"]}
        for number in range(self.programs):
            self.now = number
            found = self("locate", **values)
            yield dict(zip(("batch", "kv_head", "block_key", "offset", "key_first", "key_end"), found, strict=True))

    def sees(self, i, j):
        """Whether a query sees any of a range of keys, by the spec."""
        left, right = (None, None) if self.kind.window is None else (self.kind.window.left, self.kind.window.right)
        right = 0 if self.kind.causal else right
        first = j.start if left is None else max(j.start, i - left)
        return first <= (j.stop - 1 if right is None else min(j.stop - 1, i + right))


@cache
def fused(name, heads, run):
    return Fused(name, heads, {} if run is None else {"BLOCKS_TOGETHER": run, "HEADS_TOGETHER": 2})


class Values(int):
    """A pointer whose element is the same wherever it is read."""

    def __add__(self, other):
        return self


class Range:
    """A pointer to the first valid key and one past the last."""

    def __init__(self, first, end):
        self.values = first, end

    def __add__(self, n):
        return Values(self.values[n % 2]) if isinstance(n, int) else self


def offsets_and_ranges(draw, seq_k):
    """Where the last query sits, and which keys are valid: of the caller, or not given."""
    offset = draw(st.none() | st.integers(-200, seq_k + 200))
    valid = draw(st.none() | st.tuples(st.integers(-10, seq_k + 200), st.integers(-10, seq_k + 200)))
    return (
        None if offset is None else Values(offset),
        None if valid is None else Range(*valid),
    )


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(HEADS), st.sampled_from([None, 1, 3]), st.integers(1, 1500), st.integers(1, 1500), st.data())
@pytest.mark.parametrize("name", FIELDS)
def test_programs_agree_and_wait_for_none_after_them(name, heads, run, seq_q, seq_k, data):
    kernel = fused(name, heads, run)
    offsets, key_range = offsets_and_ranges(data.draw, seq_k)
    begun, turns = {}, {}
    sizes = {"seq_q": seq_q, "seq_k": seq_k, "offsets_ptr": offsets, "key_range_ptr": key_range}
    for number, program in enumerate(kernel.located(2, **sizes)):
        where, block = (program["batch"], program["kv_head"]), program["block_key"] // KEYS
        assert begun.setdefault((where, block), number) == number
        first, tiles = kernel("ranges_of", **program, **sizes)
        for position in range(first, first + tiles * QUERIES, QUERIES):
            query = position - program["offset"]
            assert query % QUERIES == 0 and 0 <= query < seq_q
            turns.setdefault((where, query), []).append(
                (block, *kernel("blocks_of", position=position, **program, **sizes))
            )
    blocks = -(-seq_k // KEYS)
    assert set(begun) == {((b, h), n) for b in range(2) for h in range(heads[1]) for n in range(blocks)}
    assert all(begun[where, block - 1] < number for (where, block), number in begun.items() if block)
    for mine in turns.values():
        _, first, last = mine[0]
        assert sorted(mine) == [(block, first, last) for block in range(first, last + 1)]
    # Of a tile that no block comes to dq is zeroed: no query sees a key, and the launcher knows that there may be some.
    never = [query for query in range(0, seq_q, QUERIES) if ((0, 0), query) not in turns]
    keys = range(max(program["key_first"], 0), program["key_end"])
    positions = [program["offset"] + i for query in never for i in range(query, min(query + QUERIES, seq_q))]
    assert not any(kernel.sees(i, keys) for i in positions)
    assert not never or offsets is not None or key_range is not None or seq_q > seq_k


def test_blocks_of_a_head_begin_one_after_another():
    kernel = Fused("window", (8, 8), {"HEADS_TOGETHER": 4, "BLOCKS_TOGETHER": 16})
    sizes = {"seq_q": 128 * 40, "seq_k": 128 * 40, "offsets_ptr": None, "key_range_ptr": None}
    found = [(program["kv_head"], program["block_key"] // KEYS) for program in kernel.located(1, **sizes)]
    assert found[:17] == [(0, block) for block in range(16)] + [(1, 0)]
    assert found[4 * 32 : 4 * 32 + 5] == [(head, 32) for head in range(4)] + [(0, 33)]  # side by side
