"""attngen's indexer in place of a model's own: the same keys but for near ties, and no memory of queries x keys."""

import copy
from dataclasses import replace
from types import MethodType

import pytest

pytest.importorskip("transformers")

import torch
from transformers.masking_utils import sdpa_mask

from attngen.errors import CallError, NotGeneratedError, UsageError
from attngen.importer import import_config
from attngen.integrations.transformers import use_indexer
from attngen.integrations.transformers.masks import COLUMNS
from attngen.reference import index_scores
from attngen.spec.model import Indexer
from tests.integrations.models import SELECTING, TOP_K, batch, config, difference, hidden_states, model

ROUNDING = 64 * 2.0**-24  # as between eager attention and attngen's
NAME = "attngen-test-indexer"


def spec_of(name, dtype="bfloat16"):
    """The model's spec, with the indexer in a dtype in which products of what the model gives it are exact."""
    spec = import_config(config(name).to_dict()).spec
    kinds = (replace(k, select=replace(k.select, indexer=in_dtype(k.select.indexer, dtype))) for k in spec.kinds)
    return replace(spec, kinds=tuple(kinds))


def in_dtype(indexer, dtype):
    return indexer and Indexer(indexer.heads, indexer.head_dim, dtype)


def replaced(name, dtype=torch.float32, device="cpu"):
    """A model of its own whose indexers are attngen's."""
    made = copy.deepcopy(model(name)).to(device, dtype)
    use_indexer(made, spec_of(name), name=NAME)
    return made


def watch(made, see):
    """Call ``see(indexer, arguments, keywords, indices)`` whenever an indexer has selected."""
    for layer in made.model.layers:
        indexer = layer.self_attn.indexer
        if indexer is not None:

            def forward(self, *arguments, replacement=indexer.forward, **keywords):
                indices = replacement(*arguments, **keywords)
                see(self, arguments, keywords, indices)
                return indices

            indexer.forward = MethodType(forward, indexer)


@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", SELECTING)
def test_the_keys_of_the_models_own_indexer_but_for_near_ties(name, padding):
    """In bfloat16: what one selects and the other does not has the least of the selected scores, within rounding."""
    made, inputs = replaced(name, torch.bfloat16), batch(padding)
    matrix = sdpa_mask(3, 30, 30, attention_mask=inputs["attention_mask"].bool(), allow_is_causal_skip=False)[:, 0]
    seen, given = [], []

    def see(indexer, arguments, keywords, ours):
        hidden, q_resid, positions, mask, ids = arguments
        assert mask.shape == (3, 1, COLUMNS)
        own = type(indexer).forward(indexer, hidden, q_resid, positions, matrix, ids)  # no cache to enter keys twice
        assert ours.dtype == own.dtype and ours.shape == own.shape
        q, k, weights = given.pop()
        scores = index_scores(q, k, weights).masked_fill(~matrix, -torch.inf)
        sizes = index_scores(q.abs(), k.abs(), weights.abs()).amax(-1, keepdim=True)
        selected = [chosen(lists, matrix) for lists in (ours, own)]
        least = scores.masked_fill(~selected[0], torch.inf).amin(-1, keepdim=True)
        differ = selected[0] ^ selected[1]
        assert ((scores - least).abs() <= 2.0**-20 * sizes)[differ].all()
        seen.append(float(differ.sum() / matrix.sum()))

    for layer in made.model.layers:
        if layer.self_attn.indexer is not None:
            selecting = layer.self_attn.indexer.forward.__func__
            selecting.selector = Noted(selecting.selector, given)
    watch(made, see)
    hidden_states(made, inputs, NAME)
    assert len(seen) == spec_of(name).layer_kinds.count("sparse")
    assert max(seen) < 0.01  # of what is selected


class Noted:
    """A selector that keeps what it was given."""

    def __init__(self, selector, given):
        self.selector, self.given, self.top_k = selector, given, selector.top_k

    def __call__(self, *tensors, **keywords):
        self.given.append(tensors)
        return self.selector(*tensors, **keywords)


def chosen(lists, matrix):
    """Which of the keys that a query may see are in its list."""
    kept = torch.where(lists < 0, matrix.shape[-1], lists).long()
    marks = torch.zeros(*matrix.shape[:2], matrix.shape[2] + 1, dtype=torch.bool)
    return marks.scatter_(-1, kept, True)[..., :-1] & matrix


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("padding", ["none", "right", "left"])
@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa sharing"])
def test_hidden_states_are_those_of_eager_attention_over_the_same_lists(name, padding, device):
    made, inputs, lists = replaced(name, device=device), batch(padding, device), []
    watch(made, lambda indexer, arguments, keywords, indices: lists.append(indices))
    states = hidden_states(made, inputs, NAME)
    assert len(lists) == spec_of(name).layer_kinds.count("sparse")
    eager = copy.deepcopy(model(name)).to(device)
    turns = iter(lists)
    for layer in eager.model.layers:
        if layer.self_attn.indexer is not None:  # which wants a key of every entry: one that is listed already
            layer.self_attn.indexer.forward = lambda *_, **__: (
                lambda x: torch.where(x < 0, x[..., :1].clamp(min=0), x)
            )(next(turns))
    assert difference(states, hidden_states(eager, inputs, "eager")) < ROUNDING


@pytest.mark.parametrize("cache", ["dynamic", "static"])
@pytest.mark.parametrize("name", ["deepseek_v32", "glm_moe_dsa sharing"])
def test_generation_gives_the_logits_of_the_whole_text(name, cache):
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


def test_another_attention_has_the_models_own_indexer_again():
    made, inputs = replaced("deepseek_v32"), batch("left")
    before = hidden_states(model("deepseek_v32"), inputs, "eager")
    ours = hidden_states(made, inputs, NAME)
    assert difference(ours, before) < 0.5  # another selection here and there
    assert all(torch.equal(a, b) for a, b in zip(hidden_states(made, inputs, "eager"), before, strict=True))
    assert list(made.state_dict()) == list(model("deepseek_v32").state_dict())


def test_another_model_under_the_same_name():
    made = replaced("deepseek_v32")
    with pytest.raises(CallError, match=f"attention '{NAME}' is that of another model; use_indexer"):
        hidden_states(model("glm_moe_dsa"), batch("none"), NAME)
    copied = copy.deepcopy(made)
    with pytest.raises(CallError, match="is that of another model"):
        hidden_states(copied, batch("none"), NAME)
    use_indexer(copied, spec_of("deepseek_v32"), name=f"{NAME}-2")
    states = [hidden_states(*run) for run in ((copied, batch("none"), f"{NAME}-2"), (made, batch("none"), NAME))]
    assert all(torch.equal(a, b) for a, b in zip(*states, strict=True))


def test_a_spec_of_another_model():
    spec = spec_of("glm_moe_dsa sharing")
    made = copy.deepcopy(model("glm_moe_dsa sharing"))
    order = ("sparse", "shared", "shared", "sparse")
    with pytest.raises(CallError, match="layer 2 of the model has an indexer; the spec's kind 'shared' has none"):
        use_indexer(made, replace(spec, layer_kinds=order), name=NAME)
    sparse = spec.kind("sparse")
    other = replace(sparse, select=replace(sparse.select, top_k=9))
    with pytest.raises(CallError, match="layer 0: the model's index_topk is 8; the spec's kind 'sparse' has 9"):
        use_indexer(made, replace(spec, kinds=(other, spec.kind("shared"))), name=NAME)
    tiny = replace(sparse, select=replace(sparse.select, indexer=Indexer(4, 32, "bfloat16")))
    with pytest.raises(NotGeneratedError, match="its indexer has 4 heads; 8 to 128 are generated"):
        use_indexer(made, replace(spec, kinds=(tiny, spec.kind("shared"))), name=NAME)
    assert not any("forward" in vars(layer.self_attn.indexer or layer) for layer in made.model.layers)
    with pytest.raises(UsageError, match="model_type is 'llama'; the indexers of deepseek_v32 or glm_moe_dsa"):
        use_indexer(model("llama"), spec)
