"""A file out of an image's archive, which an image's maker may have made to be anything."""

from __future__ import annotations

import tarfile
import tempfile
import threading
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walras.runtimes.base import ImageError
from walras.runtimes.engine.copying import _first_file, _Stream

DATA = b"words" + bytes(3 << 20) + b"end"


def archive(*entries: tuple[str, bytes, bytes]) -> bytes:
    """Entries are (name, type, data)."""
    text = BytesIO()
    with tarfile.open(fileobj=text, mode="w") as made:
        for name, kind, data in entries:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/shadow" if kind == tarfile.SYMTYPE else ""
            entry.size = len(data)
            made.addfile(entry, BytesIO(data))
    return text.getvalue()


def copied(text: bytes, into: Path, bytes_max: int = 1 << 30, piece: int = 70_000) -> None:
    stream = _Stream()

    def feed() -> None:
        for at in range(0, len(text), piece):
            stream.feed(text[at : at + piece])
        stream.feed(b"")

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        _first_file(stream, "/disk", into, bytes_max)
    finally:
        feeding.join()


def test_the_first_file_is_copied_and_links_directories_and_devices_are_passed_over(tmp_path: Path) -> None:
    text = archive(
        ("disk", tarfile.DIRTYPE, b""),
        ("disk/link", tarfile.SYMTYPE, b""),
        ("disk/device", tarfile.BLKTYPE, b""),
        ("../../out", tarfile.REGTYPE, DATA),
        ("disk/more", tarfile.REGTYPE, b"more"),
    )
    copied(text, tmp_path / "disk.img")
    assert (tmp_path / "disk.img").read_bytes() == DATA
    # Wherever the archive says that it belongs.
    assert [each.name for each in tmp_path.iterdir()] == ["disk.img"]


def test_what_is_too_large_or_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="more than 100 bytes"):
        copied(archive(("disk/x", tarfile.REGTYPE, DATA)), tmp_path / "a", 100)
    with pytest.raises(ImageError, match="no file in /disk"):
        copied(archive(("disk", tarfile.DIRTYPE, b"")), tmp_path / "b")
    assert not list(tmp_path.iterdir())


WHOLE = archive(("disk/x", tarfile.REGTYPE, b"words" * 500))


@given(st.integers(0, len(WHOLE)), st.lists(st.tuples(st.integers(0, 1024), st.integers(0, 255)), max_size=6))
def test_an_archive_that_is_cut_or_spoilt_is_an_error_of_the_image_or_a_file(
    end: int, spoilt: list[tuple[int, int]]
) -> None:
    text = bytearray(WHOLE)
    for at, value in spoilt:
        text[at] = value
    with tempfile.TemporaryDirectory() as directory:
        try:
            copied(bytes(text[:end]), Path(directory) / "x", 1 << 20, 300)
        except (ImageError, OSError):
            return
        assert (Path(directory) / "x").stat().st_size <= 1 << 20
