"""The root command, and that docs/ tells of every command and option and of none that is not there."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from walras import __version__
from walras.cli.main import COMMANDS, main

DOCS = Path(__file__).parents[2] / "docs"


def commands(group: click.Group = main, path: str = "walras") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that it is called by."""
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            yield f"{path} {name}", command
            if isinstance(command, click.Group):
                yield from commands(command, f"{path} {name}")


def options(command: click.Command) -> list[str]:
    return [name for param in command.params if isinstance(param, click.Option)
            for name in [*param.opts, *param.secondary_opts]]  # fmt: skip


def sections() -> dict[str, str]:
    """The text of each section of the reference, by its heading."""
    parts = re.split(r"^## (.+)$", (DOCS / "reference" / "cli.md").read_text(), flags=re.MULTILINE)
    return {heading.strip("`"): text for heading, text in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize(("path", "command"), [pytest.param(*each, id=each[0]) for each in commands()])
def test_every_command_and_option_is_documented(path: str, command: click.Command) -> None:
    text = sections().get(path)
    assert text is not None, f"docs/reference/cli.md lacks a section `{path}`"
    missing = [name for name in options(command) if not re.search(rf"`{name}[` ,]", text)]
    assert not missing, f"docs/reference/cli.md, section `{path}` lacks {missing}"
    for param in command.params:
        assert not isinstance(param, click.Option) or param.help, (
            f"{path} {param.name} says nothing in --help"
        )


def test_no_command_or_option_is_documented_that_is_not_there() -> None:
    known = dict(commands())
    for heading, text in sections().items():
        if heading.startswith("walras "):
            assert heading in known
            listed = re.findall(r"^\| `(-[\w-]+)", text, flags=re.MULTILINE)
            assert set(listed) <= set(options(known[heading])), heading


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom walras.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'httpx', 'rich', 'yaml', 'msgspec', 'asyncio', 'uvloop', 'granian'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    lines = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert lines[-1] == "[]"
    shown = {line.split()[0] for line in lines if line.startswith("  ")}
    assert set(COMMANDS) <= shown


def test_version_is_told_in_words_and_as_data() -> None:
    assert CliRunner().invoke(main, ["--version"]).output == f"walras {__version__}\n"
    assert CliRunner().invoke(main, ["version"]).output.startswith(f"walras {__version__} (Kubernetes 1.")
    assert f'"walras": "{__version__}"' in CliRunner().invoke(main, ["version", "-o", "json"]).output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "Error: No such command 'nonsense' (see `walras --help`)"),
        (["--nonsense"], "Error: No such option '--nonsense' (see `walras --help`)"),
        (["bids", "--nonsense"], "Error: No such option '--nonsense' (see `walras bids --help`)"),
        (
            ["completion", "tcsh"],
            "'tcsh' is not one of 'bash', 'zsh', 'fish' (see `walras completion --help`)",
        ),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_and_exits_2(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert message in result.stderr


@pytest.mark.parametrize("arguments", [[], ["agent"]])
def test_a_group_alone_shows_its_help(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "Commands:" in result.output


def test_a_file_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device", "/some/file")

    monkeypatch.setattr("walras.cli.shell.emit", full)
    result = CliRunner().invoke(main, ["version"])
    assert (result.exit_code, result.stderr) == (1, "Error: /some/file: No space left on device\n")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_call_back(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0 and f"_WALRAS_COMPLETE={shell}_complete" in result.output


def test_commands_complete_with_their_descriptions() -> None:
    environment = {"_WALRAS_COMPLETE": "bash_complete", "COMP_WORDS": "walras co", "COMP_CWORD": "1"}
    result = CliRunner().invoke(main, [], env=environment)
    assert result.output.split() == ["plain,connect", "plain,cost", "plain,completion"]
