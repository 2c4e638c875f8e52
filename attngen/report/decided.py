"""What is known of a kind before run time, for kinds whose selections or documents only a call decides."""

from __future__ import annotations

from dataclasses import replace

from attngen.spec.model import Kind, Spec

SHORTEST, USUAL, LONGEST = 2048, 8192, 65536  # lengths that a picture is drawn at when nobody says


def decided(kind: Kind) -> tuple[Kind, tuple[str, ...]]:
    """``kind`` without the fields that run time decides, and the names of those left out."""
    left_out = tuple(name for name in ("select", "blocks", "documents") if getattr(kind, name))
    return replace(kind, select=None, blocks=None, documents=False, latent=None, branches=()), left_out


def telling_length(spec: Spec) -> int:
    """A power of two long enough to show every window and chunk of ``spec``, and not much longer."""
    furthest = max(reach(one) for kind in spec.kinds for one in (kind, *kind.branches))
    if furthest == 0:
        return USUAL
    return min(max(SHORTEST, 1 << (4 * furthest - 1).bit_length()), LONGEST)


def reach(kind: Kind) -> int:
    """The furthest that a number of the mask reaches."""
    window = (kind.window.left or 0, kind.window.right or 0) if kind.window is not None else ()
    prefix = kind.prefix if isinstance(kind.prefix, int) else 0
    return max(*window, kind.chunk or 0, prefix, kind.always_first or 0, kind.global_tokens or 0, 0)
