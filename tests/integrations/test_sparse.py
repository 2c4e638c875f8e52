"""attngen's sparse attention in place of a model's own: the states of eager attention over the same keys, which are
those of the model's own indexer but for near ties; a cache of latents; and no memory of queries x keys."""

import copy

import pytest

pytest.importorskip("transformers")

import torch
import torch._dynamo.testing
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.masking_utils import sdpa_mask

from attngen.importer import import_config
from attngen.integrations.transformers import absorbed, use_sparse_attention
from attngen.integrations.transformers.absorbed import Text, parts
from attngen.integrations.transformers.indexing import index_queries
from attngen.reference import index_scores
from tests.integrations.models import LATENT, SELECTING, TOP_K, batch, caches, config, difference, hidden_states, model
from tests.integrations.sparse_models import NAME, SHARING, attentions, replaced, spec_of

# Float32 against float32: each layer rounds a few times, and each rounding is at most 2**-24 of a value.
ROUNDING = 64 * 2.0**-24
WIDTH = LATENT["kv_lora_rank"] + LATENT["qk_rope_head_dim"]


def watch(monkeypatch, see):
    """Let ``see(text, part, lists)`` look at, and return, what is selected."""
    select = Text._select

    def seen(text, part, placed):
        return see(text, part, select(text, part, placed))

    monkeypatch.setattr(Text, "_select", seen)


def over(lists, name, device="cpu"):
    """The model whose own attention is over these lists, one an indexer."""
    made, turns = copy.deepcopy(model(name)).to(device), iter(lists)
    for attention in attentions(made):
        if attention.indexer is not None:  # whose forward is to give a key in every entry: one that is listed already
            attention.indexer.forward = lambda *_, **__: (lambda x: torch.where(x < 0, x[..., :1].clamp(min=0), x))(
                next(turns)
            )
    return made


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", ["deepseek_v32", SHARING])
def test_hidden_states_are_those_of_eager_attention_over_the_same_lists(monkeypatch, name, padding, device):
    inputs, lists = batch(padding, device), []
    watch(monkeypatch, lambda text, part, selected: lists.append(selected) or selected)
    states = hidden_states(replaced(name, device=device), inputs, NAME)
    assert len(lists) == spec_of(name).layer_kinds.count("sparse")
    assert difference(states, hidden_states(over(lists, name, device), inputs, "eager")) < ROUNDING


@pytest.mark.parametrize("name", ["deepseek_v32", SHARING])
def test_a_selection_off_by_one_key_would_be_seen(monkeypatch, name):
    lists = []

    def see(text, part, selected):
        lists.append(selected)
        last = selected[:, -1:].clone()
        last[..., 0] = (last[..., 0] + 1).where(last[..., 0] + 1 < last[..., 1], last[..., 0] - 1)
        return torch.cat([selected[:, :-1], last], 1)  # of the last query

    watch(monkeypatch, see)
    states = hidden_states(replaced(name), batch("none"), NAME)
    assert difference(states, hidden_states(over(lists, name), batch("none"), "eager")) > 100 * ROUNDING


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", SELECTING)
def test_the_keys_of_the_models_own_indexer_but_for_near_ties(monkeypatch, name, padding):
    """In bfloat16: what one selects and the other does not has the least of the selected scores, within rounding."""
    made, inputs, seen = replaced(name, torch.bfloat16), batch(padding), []
    matrix = sdpa_mask(3, 30, 30, attention_mask=inputs["attention_mask"].bool(), allow_is_causal_skip=False)[:, 0]

    def see(text, part, ours):
        indexer, given = text.module.indexer, (text.hidden, text.residual, text.positions)
        own = type(indexer).forward(indexer, *given, matrix, None)  # no cache to enter keys twice
        assert ours.dtype == own.dtype and ours.shape == own.shape
        q, weights = index_queries(indexer, *given, text.rope)
        scores = index_scores(q, text.index_keys, weights).masked_fill(~matrix, -torch.inf)
        sizes = index_scores(q.abs(), text.index_keys.abs(), weights.abs()).amax(-1, keepdim=True)
        selected = [chosen(lists, matrix) for lists in (ours, own)]
        least = scores.masked_fill(~selected[0], torch.inf).amin(-1, keepdim=True)
        differ = selected[0] ^ selected[1]
        assert ((scores - least).abs() <= 2.0**-20 * sizes)[differ].all()
        seen.append(float(differ.sum() / matrix.sum()))
        return ours

    watch(monkeypatch, see)
    hidden_states(made, inputs, NAME)
    assert len(seen) == spec_of(name).layer_kinds.count("sparse")
    assert max(seen) < 0.01  # of what is selected


def chosen(lists, matrix):
    """Which of the keys that a query may see are in its list."""
    kept = torch.where(lists < 0, matrix.shape[-1], lists).long()
    marks = torch.zeros(*matrix.shape[:2], matrix.shape[2] + 1, dtype=torch.bool)
    return marks.scatter_(-1, kept, True)[..., :-1] & matrix


@pytest.mark.parametrize(("name", "cache"), caches(["deepseek_v32", SHARING]))
def test_generation_gives_the_logits_of_the_whole_text_from_a_cache_of_latents(name, cache):
    """A query selects the same keys beside a cache and without one, from fewer keys than top_k to more."""
    made = replaced(name)
    inputs = {key: tensor[:, 24:] for key, tensor in batch("left").items()}
    assert inputs["input_ids"].shape[1] < TOP_K
    run = made.generate(
        **inputs,
        max_new_tokens=6,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        cache_implementation=cache,
        disable_compile=True,
        eos_token_id=None,
    )
    added = run.sequences.shape[1] - inputs["attention_mask"].shape[1]
    mask = torch.nn.functional.pad(inputs["attention_mask"], (0, added), value=1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        whole = made(run.sequences, attention_mask=mask, position_ids=positions, use_cache=False).logits
    assert difference(torch.stack(run.logits, 1), whole[:, -added - 1 : -1]) < ROUNDING
    for layer, attention in zip(run.past_key_values.layers, attentions(made), strict=True):
        tokens = 3 * (run.sequences.shape[1] - 1)
        assert layer.keys.numel() + layer.values.numel() == tokens * WIDTH
        if attention.indexer is not None:
            assert layer.indexer_keys.numel() == tokens * LATENT["index_head_dim"]


@pytest.mark.slow
@pytest.mark.parametrize("padding", ["none", "left"])
@pytest.mark.parametrize("name", ["deepseek_v32", SHARING])
def test_queries_attend_in_parts(monkeypatch, name, padding):
    """Also those of a text that goes on beside a cache."""
    made, inputs = replaced(name), batch(padding)
    whole = hidden_states(made, inputs, NAME)
    monkeypatch.setattr(absorbed, "QUERY_BYTES", 3 * 7 * 4 * WIDTH * 4)  # 7 queries of 3 sequences and 4 heads
    lengths = []
    watch(monkeypatch, lambda text, part, selected: lengths.append(selected.shape[1]) or selected)
    assert difference(hidden_states(made, inputs, NAME), whole) < ROUNDING
    assert lengths[:5] == [6] * 5
    cache = DynamicCache(config=made.config)
    with torch.no_grad():
        for part in (slice(0, 11), slice(11, 30)):
            mask = inputs["attention_mask"][:, : part.stop]
            ids = inputs["input_ids"][:, part]
            states = made.model(
                ids, attention_mask=mask, position_ids=torch.arange(30)[None, part], past_key_values=cache
            )
        at_once = made.model(**inputs, position_ids=torch.arange(30)[None]).last_hidden_state[:, 11:]
    valid = inputs["attention_mask"][:, 11:].bool()
    assert difference([states.last_hidden_state[valid]], [at_once[valid]]) < ROUNDING


def test_parts_are_every_query_once():
    for seq_q, row_bytes, count in ((1, 1, 1), (100, 2**29 // 40, 3), (5, 2**30, 5), (7, 2**27, 2)):
        made = list(parts(seq_q, row_bytes))
        assert len(made) == count
        assert [n for part in made for n in range(part.start, part.stop)] == list(range(seq_q))
        assert max(part.stop - part.start for part in made) * row_bytes <= max(2**29, row_bytes)


def test_another_attention_is_the_models_own_again():
    made, inputs = replaced("deepseek_v32"), batch("left")
    before = hidden_states(model("deepseek_v32"), inputs, "eager")
    ours = hidden_states(made, inputs, NAME)
    assert difference(ours, before) < 0.5  # another selection here and there
    assert all(torch.equal(a, b) for a, b in zip(hidden_states(made, inputs, "eager"), before, strict=True))
    assert list(made.state_dict()) == list(model("deepseek_v32").state_dict())


def test_hooks_of_accelerate_stay():
    hooks = pytest.importorskip("accelerate.hooks")
    made, calls = copy.deepcopy(model(SHARING)), []

    class Counting(hooks.ModelHook):
        def pre_forward(self, module, *arguments, **keywords):
            calls.append(module.layer_idx)
            return arguments, keywords

    for attention in attentions(made):
        hooks.add_hook_to_module(attention, Counting())
    use_sparse_attention(made, spec_of(SHARING), name=NAME)
    states = hidden_states(made, batch("left"), NAME)
    assert calls == [0, 1, 2, 3]
    plain = hidden_states(replaced(SHARING), batch("left"), NAME)
    assert all(torch.equal(a, b) for a, b in zip(states, plain, strict=True))


def test_compiled_as_one_graph():
    torch._dynamo.reset()
    torch.manual_seed(0)
    one = config("deepseek_v32", num_hidden_layers=1, mlp_layer_types=["dense"])
    made = AutoModelForCausalLM.from_config(one).eval()
    use_sparse_attention(made, import_config(one.to_dict()).spec, name=NAME)
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(made, backend=counter, fullgraph=True)
    with torch.no_grad():
        given = batch("left") | {"use_cache": False}
        torch.testing.assert_close(compiled(**given).logits, made(**given).logits)
    assert counter.frame_count == 1
