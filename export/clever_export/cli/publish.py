"""``clever-hub publish``; heavy imports are inside the function."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clever_hub.cli.console import file_size, output

if TYPE_CHECKING:
    from rich.table import Table

    from clever_export.push import Plan

# Lines to copy are neither wrapped nor highlighted.
_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def run(
    folder: Annotated[Path, typer.Argument(help="A model folder, as `export` writes it.")],
    repo_id: Annotated[
        str, typer.Option(help="The repository on the Hugging Face Hub, user/name.")
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make the repository private.")
    ] = False,
    tag: Annotated[str | None, typer.Option(help="A tag for this version, such as v1.0.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check and compare; change nothing.")
    ] = False,
) -> None:
    """Publish a model folder on the Hugging Face Hub.

    The folder is checked first: it must load strictly, have passed `clever-hub verify`, have a
    complete card, and contain no other files. Files that differ from the repository are sent in one
    commit. Publishing an unchanged folder sends nothing. A commit made by another user in the
    meantime is never overwritten. After a broken connection, run the command again: files that have
    arrived are not sent twice.

    The access token is that of `hf auth login`, or HF_TOKEN.

    Examples:
    - `clever-hub publish my-model --repo-id user/my-model --dry-run`
    - `clever-hub publish my-model --repo-id user/my-model --tag v1.0`
    """
    from clever_export.push import plan, send

    planned = plan(folder, repo_id, private=private, tag=tag)
    console = output()
    console.print(_table(planned))
    total = sum(file.size for file in planned.changes)
    to_send = f"{len(planned.changes)} of {len(planned.files)} files, {file_size(total)}"
    if dry_run:
        access = ", private" if private else ""
        what = f"would be made{access}" if planned.parent is None else "is there"
        tagged = f", tagged {tag}" if tag and planned.tagged is None else ""
        console.print(f"Dry run: {repo_id} {what}; {to_send} would be sent{tagged}.", **_PLAIN)
        return
    published = send(planned, folder, private=private, tag=tag)
    done = f"Sent {to_send}" if published.sent else "Nothing to send: the same is there already"
    tagged = f", tagged {tag}" if tag else ""
    console.print(f"{done}.\n{published.url} at commit {published.commit}{tagged}", **_PLAIN)
    # The whole commit: the Hub knows no shorter ones.
    name = tag or published.commit
    console.print(f'Load it: clever_hub.from_pretrained("{repo_id}", revision="{name}")', **_PLAIN)


def _table(planned: Plan) -> Table:
    from rich.table import Table

    table = Table(title=planned.repo_id, title_justify="left")
    table.add_column("file", no_wrap=True)
    table.add_column("bytes", justify="right")
    table.add_column("")
    for file in planned.files:
        table.add_row(file.name, f"{file.size:,}", file.state)
    return table
