"""RESULTS.md: each benchmark writes its own section, between markers."""

from __future__ import annotations

import platform
import re
from argparse import ArgumentParser, Namespace
from importlib.metadata import version
from pathlib import Path
from typing import Any

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp")


def write_section(path: Path, name: str, text: str) -> None:
    """Replace what is between a section's markers in a file, or append the section.

    Args:
        path: The file; made when missing.
        name: The section's, as in ``<!-- name: begin -->``.
        text: Its new content, Markdown.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    section = f"{begin}\n{text.strip()}\n{end}\n"
    content = path.read_text(encoding="utf-8") if path.exists() else "# Benchmarks\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    if pattern.search(content):
        content = pattern.sub(lambda _: section, content)
    else:
        content = f"{content.rstrip()}\n\n{section}"
    path.write_text(content, encoding="utf-8")


def command_of(script: str, parser: ArgumentParser, options: Namespace) -> str:
    """The command line that gave these options, without defaults and without ``--out``.

    Args:
        script: Name of the file in benchmarks/.
        parser: Knows the defaults.
        options: What it has read.
    """
    given: dict[str, Any] = {
        name: value
        for name, value in vars(options).items()
        if name != "out" and value not in (None, parser.get_default(name))
    }
    words = (f"--{name}" if value is True else f"--{name} {value}" for name, value in given.items())
    return " ".join([f"python benchmarks/{script}", *words])


def machine(*packages: str) -> str:
    """Processor, what it can do, and versions; one line.

    Args:
        packages: Distributions whose versions matter.
    """
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    flags = [flag for flag in FLAGS if found and flag in found[1].split()]
    processor = f"{name[1].strip() if name else platform.machine()} ({', '.join(flags)})"
    versions = [f"{package} {version(package)}" for package in packages]
    return ", ".join([processor, f"Python {platform.python_version()}", *versions])
