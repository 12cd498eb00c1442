"""bf16 is chosen where the machine computes it itself."""

from __future__ import annotations

import pytest
import torch

from clever_training.runtime.precision import computes_bf16


@pytest.mark.parametrize("native", [False, True])
def test_emulated_bf16_of_an_older_gpu_does_not_count(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert computes_bf16() == native
