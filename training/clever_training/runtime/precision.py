"""Whether this machine supports bf16 in hardware."""

from __future__ import annotations

import torch


def computes_bf16() -> bool:
    """Whether bf16 is supported in hardware; emulated bf16 is many times slower than float32.

    Returns:
        The answer for the GPU if there is one, else for the CPU with oneDNN, which some builds of
        torch lack.
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    known = built and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    return known and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
