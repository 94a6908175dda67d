"""The subjects under which keys are stored, and those by which they are published."""

from __future__ import annotations

import pytest

from django_nats.client.kv.subjects import Subjects


@pytest.mark.parametrize(("prefix", "via"), [("$JS.API", ""), ("$JS.hub.API", "$JS.hub.API.")])
def test_what_is_published_through_another_api_has_its_prefix_before_the_subject(
    prefix: str, via: str
) -> None:
    subjects = Subjects("web", prefix)
    stored = subjects.of(":1:user")
    assert stored == "$KV.web.=.1.user"
    assert subjects.published(stored) == via + stored
    assert subjects.plain_to_publish([":1:user"]) == [(via + stored).encode()]
    assert subjects.stored((via + stored).encode()) == stored.encode()
    assert subjects.all_stored([(via + stored).encode()]) == [stored.encode()]
    assert list(subjects.of_many([":1:user"])) == [stored]
