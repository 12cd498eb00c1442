"""The command ``clever-hub``: finds its verbs through entry points and runs one.

Each entry point of the group ``clever_hub.commands`` names a function, ``module:function [extra]``.
Its module must import quickly and without optional dependencies, so that every verb is listed in
every install. When a dependency of a verb is missing, the message names the extra to install.
"""

from __future__ import annotations

import io
import re
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

import clever_hub
from clever_hub.cli.console import fail
from clever_hub.cli.stopping import clean_stop
from clever_hub.errors import CleverError, missing_extra

GROUP = "clever_hub.commands"
# The order of the help; verbs that are not named here follow by name.
_ORDER = (
    *("list", "info", "embed", "compare", "relate", "duplicates", "orient"),
    *("index", "search", "leaks"),
    *("pretrain", "evaluate", "finetune", "views", "plot", "report", "heads", "split", "attention"),
    *("import", "export", "verify", "publish"),
)
# Scripts and published model cards use them.
_EARLIER_NAMES = {"--out": "--output", "--report": "--output"}
# A key of a recipe, such as run.precision, is no option.
# Nor is a folder that is named so, as in photos/device=phone/a.jpg.
_KEYWORD = re.compile(
    r"""(?<![.\w/\\])(backend|device|precision|revision)=["']?([\w:]+)["']?(?![\w/\\])"""
)
_PANELS = {"clever_training": "Train and measure", "clever_export": "Package and publish"}


def verbs() -> dict[str, EntryPoint]:
    """Every verb that is installed, in the order of the help."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    rank = {name: place for place, name in enumerate(_ORDER)}
    return {name: found[name] for name in sorted(found, key=lambda n: (rank.get(n, 99), n))}


class VerbGroup(TyperGroup):
    """Loads a verb when it is run or described, and turns errors into one clean message."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self._entries = verbs()
        # Suggestions need the names before the commands are loaded.
        self.commands = cast("Any", dict.fromkeys(self._entries))

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """The verbs, in the order of the help."""
        return list(self._entries)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Load one verb; None when there is none of this name."""
        if cmd_name in self._entries and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _command(self._entries[cmd_name])
        return self.commands.get(cmd_name)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. CleverError and OSError end it with one message and exit code 1.

        Ctrl-C and SIGTERM end it with one line and exit code 130 or 143.
        """
        with clean_stop(lambda: ctx.invoked_subcommand):
            return self._invoke(ctx)

    def _invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CleverError as error:
            fail(_in_words_of_the_command_line(str(error)))
        except BrokenPipeError:
            raise  # the reader of the pipe has closed it; typer ends quietly
        except OSError as error:
            what = error.strerror or str(error) or type(error).__name__
            fail(f"{error.filename}: {what}" if error.filename else what)
        except ModuleNotFoundError as error:
            entry = self._entries.get(ctx.invoked_subcommand)
            if entry is None or not entry.extras or _is_ours(error.name):
                raise
            fail(str(missing_extra(error.name or "a module", entry.extras[0])))


class Verb(TyperCommand):
    """A command whose options also answer to their earlier names, which the help does not show."""

    def make_parser(self, ctx: Any) -> Any:
        """The parser, with the earlier names added."""
        parser: Any = super().make_parser(ctx)
        taken = {name for option in self.params for name in option.opts}
        for option in self.params:
            for earlier, name in _EARLIER_NAMES.items():
                if name in option.opts and earlier not in taken:
                    parser.add_option(option, [earlier], dest=option.name, nargs=option.nargs)
        return parser


def _command(entry: EntryPoint) -> Any:
    """Turn the function that an entry point names into a command."""
    holder = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    panel = _PANELS.get(entry.module.partition(".")[0], "Use a model")
    try:
        function = entry.load()
    except ImportError as error:
        function = _refusal(entry, error)
    holder.command(name=entry.name, cls=Verb, rich_help_panel=panel)(function)
    return typer.main.get_command(holder)


def _refusal(entry: EntryPoint, error: ImportError) -> Any:
    """A stand-in for a verb that cannot be imported; running it says what is missing."""
    if not entry.extras or _is_ours(error.name):
        raise error
    missing = missing_extra(error.name or entry.module, entry.extras[0])

    def run(_: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
        raise missing

    run.__doc__ = str(missing)
    return run


def _in_words_of_the_command_line(message: str) -> str:
    """A message in which options are spelt as one types them here, not as keywords of Python."""
    return _KEYWORD.sub(r"--\1 \2", message)


def _is_ours(module: str | None) -> bool:
    """Whether a module belongs to this distribution: then no extra installs it."""
    return (module or "").partition(".")[0] in {"clever_hub", *_PANELS}


app = typer.Typer(
    cls=VerbGroup,
    name="clever-hub",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clever-hub {clever_hub.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """CLeVER models: images in, an invariant and an equivariant embedding out.

    Begin with `clever-hub list`, then `clever-hub embed MODEL photos/ -o photos.parquet`. Each
    command explains itself: `clever-hub embed --help`.
    """


def main() -> None:
    """The entry point of the command ``clever-hub``."""
    # What the encoding of a terminal or a pipe lacks, such as an arrow, is written as an escape.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
