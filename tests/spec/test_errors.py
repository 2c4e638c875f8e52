"""Malformed specs, each with the one line that its author is told."""

import pytest

from attngen.errors import SpecError
from attngen.spec import parse_spec

BASE = "heads: 4\nhead_dim: 64\n"
TWO = BASE + "kinds: {local: {window: {total: 4}}, global: {}}\n"
HEADS = "a whole number from 1 to 1024, or {query: 32, kv: 8}, would be right"
EXPRESSION = "it is made of numbers, names, tensor[...], arithmetic, comparisons, and/or/not, if/else and functions"
YAML = "look at the indentation, brackets and quotes around here"
FIELDS = (
    "name, layers, kinds, symbols, pattern, heads, head_dim, latent, dtype, scale, causal, window, chunk, dilation, "
    "prefix, always, global_tokens, documents, blocks, mask, select, softcap, alibi, score, sink, "
    "compress or branches would be right"
)

MALFORMED = [
    # the file
    ("", "1:1: the file is empty; name, heads, head_dim and layers are a start"),
    ("# nothing yet\n", "1:1: the file is empty; name, heads, head_dim and layers are a start"),
    ("- local\n- global", "1:1: the file holds a list; fields such as 'heads: 12' would be right"),
    ("twelve heads", "1:1: the file holds 'twelve heads'; fields such as 'heads: 12' would be right"),
    ("heads: [4", f"1:10: not valid YAML: expected ',' or ']', but got '<stream end>'; {YAML}"),
    ("heads: 4: 5", f"1:9: not valid YAML: mapping values are not allowed here; {YAML}"),
    (
        "kinds:\n\tlocal: {}",
        "2:1: not valid YAML: found character '\\t' that cannot start any token; indent with spaces",
    ),
    ("heads: 4\nheads: 8", "2:1: 'heads' is given twice, first on line 1; once would be right"),
    ("heads: &n 4", "1:8: YAML anchors and aliases are not allowed; write the value out"),
    ("heads: *n", "1:8: YAML anchors and aliases are not allowed; write the value out"),
    (
        "heads: !!python/object/apply:os.system [true]",
        "1:8: YAML tag 'tag:yaml.org,2002:python/object/apply:os' is not allowed; write the value alone",
    ),
    ("heads: 4\n---\nheads: 5", "2:1: a second document begins here; one file describes one model"),
    ("heads: 4\x07", "1:9: character '\\x07' in the file; printable text would be right"),
    ("heads: " + "[" * 13 + "]" * 13, "1:19: nested more than 12 deep; no field goes that deep"),
    (
        "#" * 100_001,
        "1:1: the file has more than 100000 characters; a spec is a few lines that describe one model's attention",
    ),
    # names of fields
    (BASE + "widow: {half: 64}", "3:1: unknown field 'widow'; did you mean 'window'?"),
    (BASE + "sliding_window: 64", "3:1: unknown field 'sliding_window'; did you mean 'window'?"),
    (BASE + "Causal: true", "3:1: unknown field 'Causal'; did you mean 'causal'?"),
    (BASE + "rotary: true", f"3:1: unknown field 'rotary'; {FIELDS}"),
    (BASE + "[a]: 3", "3:1: a field's name is a list; a plain name would be right"),
    (BASE + "kinds:\n  local: {layers: 3}", "4:11: 'layers' inside a kind; it belongs at the top of the file"),
    (BASE + "kinds:\n  local: {cuasal: true}", "4:11: unknown field 'cuasal'; did you mean 'causal'?"),
    (BASE + "window: {letf: 3}", "3:10: unknown field 'letf' in window; did you mean 'left'?"),
    # heads and widths
    ("head_dim: 64", "1:1: heads is missing; heads: 12, or {query: 32, kv: 8}, would be right"),
    (
        "heads: 4\nkinds: {local: {}}",
        "2:9: head_dim is missing for kind 'local'; head_dim: 64, or {qk: 192, v: 128}, would be right",
    ),
    ("heads: many\nhead_dim: 64", f"1:8: heads is 'many'; {HEADS}"),
    ("heads: true\nhead_dim: 64", f"1:8: heads is true; {HEADS}"),
    ("heads: 4.0\nhead_dim: 64", f"1:8: heads is 4.0; {HEADS}"),
    ("heads: '4'\nhead_dim: 64", f"1:8: heads is '4'; {HEADS}"),
    ("heads: -4\nhead_dim: 64", f"1:8: heads is -4; {HEADS}"),
    ("heads:\nhead_dim: 64", f"1:7: heads is null; {HEADS}"),
    (
        "heads: 123456789012345678901234567890123456789012345\nhead_dim: 64",
        f"1:8: heads is 1234567890123456789012345678901234567...; {HEADS}",
    ),
    (
        "heads: {query: 12, kv: 5}\nhead_dim: 64",
        "1:24: heads.kv 5 does not divide heads.query 12; a divisor would be right",
    ),
    ("heads: {kv: 5}\nhead_dim: 64", "1:8: heads has no 'query'; {query: 32, kv: 8} would be right"),
    (
        "heads: 4\nhead_dim: 8",
        "2:11: head_dim is 8; a whole number from 16 to 256, or {qk: 192, v: 128}, would be right",
    ),
    (
        "heads: 4\nhead_dim: {qk: 512, v: 64}",
        "2:16: head_dim.qk is 512; a whole number from 16 to 256 would be right",
    ),
    (
        BASE + "latent: {rank: 512, rope: 64}",
        "2:1: latent already makes keys 576 and values 512 wide; leave head_dim out, or set latent: null",
    ),
    (
        "heads: {query: 8, kv: 2}\nlatent: {rank: 512, rope: 64}",
        "1:1: heads.kv is 2, but a latent has one key head that all query heads share; heads: 8 would be right",
    ),
    ("heads: 8\nlatent: {rank: 512}", "2:9: latent has no 'rope'; {rank: 512, rope: 64} would be right"),
    # the name, the dtype, the number of layers
    (
        BASE + "name: ../etc/passwd",
        "3:7: name is '../etc/passwd'; letters, digits, '.', '_' and '-', at most 64, would be right",
    ),
    (BASE + "dtype: bf16", "3:8: dtype is 'bf16'; did you mean 'bfloat16'?"),
    (BASE + "dtype: int8", "3:8: dtype is 'int8'; float16, bfloat16, float32 or float8_e4m3 would be right"),
    (BASE + "layers: 0", "3:9: layers is 0; a whole number from 1 to 1024 would be right"),
    # what a layer sees
    (BASE + "causal: yes", "3:9: causal is 'yes'; true or false would be right"),
    (BASE + "causal: 1", "3:9: causal is 1; true or false would be right"),
    (
        BASE + "window: 128",
        "3:9: window is 128, which does not say on which sides; {total: 128} (i - 128 < j <= i), "
        "{half: 128} (|i - j| <= 128) or {left: 128, right: 0} does",
    ),
    (BASE + "window: wide", "3:9: window is 'wide'; {left: 127, right: 0}, {total: 128} or {half: 64} would be right"),
    (BASE + "window: {}", "3:9: window is empty; {left: 127, right: 0}, {total: 128} or {half: 64} would be right"),
    (
        BASE + "window: {total: 128, left: 3}",
        "3:17: window has both 'total' and 'left'; one way to say it would be right",
    ),
    (
        BASE + "window: {left: -1, right: 0}",
        "3:16: window.left is -1; a whole number of at least 0, or null for no bound, would be right",
    ),
    (BASE + "window: {total: 0}", "3:17: window.total is 0; a whole number of at least 1 would be right"),
    (
        BASE + "window: {half: 9000000000}",
        "3:16: window.half is 9000000000; a whole number from 0 to 2147483647 would be right",
    ),
    (BASE + "chunk: 0", "3:8: chunk is 0; a whole number of at least 1, or null, would be right"),
    (BASE + "dilation: 0", "3:11: dilation is 0; a whole number of at least 1, or null, would be right"),
    (BASE + "prefix: some", "3:9: prefix is 'some'; a whole number of at least 0, or argument, would be right"),
    (BASE + "always: 4", "3:9: always is 4; {first: 4} would be right"),
    (
        BASE + "global_tokens: [0, 5]",
        "3:16: global_tokens is a list; a whole number of at least 0, or null, would be right",
    ),
    (BASE + "blocks: {table: argument}", "3:9: blocks has no 'size'; {size: 64, table: argument} would be right"),
    (BASE + "blocks: {size: 64, table: fixed}", "3:27: blocks.table is 'fixed'; argument would be right"),
    (
        BASE + "select: {indexer: {heads: 4, head_dim: 64}}",
        "3:9: select has neither 'top_k' nor 'blocks'; {top_k: 2048, indexer: {heads: 64, head_dim: 128}} or "
        "{blocks: {size: 64, top_k: 16}} would be right",
    ),
    (
        BASE + "select: {top_k: 4, blocks: {size: 64, top_k: 16}}",
        "3:28: select has both 'blocks' and 'top_k'; one of them would be right",
    ),
    (
        BASE + "select: {blocks: {size: 64, top_k: 4, per: layer}}",
        "3:44: select.blocks.per is 'layer'; head or kv_head would be right",
    ),
    (
        BASE + "select: {blocks: {size: 64, top_k: 4, first: 3, last: 2}}",
        "3:55: select.blocks.first and select.blocks.last are 5, more than select.blocks.top_k 4; they count among the "
        "selected",
    ),
    (
        BASE + "causal: true\nselect: {blocks: {size: 64, top_k: 4}}",
        "4:1: select.blocks scores the block that a causal query is in by keys that come after the query; 'last: 1', "
        "which always selects that block, would be right",
    ),
    (
        BASE + "select: {blocks: {size: 64, top_k: 4, by: coarse}}",
        "3:1: select.blocks.by names a branch 'coarse', and kind 'attention' has none; leave 'by' out: blocks are "
        "scored by their mean key",
    ),
    (BASE + "compress: {size: 32, stride: 12}", "3:30: compress.stride 12 does not divide compress.size 32; a divisor "
     "would be right"),
    (
        BASE + "compress: {size: 32, stride: 16}",
        "3:1: compress outside of branches; it belongs in one of a kind's branches",
    ),
    (
        BASE + "branches: {near: {}}",
        "3:11: branches has one branch; two or more, as {selected: {select: {blocks: {size: 64, top_k: 16}}}, window: "
        "{window: {total: 512}}}, would be right",
    ),
    (
        BASE + "branches: {a: {}, b: {branches: {c: {}, d: {}}}}",
        "3:23: a branch has branches of its own; list them all in one",
    ),
    (
        BASE + "branches: {a: {}, b: {heads: 2}}",
        "3:23: branch 'b' differs from kind 'attention' in heads; give it once, for the kind",
    ),
    (
        BASE + "branches: {a: {compress: {size: 4, stride: 4}, window: {half: 4}}, b: {}}",
        "3:48: branch 'a' compresses keys, of which 'window' cannot tell single ones; another branch with 'window' "
        "would be right",
    ),
    (
        BASE + "branches: {a: {compress: {size: 4, stride: 4}}, b: {select: {blocks: {size: 8, top_k: 2, by: c}}}}",
        "3:53: select.blocks.by is 'c', which compresses no keys; a does",
    ),
    (
        BASE + "branches: {a: {compress: {size: 4, stride: 4}}, b: {select: {blocks: {size: 6, top_k: 2, by: a}}}}",
        "3:53: select.blocks.size is 6, and 'a' compresses at strides of 4; a multiple of it would be right",
    ),
    (
        BASE + "select: {top_k: 4, indexer: {heads: 4, head_dim: 64, scale: {block: 48}}}",
        "3:69: indexer.scale.block 48 does not divide indexer.head_dim 64; a divisor would be right",
    ),
    (
        BASE + "select: {top_k: 4, indexer: {heads: 4, head_dim: 64, dtype: bfloat16, scale: {block: 64}}}",
        "3:78: indexer.scale is given for bfloat16; only float8_e4m3 has scales",
    ),
    (
        BASE + "select: {top_k: 4, first: 2, last: 3}",
        "3:36: select.first and select.last are 5, more than select.top_k 4; they count among the selected",
    ),
    (
        BASE + "select: {top_k: 4, indexer: {heads: 4, head_dim: 48, hadamard: true}}",
        "3:64: indexer.hadamard rotates powers of two, and indexer.head_dim is 48; hadamard: false, or a head_dim of "
        "32, 64 or 128 would be right",
    ),
    # the score
    (BASE + "scale: 0", "3:8: scale is 0; a finite number above 0 would be right"),
    (BASE + "scale: .inf", "3:8: scale is '.inf'; a finite number above 0 would be right"),
    (BASE + "scale: 1e400", "3:8: scale is 1e400; a finite number above 0 would be right"),
    (BASE + "softcap: -50", "3:10: softcap is -50; a finite number above 0 would be right"),
    (BASE + "alibi: slopes", "3:8: alibi is 'slopes'; true or false would be right"),
    (BASE + "sink: true", "3:7: sink is true; learned, or none, would be right"),
    # expressions
    (BASE + "mask: i - j",
     "3:7: a mask must be a condition, and this is a number; compare it: '... != 0', for example"),
    (BASE + 'mask: "i - j < s"', "3:16: a mask cannot use the score s; s belongs to 'score', which may give -inf"),
    (BASE + "score: s + flor(i)", "3:12: unknown function 'flor'; did you mean 'floor'?"),
    (BASE + 'score: "s * __import__(h)"', "3:13: unknown function '__import__'; exp, log, sqrt, tanh, sigmoid, abs, "
     "floor, min, max or where would be right"),
    (BASE + "score: s.real", f"3:8: an attribute ('.') is not part of the expression language; {EXPRESSION}"),
    (BASE + "score: [s]", "3:8: score is a list; an expression in quotes would be right"),
    (BASE + "mask: 'i < j)'", "3:13: the mask expression is not arithmetic that can be read; "
     "'i - j < 128' is one that can"),
    (BASE + "mask: t[i] < j\nscore: s + t", "4:1: 't' has 0 indices in score and 1 in mask; "
     "an argument keeps one rank everywhere"),
    (BASE + f"score: {'s + ' * 300}s", "3:8: the score expression has 1201 characters; at most 1000 would be right"),
    # kinds
    (BASE + "kinds: [local]", "3:8: kinds is a list; {local: {window: {total: 128}}, global: {}} would be right"),
    (BASE + "kinds: {}", "3:8: kinds is empty; {local: {window: {total: 128}}, global: {}} would be right"),
    (BASE + "kinds: {a-b: {}}", "3:9: kind 'a-b' is not a name; a letter, then letters, digits and _ would be right"),
    (
        BASE + "kinds: {config: {}}",
        "3:9: a kind cannot be called 'config', which means something else; choose another name",
    ),
    (
        BASE + "kinds: {local: 128}",
        "3:16: kind 'local' is 128; fields such as {window: {total: 128}}, or {} for the defaults, would be right",
    ),
    # patterns
    (TWO, "3:1: there are 2 kinds and no pattern to say which layer is which; 'pattern: [local, global]' is one"),
    (TWO + "pattern: [local, globl]", "4:18: 'globl' in pattern is no kind; did you mean 'global'?"),
    (TWO + "pattern: []", "4:10: pattern is empty; [local, global], LG or {global: every 6 from 5, otherwise: local} "
     "would be right"),
    (TWO + "pattern: 3", "4:10: '3' in pattern '3' stands for no one kind; L for local, G for global, E for external; "
     "'symbols: {X: name}' defines others"),
    (TWO + "pattern: LLXG", "4:12: 'X' in pattern 'LLXG' stands for no one kind; L for local, G for global, "
     "E for external; 'symbols: {X: name}' defines others"),
    (
        TWO + "layers: 3\npattern: [local, local, local, global]",
        "5:10: pattern has 4 entries for 3 layers; at most 3 would be right (a shorter one is repeated)",
    ),
    (TWO + "pattern: {global: every 0}",
     "4:19: pattern.global is 'every 0'; every 6, or every 6 from 5, would be right"),
    (TWO + "pattern: {gobal: every 3}", "4:11: unknown field 'gobal' in pattern; did you mean 'global'?"),
    (TWO + "pattern: {otherwise: local}", "4:10: pattern names no kind with a cadence; [local, global], LG or "
     "{global: every 6 from 5, otherwise: local} would be right"),
    (TWO + "layers: 4\npattern: {global: every 2}", "5:10: pattern gives layer 1 no kind; "
     "'otherwise: local', for example, gives it one"),
    (TWO + "layers: 9\npattern: {global: every 2, local: every 3, otherwise: local}",
     "5:35: pattern makes layer 0 both global and local; cadences that never meet would be right"),
    (TWO + "symbols: {LO: local}\npattern: L",
     "4:11: symbol 'LO' is not one character; L, for example, would be right"),
    (TWO + "symbols: {L: lcal}\npattern: L", "4:14: 'lcal' in pattern is no kind; did you mean 'local'?"),
    (TWO + "symbols: {L: local}\npattern: [local]",
     "4:10: symbols are given, but pattern is a list; leave symbols out"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), MALFORMED, ids=lambda value: value[-40:])
def test_one_line_says_what_is_wrong_and_what_would_be_right(text, message):
    with pytest.raises(SpecError) as caught:
        parse_spec(text, "spec.yaml")
    assert str(caught.value) == f"spec.yaml:{message}"


def test_there_are_enough_of_them():
    assert len(MALFORMED) >= 90


def test_a_file_name_cannot_break_the_line():
    error = SpecError("odd\nname.yaml", 1, 2, "a\nproblem", "a\tremedy")
    assert str(error) == "odd name.yaml:1:2: a problem; a remedy"
