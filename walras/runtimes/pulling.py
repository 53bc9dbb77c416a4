"""Seeing to it that a container's image is there before it starts, as kubelet's image manager does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from walras.runtimes import image_names
from walras.runtimes.backoff import FIRST_S, Backoff
from walras.runtimes.base import ImageError, Images
from walras.runtimes.records import Record
from walras.runtimes.waiting import first

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = dict[str, Any]
# How long a failure is shown as itself before the container is said to wait for another try.
_SHOWN_S: Final = 2.0


class Puller:
    """Gets one container's image, through all its attempts."""

    def __init__(
        self, worker: PodWorker, container: Object, record: Record, failed: Callable[[], None]
    ) -> None:
        """`failed` is called when the image cannot be had at once."""
        self._tell = failed
        self._worker, self._record = worker, record
        self._image = str(container.get("image") or "")
        self._policy = str(container.get("imagePullPolicy") or "IfNotPresent")
        self._backoff = Backoff(FIRST_S)

    async def ready(self, images: Images) -> str:
        """The image's id; "" when the pod is to end before it is there."""
        while not self._worker.stopping:
            try:
                found = await self._once(images)
            except ImageError as error:
                await self._failed(error)
            else:
                if found:
                    self._record.image_id = found
                    self._backoff = Backoff(FIRST_S)
                return found
        return ""

    async def _once(self, images: Images) -> str:
        """The same after one try. Raises ImageError."""
        worker, image = self._worker, self._image
        name = image_names.tagged(image)
        if not name:
            message = image_names.invalid(image)
            worker.event("Warning", "InspectFailed", message)
            raise ImageError(message, "InvalidImageName")
        keys = image_names.keys(self._secrets(), name)
        if self._policy != "Always":
            found = await images.find(worker.ref, name, keys)
            if found:
                present = "already present on machine and can be accessed by the pod"
                worker.event("Normal", "Pulled", f'Container image "{image}" {present}')
                return found
            if self._policy == "Never":
                message = f'Container image "{image}" is not present with pull policy of Never'
                worker.event("Warning", "ErrImageNeverPull", message)
                raise ImageError(message, "ErrImageNeverPull")
        worker.event("Normal", "Pulling", f'Pulling image "{image}"')
        began_ms = worker.services.clock.now_ms()
        pulling = asyncio.ensure_future(images.pull(worker.ref, name, keys))
        try:
            # A registry may take as long as it likes, which is not to hold up the end of the pod.
            if not await first(pulling, worker.ending()):
                return ""
            found, size = pulling.result()
        except ImageError as error:
            worker.event("Warning", "Failed", f'Failed to pull image "{image}": {error.message}')
            raise
        took = _spoken(worker.services.clock.now_ms() - began_ms)
        said = f'Successfully pulled image "{image}" in {took} ({took} including waiting).'
        worker.event("Normal", "Pulled", f"{said} Image size: {size} bytes.")
        return found

    def _secrets(self) -> list[Object]:
        worker = self._worker
        names = [str(each.get("name")) for each in worker.pod["spec"].get("imagePullSecrets") or ()]
        found = {name: worker.lookup("secrets", name) for name in names}
        if missing := [name for name, secret in found.items() if secret is None]:
            message = f"Unable to retrieve some image pull secrets ({', '.join(missing)}); "
            message += "attempting to pull the image may not succeed."
            worker.event("Warning", "FailedToRetrieveImagePullSecret", message)
        return [dict(secret) for secret in found.values() if secret is not None]

    async def _failed(self, error: ImageError) -> None:
        """Says so, and waits until it may be tried again."""
        worker, record = self._worker, self._record
        self._tell()
        worker.event("Warning", "Failed", f"Error: {error.reason}")
        record.wait(error.reason, error.message)
        worker.publish()
        if error.reason != "ErrImagePull":
            await worker.pause(FIRST_S)
            return
        delay_s = self._backoff.delay_s(0)
        if not await worker.pause(_SHOWN_S):
            return
        said = f'Back-off pulling image "{self._image}"'
        worker.event("Normal", "BackOff", said)
        worker.event("Warning", "Failed", "Error: ImagePullBackOff")
        record.wait("ImagePullBackOff", f"{said}: {error.reason}: {error.message}")
        worker.publish()
        await worker.pause(delay_s - _SHOWN_S)


def _spoken(ms: int) -> str:
    """As Go prints a duration of whole milliseconds."""
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest = divmod(ms, 60_000)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{seconds}" if minutes else seconds
