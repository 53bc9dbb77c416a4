"""Pages: whole manifests, command lines that exist, links that lead somewhere, an index that has them all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml
from support import docs

from walras.cli.main import main
from walras.devices.request import GpuRequest, gpu_request

PAGES = docs.pages()
LANGUAGES = ("", "bash", "console", "text", "yaml")


def page_id(page: Path) -> str:
    return str(page.relative_to(docs.ROOT))


def known(group: click.Group = main, path: str = "walras") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that it is called by."""
    yield path, group
    with click.Context(group) as ctx:
        for name in group.list_commands(ctx):
            command = group.get_command(ctx, name)
            assert command is not None
            if isinstance(command, click.Group):
                yield from known(command, f"{path} {name}")
            else:
                yield f"{path} {name}", command


COMMANDS = dict(known())


def command_lines(page: Path) -> Iterator[str]:
    """Every `walras ...` of a page, in blocks and in the text."""
    for block in docs.blocks(page):
        if block.language in ("bash", "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                yield line.removeprefix("$ ").strip()
    yield from docs.code(page)


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_walras_command_on_a_page_exists_with_its_options(page: Path) -> None:
    for line in command_lines(page):
        if not re.match(r"walras( |$)", line):
            continue
        words = re.split(r" (?:--|#|\||>|&&?)(?: |$)", line)[0].split()
        path = max((path for path in COMMANDS if words[: len(path.split())] == path.split()), key=len)
        rest, command = words[len(path.split()) :], COMMANDS[path]
        if isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
            assert rest[0] == "COMMAND", f"{page_id(page)}: {line}: no such command"
            continue
        options = {
            name
            for param in command.params
            if isinstance(param, click.Option)
            for name in [*param.opts, *param.secondary_opts]
        }
        given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
        assert given <= {*options, "-h", "--help"}, f"{page_id(page)}: {line}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_links_lead_to_files_and_headings_that_there_are(page: Path) -> None:
    for link in docs.links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve()
        assert target.exists(), f"{page_id(page)} links to {link}"
        assert not anchor or anchor in docs.anchors(target), f"{page_id(page)} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_blocks_say_what_they_are(page: Path) -> None:
    for block in docs.blocks(page):
        assert block.language in LANGUAGES, block.where
        if block.language == "console":
            assert block.commands(), f"{block.where}: a console block without a `$ ` line"


def manifests() -> Iterator[tuple[docs.Block, dict[str, object]]]:
    for page in PAGES:
        for block in docs.blocks(page):
            if block.language == "yaml":
                for manifest in yaml.safe_load_all(block.text):
                    yield block, manifest


def test_manifests_are_whole_and_ask_for_gpus_that_there_can_be() -> None:
    requests = set()
    for block, manifest in manifests():
        assert {"apiVersion", "kind", "metadata"} <= set(manifest), block.where
        spec = manifest.get("spec") or {}
        assert isinstance(spec, dict)
        requests.add(gpu_request(spec.get("template", manifest).get("spec") or {}))
    assert {GpuRequest(1, 250, 4096), GpuRequest(1, 250), GpuRequest(1, 1000)} <= requests


def test_a_manifest_that_is_to_be_saved_is_used_by_a_command_of_its_page() -> None:
    for block, _ in manifests():
        others = "\n".join(each.text for each in docs.blocks(block.page) if each.language == "console")
        assert not block.file_name or block.file_name in others, block.where


def test_the_index_has_every_page() -> None:
    index = docs.DOCS / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in docs.links(index)}
    pages = {page for page in docs.DOCS.rglob("*.md") if page != index and page.parent.name != "decisions"}
    assert pages <= linked
    decisions = docs.DOCS / "decisions" / "README.md"
    listed = {(decisions.parent / link).resolve() for link in docs.links(decisions)}
    assert set(decisions.parent.glob("[0-9]*.md")) <= listed


def test_what_is_left_out_of_the_run_is_little_and_says_why() -> None:
    skipped = [block for page in PAGES for block in docs.blocks(page) if block.not_run]
    shown = [block for page in PAGES for block in docs.blocks(page) if block.language in ("console", "bash")]
    assert len(skipped) <= 16 < len(shown) / 4
    assert all(len(block.not_run.split()) >= 3 for block in skipped)
