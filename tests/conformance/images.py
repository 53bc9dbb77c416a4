"""The images of the specs: agnhost as it is, on Debian's programs, and stand-ins for the others."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support import reference

_E2E: Final = "registry.k8s.io/e2e-test-images"
_BASE: Final = "localhost/conformance"
_AGNHOST: Final = ('ENTRYPOINT ["/agnhost"]', 'CMD ["pause"]')
_WEBSERVER: Final = ('ENTRYPOINT ["/agnhost"]', 'CMD ["test-webserver"]')
_SHELL: Final = ('CMD ["sh"]',)
_NGINX: Final = ('CMD ["nginx", "-c", "/etc/nginx/plain.conf"]',)
_PATH: Final = "ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FILES: Final = {
    "etc/passwd": (
        "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
        "user-defined-in-image:x:1000:1000::/:\n"
    ),
    "etc/group": (
        "root:x:0:\nnogroup:x:65534:\nuser:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
    ),
    "etc/nsswitch.conf": "hosts: files dns\n",
    "etc/nginx/plain.conf": (
        "daemon off;\nuser nobody nogroup;\nerror_log stderr;\nevents {}\n"
        "http { access_log /dev/stdout; server { listen 80; root /usr/share/nginx/html; } }\n"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Image:
    """What an image of the specs has beyond the root of all of them."""

    name: str
    changes: tuple[str, ...]
    # A folder of the reference's, whose files are in its root.
    files: str = ""


_IMAGES: Final = (
    _Image(f"{_E2E}/agnhost:2.63.0", _AGNHOST),
    _Image(f"{_E2E}/agnhost:2.55", _AGNHOST),
    _Image(f"{_E2E}/kitten:1.8", _WEBSERVER, "kitten"),
    _Image(f"{_E2E}/nautilus:1.8", _WEBSERVER, "nautilus"),
    _Image(f"{_E2E}/busybox:1.37.0-1", _SHELL),
    _Image(f"{_E2E}/glibc-dns-testing:2.0.0", _SHELL),
    _Image(f"{_E2E}/nginx:1.15-4", _NGINX),
    _Image(f"{_E2E}/nginx:1.27-0", _NGINX),
    _Image(f"{_E2E}/nonewprivs:1.4", ('CMD ["nnp"]',), "nonewprivs"),
    _Image(f"{_E2E}/nonroot:1.5", ("USER 1234", *_SHELL)),
    _Image("registry.k8s.io/pause:3.10.2", ('ENTRYPOINT ["/agnhost", "pause"]',)),
)


def make(engine: Path, work: Path) -> None:
    """Has them in the engine of a server whose folder of it is `engine`; `work` is for what that takes."""
    archive = _root(work / "root")
    _podman(engine, "import", str(archive), _BASE)
    for image in _IMAGES:
        context = work / "context"
        context.mkdir(exist_ok=True)
        copied: tuple[str, ...] = ()
        if image.files:
            shutil.copytree(reference.folder() / "images" / image.files, context / image.files)
            copied = (f"COPY {image.files}/ /",)
        lines = (f"FROM {_BASE}", *copied, _PATH, *image.changes)
        (context / "Containerfile").write_text("\n".join(lines) + "\n")
        _podman(engine, "build", "--quiet", "--pull=never", f"--tag={image.name}", str(context))


def _root(root: Path) -> Path:
    """The archive of what all of them have: Debian's programs, busybox's applets, agnhost."""
    shutil.copytree(reference.folder() / "images" / "root", root, symlinks=True)
    shutil.copy(reference.folder() / "agnhost", root / "agnhost")
    (root / "agnhost-2").symlink_to("agnhost")
    (root / "uploads").mkdir()
    applets = subprocess.run(
        [root / "bin" / "busybox", "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    # Busybox's shell gives programs no variables whose names are none in a shell; specs have some.
    (root / "bin" / "sh").symlink_to("bash")
    (root / "bin" / "nc").symlink_to("nc.openbsd")
    for applet in applets:
        if not any((root / folder / applet).exists() for folder in ("bin", "sbin")):
            (root / "bin" / applet).symlink_to("busybox")
    for name, text in _FILES.items():
        (root / name).write_text(text)
    for folder in ("tmp", "uploads"):
        (root / folder).chmod(0o1777)
    return Path(shutil.make_archive(str(root), "tar", root))


def _podman(engine: Path, *words: str) -> None:
    env = {
        **os.environ,
        "CONTAINERS_CONF": str(engine / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(engine / "storage.conf"),
    }
    done = subprocess.run(["podman", *words], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"podman {' '.join(words)}: {done.stderr.strip()}")
