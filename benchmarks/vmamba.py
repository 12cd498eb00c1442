"""VMamba-T's scan in plain PyTorch: ours against the published code's own fallback for processors.

    python benchmarks/vmamba.py --out benchmarks/RESULTS.md

The published network scans with a CUDA kernel; where there is none, its reference steps through the
sequence by slices of (batch, channels, length, states) tensors, which autograd then sums up slice
by slice. That network is written out here in our own words: channels first, 1x1 convolutions, a
projection for every direction, the scan by slices, float32. Forward and backward of the whole
network, and of the 2-D scan of its first block alone. The two take turns; processor time of one
thread is what counts, which a busy machine stretches less. Aims: at least 2 times the reference at
64 px, 10 times at 224 px; in ONNX Runtime at least 25 images a second at 64 px, which ``--onnx
FOLDER`` measures on an exported folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from results import machine, write_section
from torch import Tensor, nn

from clever_hub.backends import own
from clever_hub.backends.vmamba_blocks import SS2D


def published(model: Any, x: Tensor) -> Tensor:
    """The published network as it is built: channels first, 1x1 convolutions, the slow scan.

    Args:
        model: Our model, whose weights are used.
        x: (batch, 3, height, width).

    Returns:
        Embeddings (batch, 768).
    """
    stem = model.patch_embed
    x = F.gelu(_norm(stem[2], stem[0](x)))
    x = _norm(stem[7], stem[5](x))
    for stage in model.layers:
        for block in stage.blocks:
            x = x + sequential_ss2d(block.op, _norm(block.norm, x))
            hidden = F.gelu(_linear(block.mlp.fc1, _norm(block.norm2, x)))
            x = x + _linear(block.mlp.fc2, hidden)
        if isinstance(stage.downsample, nn.Sequential):
            x = _norm(stage.downsample[3], stage.downsample[1](x))
    return _norm(model.classifier.norm, x).mean(dim=(2, 3))


def sequential_ss2d(op: SS2D, x: Tensor) -> Tensor:
    """The 2-D scan with the reference's recurrence, by slices.

    Args:
        op: The layer whose weights are used.
        x: (batch, channels, height, width).

    Returns:
        The same shape.
    """
    x = F.silu(op.conv2d(_linear(op.in_proj, x)))
    batch, dim, height, width = x.shape
    length, ways = height * width, 4
    rows, columns = x.flatten(2), x.transpose(2, 3).flatten(2)
    u = torch.stack([rows, columns, rows.flip(-1), columns.flip(-1)], dim=1)
    found = torch.einsum("bkdl,kcd->bkcl", u, op.x_proj_weight)
    low, inputs, outputs = found.split([op.rank, op.state, op.state], dim=2)
    steps = torch.einsum("bkrl,kdr->bkdl", low, op.dt_projs_weight)
    delta = F.softplus(steps + op.dt_projs_bias[None, :, :, None])
    decay = -torch.exp(op.A_logs).view(ways, dim, op.state)
    factors = torch.exp(torch.einsum("bkdl,kdn->bkdln", delta, decay))
    added = torch.einsum("bkdl,bknl,bkdl->bkdln", delta, inputs, u)
    h = torch.zeros(batch, ways, dim, op.state)
    ys = []
    for t in range(length):
        h = factors[:, :, :, t] * h + added[:, :, :, t]
        ys.append(torch.einsum("bkdn,bkn->bkd", h, outputs[..., t]))
    y = torch.stack(ys, dim=3) + u * op.Ds.view(ways, dim)[None, :, :, None]
    forth = y[:, :2] + y[:, 2:].flip(-1)
    rows = forth[:, 0].unflatten(-1, (height, width))
    columns = forth[:, 1].unflatten(-1, (width, height)).transpose(2, 3)
    return _linear(op.out_proj, _norm(op.out_norm, rows + columns))


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.conv2d(x, layer.weight[:, :, None, None], layer.bias)


def _norm(layer: nn.Module, x: Tensor) -> Tensor:
    result: Tensor = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    return result


def timed(runs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median processor seconds of each, taking turns."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    return {name: median(times) for name, times in taken.items()}


def backward(function: Callable[[], Tensor]) -> Callable[[], None]:
    """Forward and backward."""
    return lambda: function().sum().backward()  # type: ignore[no-untyped-call]


def cases(model: Any, size: int, batch: int) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """The first block's 2-D scan alone, and the whole network, in both ways."""
    images, side = torch.randn(batch, 3, size, size), size // 4
    x = torch.randn(batch, 96, side, side, requires_grad=True)
    op = model.layers[0].blocks[0].op
    return {
        f"2-D scan of the first block, {side * side} positions": {
            "reference": lambda: sequential_ss2d(op, x),
            "ours": lambda: op(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2),
        },
        f"VMamba-T, {size} px": {
            "reference": lambda: published(model, images),
            "ours": lambda: model(images),
        },
    }


def measure(options: argparse.Namespace) -> str:
    """A table in Markdown."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    own.register("vmamba_tiny")
    model = timm.create_model("vmamba_tiny", num_classes=0)
    lines = [
        "| forward and backward, one thread | batch | reference | ours | ratio |",
        "|---|---:|---:|---:|---:|",
    ]
    for size, batch, repeats in ((64, 4, options.repeats), (64, 32, options.repeats), (224, 2, 1)):
        for name, runs in cases(model, size, batch).items():
            with torch.no_grad():
                expected, found = (function() for function in runs.values())
            difference = ((found - expected).abs().max() / expected.abs().max()).item()
            if difference > 1e-4:
                raise SystemExit(f"{name}: the two do not compute the same: {difference:.1e}")
            model.zero_grad(set_to_none=False)
            taken = timed({way: backward(function) for way, function in runs.items()}, repeats)
            rates = {way: batch / seconds for way, seconds in taken.items()}
            lines.append(
                f"| {name} | {batch} | {rates['reference']:.3g} images/s "
                f"| {rates['ours']:.3g} images/s | {rates['ours'] / rates['reference']:.1f} |"
            )
    return "\n".join(lines) + "\n"


def measure_onnx(folder: Path, repeats: int) -> str:
    """ONNX Runtime on one thread, against torch on one thread."""
    import onnxruntime

    import clever_hub

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = settings.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), settings)
    model: Any = clever_hub.from_pretrained(folder)
    size = model.config.preprocessing.crop_size
    lines = [
        f"| forward, {size} px, one thread | batch | torch | ONNX Runtime |",
        "|---|---:|---:|---:|",
    ]
    for batch in (1, 8):
        pixels = np.random.default_rng(0).normal(size=(batch, 3, size, size)).astype(np.float32)
        images = torch.from_numpy(pixels)

        def torchs(images: Tensor = images) -> None:
            with torch.inference_mode():
                model(images)

        taken = timed(
            {
                "torch": torchs,
                "onnx": lambda pixels=pixels: session.run(None, {"pixel_values": pixels}),  # type: ignore[misc]
            },
            repeats,
        )
        rates = {way: batch / seconds for way, seconds in taken.items()}
        lines.append(
            f"| {model.config.architecture} | {batch} | {rates['torch']:.1f} images/s "
            f"| {rates['onnx']:.1f} images/s |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=5, help="turns at 64 px; 224 px has one")
    parser.add_argument("--onnx", type=Path, help="an exported folder, to be timed as well")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    text = measure(options)
    if options.onnx:
        text += "\n" + measure_onnx(options.onnx, options.repeats)
    print(text)
    if options.out:
        about = machine("torch", "timm")
        shown = f"python benchmarks/vmamba.py --repeats {options.repeats}"
        shown += " --onnx FOLDER" if options.onnx else ""
        title = "## VMamba-T in plain PyTorch: our scan against the published reference\n\n"
        write_section(options.out, "vmamba", f"{title}`{shown}`; {about}.\n\n{text}")


if __name__ == "__main__":
    main()
