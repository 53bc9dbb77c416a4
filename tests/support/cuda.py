"""A CUDA program over the driver API alone: it takes memory, computes for a while, and says how much.

    python cuda.py SECONDS [MIB]        prints a line when it begins and one of JSON when it ends

It needs nothing but the driver: its kernel is PTX, which the driver compiles.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

_PTX = b"""
.version 6.4
.target sm_70
.address_size 64
.visible .entry spin(.param .u64 out, .param .u32 rounds)
{
    .reg .pred %p;
    .reg .f32 %f<3>;
    .reg .u32 %r<3>;
    .reg .u64 %rd<3>;
    ld.param.u64 %rd1, [out];
    cvta.to.global.u64 %rd2, %rd1;
    ld.param.u32 %r1, [rounds];
    mov.u32 %r2, 0;
    mov.f32 %f1, 0f3F800000;
    mov.f32 %f2, 0f3F7FFFFF;
again:
    fma.rn.f32 %f1, %f1, %f2, %f2;
    fma.rn.f32 %f1, %f1, %f2, %f2;
    fma.rn.f32 %f1, %f1, %f2, %f2;
    fma.rn.f32 %f1, %f1, %f2, %f2;
    add.u32 %r2, %r2, 1;
    setp.lt.u32 %p, %r2, %r1;
    @%p bra again;
    st.global.f32 [%rd2], %f1;
    ret;
}
\0"""
# Blocks enough for every card many times over, so that what a program gets is what it can use of the card.
BLOCKS, THREADS, ROUNDS = 16_384, 256, 2_000


class CudaError(Exception):
    """A call of the driver that failed; its code is the second argument."""


class Cuda:
    """The first device that the program sees."""

    def __init__(self) -> None:
        self._lib = ctypes.CDLL("libcuda.so.1")
        device, context, module = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self.function = ctypes.c_void_p()
        self.call("cuInit", 0)
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuCtxCreate_v2", ctypes.byref(context), 0, device)
        self.call("cuModuleLoadData", ctypes.byref(module), _PTX)
        self.call("cuModuleGetFunction", ctypes.byref(self.function), module, b"spin")
        self.out = self.allocate(256)

    def call(self, name: str, *args: Any) -> None:
        code = getattr(self._lib, name)(*args)
        if code:
            raise CudaError(name, code)

    def allocate(self, size: int) -> ctypes.c_uint64:
        pointer = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(pointer), ctypes.c_size_t(size))
        return pointer

    def spin(self) -> None:
        """One launch, to its end."""
        out, rounds = ctypes.c_uint64(self.out.value), ctypes.c_uint32(ROUNDS)
        args = (ctypes.c_void_p * 2)(
            ctypes.cast(ctypes.byref(out), ctypes.c_void_p),
            ctypes.cast(ctypes.byref(rounds), ctypes.c_void_p),
        )
        self.call("cuLaunchKernel", self.function, BLOCKS, 1, 1, THREADS, 1, 1, 0, None, args, None)
        self.call("cuCtxSynchronize")


def main(seconds: float, mib: int = 0) -> int:
    """Exit code 3 where the driver refuses; what it refused is in the last line."""
    try:
        cuda = Cuda()
        if mib:
            cuda.allocate(mib * 2**20)
        cuda.spin()
        print("began", flush=True)
        launches, since = 0, time.monotonic()
        while time.monotonic() - since < seconds:
            cuda.spin()
            launches += 1
    except CudaError as error:
        print(json.dumps({"refused": error.args[0], "code": error.args[1]}), flush=True)
        return 3
    print(json.dumps({"launches_per_s": launches / (time.monotonic() - since)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *map(int, sys.argv[2:])))
