# SPDX-License-Identifier: GPL-3.0-or-later
"""The attention that all transformers share."""

from __future__ import annotations

import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of q (heads, N, width) to k and v (heads, M, width) as (N, heads x width).

    Views are copied first: on Apple's GPUs several versions of torch attend wrongly, in silence, to any that are not contiguous
    (https://github.com/pytorch/pytorch/issues/163597, https://github.com/pytorch/pytorch/issues/181133).
    """
    q, k, v = (each[None].contiguous() for each in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v)[0].transpose(0, 1).flatten(1)
