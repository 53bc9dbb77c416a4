"""What a container wants done after its start and before its end. As pkg/kubelet/lifecycle of Kubernetes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walras.core.errors import BadRequest
from walras.runtimes import actions
from walras.runtimes.probing import Probed

Object = Mapping[str, Any]


async def run(probed: Probed, hook: Object) -> None:
    """Returns when the hook has done its part. Raises WalrasError when it has failed."""
    if (command := hook.get("exec")) is not None:
        argv = tuple(map(str, command.get("command") or ()))
        code, said = await actions.execute(probed.process, argv)
        if code:
            raise actions.Failed(f"command terminated with exit code {code}: {said}")
    elif (wanted := hook.get("httpGet")) is not None:
        address = probed.address()
        actions.check_host(str(wanted.get("host") or ""), (address,))
        # Whatever it answers: that it answers is all that a hook needs.
        await actions.get(probed.dial, wanted, probed.container, address, "lifecycle")
    elif (pause := hook.get("sleep")) is not None:
        await probed.sleep(float(pause.get("seconds") or 0))
    else:
        # As upstream, where the field of tcpSocket is kept for old objects and does nothing.
        raise BadRequest(f"invalid handler: {', '.join(hook)}")
