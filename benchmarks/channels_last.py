"""Torch on a CPU: images in channels_last against the usual order, side by side.

    python benchmarks/channels_last.py --out benchmarks/RESULTS.md

Each network embeds the same random images in both orders in turn, on one thread, timed by processor
time, which a busy machine does not stretch; the best of the rounds counts. `encode` uses the order
where `faster_in_channels_last` says so: it must never be below 1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from results import command_of, machine, write_section

import clever_hub
from clever_hub.backends.timm import build_backbone, faster_in_channels_last

SHIPPED = ("clever-efficientnet-lite0", "clever-resnet18", "clever-resnet50", "clever-vit-tiny")
OTHERS = ("mobilenetv2_100", "mobilenetv3_small_100", "mnasnet_100", "mixnet_s")
BATCHES = (1, 32)


def ratio(network: torch.nn.Module, images: torch.Tensor, rounds: int) -> tuple[float, float]:
    """How many times as fast in channels_last, and the largest difference, relative."""
    orders = (torch.contiguous_format, torch.channels_last)
    taken: dict[torch.memory_format, list[float]] = {order: [] for order in orders}
    found: dict[torch.memory_format, torch.Tensor] = {}
    with torch.inference_mode():
        for _ in range(rounds + 1):
            for order in orders:
                start = time.process_time()
                found[order] = network(images.to(memory_format=order))
                taken[order].append(time.process_time() - start)
    usual, other = (min(taken[order][1:]) for order in orders)
    expected = found[orders[0]]
    apart = (found[orders[1]] - expected).abs().max() / expected.abs().max()
    return usual / other, float(apart)


def networks() -> list[tuple[str, torch.nn.Module, int]]:
    """Name, network and side of its images."""
    found = []
    for name in SHIPPED:
        model = clever_hub.from_pretrained(name)
        assert isinstance(model, clever_hub.backends.torch.CleverModel)
        found.append((name, model.backbone, model.config.preprocessing.crop_size))
    return found + [(name, build_backbone(name).eval(), 160) for name in OTHERS]


def measure(rounds: int) -> str:
    """A table in Markdown."""
    heads = " | ".join(f"batch of {batch}" for batch in BATCHES)
    lines = [
        f"Times as fast in channels_last as in the usual order, best of {rounds} rounds:\n",
        f"| network | side | {heads} | vectors differ by | `encode` uses it |",
        "|---|---:|" + "---:|" * len(BATCHES) + "---:|---|",
    ]
    random = torch.Generator().manual_seed(0)
    for name, network, side in networks():
        images = (torch.randn(batch, 3, side, side, generator=random) for batch in BATCHES)
        ratios = [ratio(network, one, rounds) for one in images]
        cells = " | ".join(f"{times:.2f}" for times, _ in ratios)
        used = "yes" if faster_in_channels_last(network) else "no"
        apart = max(apart for _, apart in ratios)
        lines.append(f"| {name} | {side} | {cells} | {apart:.0e} | {used} |")
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count")
    parser.add_argument("--out", type=Path, help="file whose section is replaced")
    options = parser.parse_args()
    torch.set_num_threads(1)
    text = measure(options.rounds)
    if options.out:
        title = "## Torch on a CPU: the order of pixels in memory\n\n"
        command = command_of("channels_last.py", parser, options)
        body = f"{title}`{command}`; {machine('torch', 'timm')}, one thread.\n\n{text}"
        write_section(options.out, "channels_last", body)


if __name__ == "__main__":
    main()
