"""Whether this machine computes bf16 itself."""

from __future__ import annotations

import torch


def computes_bf16() -> bool:
    """Whether bf16 is native here; emulated it is many times slower than float32.

    Returns:
        Of the GPU where there is one, else of the processor with oneDNN, which not every build of
        torch has.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = built and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
