"""Ids that nobody can guess, and that look as they should."""

import uuid

from walras.server.system import SystemIds


def test_uids_are_random_uuids_each_of_its_own() -> None:
    ids = SystemIds()
    made = [ids.uid() for _ in range(1000)]
    assert len(set(made)) == len(made)
    for uid in made:
        parsed = uuid.UUID(uid)
        assert str(parsed) == uid
        assert parsed.version == 4 and parsed.variant == uuid.RFC_4122
