"""What the guard of HTTP/2 lets pass, however it is cut into pieces."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walras.functions.guard import FRAME_BYTES_MAX, FRAMES_MAX, Guard, TooLong

HEAD_BYTES_MAX = 40_000


@dataclass(frozen=True)
class Frame:
    kind: int
    size: int

    @property
    def data(self) -> bytes:
        return self.size.to_bytes(3) + bytes((self.kind, 0, 0, 0, 0, 1)) + bytes(min(self.size, 20_000))


FRAMES = st.lists(
    st.builds(
        Frame,
        st.integers(0, 10),
        st.one_of(st.integers(0, 40), st.integers(FRAME_BYTES_MAX - 2, FRAME_BYTES_MAX + 2)),
    ),
    max_size=80,
)


def may_pass(frames: list[Frame]) -> bool:
    head = 0
    for frame in frames:
        if frame.size > FRAME_BYTES_MAX:
            return False
        if frame.kind in (1, 9):
            head = frame.size + (head if frame.kind == 9 else 0)
            if head > HEAD_BYTES_MAX:
                return False
    return True


def begun(data: bytes, at: int) -> int:
    """How many frames begin in the data before `at`, their headers whole."""
    count = position = 0
    while position + 9 <= at:
        position += 9 + int.from_bytes(data[position : position + 3])
        count += 1
    return count


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(FRAMES, st.lists(st.integers(1, 70_000), max_size=20), st.integers(0, 24))
def test_frames_pass_or_not_by_what_they_are_and_a_few_in_a_step(
    frames: list[Frame], cuts: list[int], preface: int
) -> None:
    data = b"".join(frame.data for frame in frames)
    guard, passed = Guard(HEAD_BYTES_MAX, preface), True
    left = bytes(preface) + data
    taken = 0
    try:
        for cut in [*cuts, len(left)]:
            piece, left = left[:cut], left[cut:]
            while piece:
                size = guard.look(piece)
                assert size > 0, "it would never come to an end"
                before = begun(data, max(0, taken - preface))
                taken += size
                assert begun(data, max(0, taken - preface)) - before <= FRAMES_MAX + 1
                piece = piece[size:]
    except TooLong:
        passed = False
    assert passed == may_pass(frames)
