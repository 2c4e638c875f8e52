"""Which kernels a kind's attention is made of, at each length."""

from attngen.plan import plan_forward
from attngen.plan.kernels import attended_whole, plans_of
from attngen.spec import parse_spec
from attngen.target import get_target

SELECT = "causal: true, select: {top_k: 100, indexer: {heads: 8, head_dim: 64}}}"
LATENT = parse_spec("{heads: 4, latent: {rank: 64, rope: 16}, " + SELECT).kinds[0]
GROUPS = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 64, " + SELECT).kinds[0]
H100 = get_target("h100")


def names(kind, *length):
    return [plan.kernel for plan in plans_of(kind, H100, *length)]


def test_short_sequences_need_attention_alone():
    sparse = ["indexer", "select", "gathered"]
    assert names(LATENT) == names(LATENT, 101) == names(GROUPS, 101) == sparse
    assert names(LATENT, 100) == ["gathered"]
    assert names(GROUPS, 100) == ["forward"]
    assert names(GROUPS) == [*sparse, "forward"]


def test_the_forward_kernel_is_that_of_the_kind_without_a_selection():
    """So that what is tuned for the one serves the other."""
    plain = parse_spec("{heads: {query: 4, kv: 2}, head_dim: 64, causal: true}").kinds[0]
    assert attended_whole(GROUPS).digest() == plain.digest()
    assert plans_of(GROUPS, H100, 100) == (plan_forward(attended_whole(GROUPS)),)
