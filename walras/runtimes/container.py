"""One container of a pod, through all its attempts."""

from __future__ import annotations

import asyncio
import posixpath
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from walras.core.clock import parse_rfc3339
from walras.core.errors import WalrasError
from walras.runtimes import messages, podfiles
from walras.runtimes.admission import container_limits
from walras.runtimes.backoff import Backoff
from walras.runtimes.base import ContainerSpec, CreateError, ExitStatus, Mount, Process, StartError, Traits
from walras.runtimes.claimed import devices_of
from walras.runtimes.environment import ConfigError, EnvSource, NotYet, command, environment
from walras.runtimes.pulling import Puller
from walras.runtimes.records import CRASH_LOOP, Record
from walras.runtimes.resources import by_name
from walras.runtimes.running import Running
from walras.runtimes.sandbox import START_CODE
from walras.runtimes.security import security_of
from walras.runtimes.volumes import Volume, mounts

if TYPE_CHECKING:
    from walras.runtimes.podworker import PodWorker

Object = dict[str, Any]
# As often as the kubelet looks at a pod again when a container could not be made.
_CREATE_AGAIN_S: Final = 10.0


class ContainerLoop:
    """Runs a container until it is over for good or the pod is to end.

    `tried` is set when the first attempt has begun, or cannot; `started` when what waits for it may go on.
    """

    def __init__(
        self, worker: PodWorker, container: Object, record: Record, volumes: Mapping[str, Volume]
    ) -> None:
        self._worker, self._services = worker, worker.services
        self._container, self._record, self._volumes = container, record, volumes
        self._backoff = Backoff()
        self.tried, self.started = asyncio.Event(), asyncio.Event()
        self._puller = Puller(worker, container, record, self.tried.set)

    async def run(self) -> bool:
        """Whether the container's last attempt succeeded."""
        try:
            return await self._run()
        finally:
            self.tried.set()

    async def _run(self) -> bool:
        record, worker = self._record, self._worker
        again = record.ended is not None or bool(record.last)
        while not worker.stopping:
            if again and record.name in worker.resizing.restarts:
                worker.resizing.restarts.discard(record.name)
                record.restarts += 1
            elif again:
                if record.ended is not None and not self._again(record.exit_code or 0):
                    break
                if not await self._back_off():
                    break
                record.restarts += 1
            if not await self._attempt():
                break
            again = True
        return record.ended is not None and record.exit_code == 0

    def _again(self, code: int) -> bool:
        return not (self._record.init and code == 0) and self._record.restart.again(code)

    async def _back_off(self) -> bool:
        """False when the pod is to end meanwhile."""
        record, worker = self._record, self._worker
        delay_s = self._backoff.delay_s(_ran_ms(record.ended))
        if not delay_s:
            return True
        pod = worker.pod["metadata"]
        where = f"{record.name} in pod {pod['name']}_{pod['namespace']}({pod['uid']})"
        record.wait(
            CRASH_LOOP, f"back-off {_spoken(delay_s)} restarting failed container={where.replace(' in', '')}"
        )
        worker.publish()
        worker.event("Warning", "BackOff", f"Back-off restarting failed container {where}")
        return await worker.pause(delay_s)

    async def _attempt(self) -> bool:
        """Runs the container once; False when it could not even be tried before the pod is to end."""
        while not self._worker.stopping:
            if (tried := await self._once()) is not None:
                return tried
        return False

    async def _once(self) -> bool | None:
        """None when the container could not be made, which was waited out."""
        spec = await self._configured()
        if spec is None:
            return False
        worker, services = self._worker, self._services
        log_path = services.logs.path(spec.pod.cluster, spec.pod.uid, spec.name, spec.attempt)
        try:
            writer = services.logs.create(spec.pod.cluster, spec.pod.uid, spec.name, spec.attempt)
        except OSError as error:
            self._failed(StartError(f"its log cannot be written: {error.strerror or error}"))
            return True
        try:
            spec, message = self._with_message(spec)
            process = await services.runtime.start(spec, writer.write, worker.resizing.limits())
            ended = await self._watch(process)
        except StartError as error:
            self._failed(error)
        except CreateError as error:
            self._refused(error.reason, error.message)
            await (worker.pause(_CREATE_AGAIN_S) if error.again else worker.ending())
            return None
        else:
            services.logs.close(log_path)
            said = await self._last_words(message, log_path, ended)
            now_ms = services.clock.now_ms()
            self._record.end(ended.code, now_ms, oom_killed=ended.oom_killed, message=said)
            worker.publish()
        finally:
            services.logs.close(log_path)
        return True

    async def _last_words(self, message: Mount | None, log_path: Path, ended: ExitStatus) -> str:
        said = messages.read(Path(message.source)) if message is not None else ""
        policy = self._container.get("terminationMessagePolicy")
        if not said and ended.code and policy == "FallbackToLogsOnError":
            said = await messages.from_log(self._services.logs, log_path)
        return said

    def _with_message(self, spec: ContainerSpec) -> tuple[ContainerSpec, Mount | None]:
        """The same with a file for its termination message. Raises StartError."""
        places, pod = self._services.places, spec.pod
        try:
            whole = self._traits().images is not None
            mount = messages.make(places, pod, self._container, spec.attempt, spec.mounts, whole=whole)
            kept = Mount(str(messages.directory(places, pod)), "messages")
        except OSError as error:
            raise StartError(
                f"its termination message cannot be written: {error.strerror or error}"
            ) from error
        mounts = (*spec.mounts, mount) if mount is not None else spec.mounts
        return replace(spec, mounts=mounts, volumes=(*spec.volumes, kept)), mount

    def _failed(self, error: StartError) -> None:
        message = f"failed to start container: {error.message}"
        self.tried.set()
        self._record.end(START_CODE, self._services.clock.now_ms(), failure=message)
        self._worker.publish()
        self._worker.event("Warning", "Failed", f"Error: {message}")

    async def _watch(self, process: Process) -> ExitStatus:
        traits = self._traits()
        if traits.slow:
            self._worker.event("Normal", "Emulated", traits.slow)
        self._worker.event("Normal", "Started", f"Started container {self._record.name}")
        container_id = f"{traits.scheme}://{process.id}"
        running = Running(self._worker, self._container, self._record, process, container_id, self._begun)
        return await running.watch()

    def _begun(self) -> None:
        self.tried.set()
        if self._record.running and self._record.started:
            self.started.set()
        self._worker.resizing.actuate()

    async def _configured(self) -> ContainerSpec | None:
        """Waits for what the container refers to; None when the pod is to end before."""
        worker = self._worker
        while not worker.stopping:
            traits = self._traits()
            image_id = await self._puller.ready(traits.images) if traits.images is not None else ""
            if traits.images is not None and not image_id:
                return None
            try:
                spec = self._spec(traits, image_id)
            except NotYet as error:
                self._refused("CreateContainerConfigError", error.message)
                await worker.pause(_CREATE_AGAIN_S)
                continue
            except ConfigError as error:
                self._refused("CreateContainerConfigError", error.message)
                await worker.configs_changed()
                continue
            except WalrasError as error:
                self._refused("CreateContainerError", error.message)
            else:
                return spec
            await worker.ending()
        return None

    def _refused(self, reason: str, message: str) -> None:
        self.tried.set()
        if self._record.state.get("waiting", {}).get("message") == message:
            return
        self._record.wait(reason, message)
        self._worker.publish()
        self._worker.event("Warning", "Failed", f"Error: {message}")

    def _traits(self) -> Traits:
        return self._services.runtime.traits(self._worker.ref)

    def _spec(self, traits: Traits, image_id: str) -> ContainerSpec:
        worker = self._worker
        # What it has of its pod may be less, or more, than in its last attempt.
        given = by_name(worker.pod).get(self._record.name)
        container = self._container
        if given is not None:
            container = {**container, "resources": given}
            self._record.resources = given
        source = EnvSource(worker.pod, worker.node, worker.lookup, address=worker.address())
        devices = devices_of(source, container, self._services.mps)
        found = worker.services.variables(worker.cluster, worker.pod) if worker.network is not None else {}
        env = environment(source, container, {**traits.env, **found, **(devices.env if devices else {})})
        wanted, has_images = str(container.get("workingDir") or ""), traits.images is not None
        directory = posixpath.normpath("/" + wanted.lstrip("/")) if wanted or not has_images else ""
        parts = self._services.places.parts(worker.cluster, worker.ref.uid) if traits.sees_mounts else None
        own = mounts(container, self._volumes, env, whole=has_images, parts=parts)
        return ContainerSpec(
            pod=worker.ref,
            name=container["name"],
            attempt=self._record.restarts,
            command=command(container.get("command"), env),
            args=command(container.get("args"), env),
            image=self._record.image,
            image_id=image_id,
            # What a lease has of a device is not for its pods to say.
            env={**env, **(devices.env if devices else {})},
            working_dir=directory,
            mounts=(
                *own,
                *podfiles.beside(own, worker.files),
                *(devices.mounts if devices else ()),
            ),
            volumes=(
                *(Mount(str(each.path), name, not each.writable) for name, each in self._volumes.items()),
                *worker.files,
            ),
            devices=devices.devices if devices else (),
            limits=container_limits(container),
            security=security_of(worker.pod, container),
            tty=bool(container.get("tty")),
            stdin=bool(container.get("stdin")),
            stdin_once=bool(container.get("stdinOnce")),
        )


def _ran_ms(ended: Object | None) -> int:
    try:
        return parse_rfc3339(ended["finishedAt"]) - parse_rfc3339(ended["startedAt"]) if ended else 0
    except (KeyError, ValueError):
        return 0


def _spoken(seconds: int) -> str:
    """As Go prints a duration: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(seconds, 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
