"""Django's cache API: the result of each method and its effect on the cache."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable, ValueTooLarge
from tests.cache.conftest import Left, MakeTwin, advance, stored
from tests.support.patience import hurry

pytestmark = pytest.mark.smoke


class TestGetAndSet:
    @pytest.mark.parametrize(
        "value",
        [
            0,
            -1,
            1.5,
            "",
            "text é €",
            b"",
            b"\x00\xff",
            True,
            False,
            [1, [2]],
            {"a": (1, 2)},
            {1, 2},
            frozenset(),
            complex(1, 2),
        ],
    )
    def test_a_value_comes_back_equal_and_of_its_type(self, twin: Any, value: Any) -> None:
        assert twin.set("key", value) is None
        found = twin.get("key")
        assert (found, type(found)) == (value, type(value))

    def test_get_returns_the_default_for_a_missing_key(self, twin: Any) -> None:
        assert twin.get("key") is None
        assert twin.get("key", "default") == "default"

    def test_none_is_stored_like_any_value(self, twin: Any) -> None:
        twin.set("key", None)
        assert twin.get("key", "default") is None
        assert twin.has_key("key") is True
        assert twin.get_many(["key"]) == {"key": None}
        assert twin.add("key", 1) is False
        assert twin.get_or_set("key", 1) is None

    def test_set_replaces_a_value(self, twin: Any) -> None:
        twin.set("key", 1)
        twin.set("key", "two")
        assert twin.get("key") == "two"

    def test_get_returns_a_copy(self, twin: Any) -> None:
        value = [1]
        twin.set("key", value)
        value.append(2)
        twin.get("key").append(3)
        assert twin.get("key") == [1]

    def test_has_key_and_in_find_existing_keys(self, twin: Any) -> None:
        twin.set("key", 0)
        assert twin.has_key("key") is True
        assert twin.has_key("other") is False
        assert "key" in twin
        assert "other" not in twin

    def test_a_value_that_cannot_be_serialized_raises_and_deletes_the_old_one(
        self, twin: Any
    ) -> None:
        twin.set("key", 1)
        with pytest.raises((AttributeError, TypeError), match=r"pickle|local object"):
            twin.set("key", lambda: None)
        assert twin.get("key") is None


class TestAdd:
    def test_add_only_stores_a_missing_key(self, twin: Any) -> None:
        assert twin.add("key", 1) is True
        assert twin.add("key", 2) is False
        assert twin.get("key") == 1

    def test_add_stores_a_deleted_key(self, twin: Any) -> None:
        twin.set("key", 1)
        twin.delete("key")
        assert twin.add("key", 2) is True
        assert twin.get("key") == 2

    def test_add_stores_an_expired_key(self, twin: Any) -> None:
        twin.set("key", 1, 60)
        advance(twin, 30)
        assert twin.add("key", 2) is False
        advance(twin, 31)
        assert twin.add("key", 2) is True


class TestDelete:
    def test_delete_returns_whether_there_was_a_value(self, twin: Any) -> None:
        assert twin.delete("key") is False
        twin.set("key", 1)
        assert twin.delete("key") is True
        assert twin.delete("key") is False
        assert twin.get("key") is None
        assert twin.has_key("key") is False

    def test_deleting_an_expired_key_returns_false(self, twin: Any) -> None:
        twin.set("key", 1, 60)
        advance(twin, 61)
        assert twin.delete("key") is False

    def test_deleting_a_falsy_value_returns_true(self, twin: Any) -> None:
        twin.set("key", None)
        assert twin.delete("key") is True

    def test_clear_deletes_all_versions(self, twin: Any) -> None:
        twin.set_many({"a": 1, "b": 2})
        twin.set("a", 3, version=2)
        assert twin.clear() is None
        assert twin.get_many(["a", "b"]) == {}
        assert twin.get("a", version=2) is None
        twin.set("a", 4)
        assert twin.get("a") == 4

    def test_a_closed_cache_can_be_used_again(self, twin: Any) -> None:
        twin.set("key", 1)
        assert twin.close() is None
        assert twin.get("key") == 1


class TestMany:
    def test_get_many_returns_the_keys_that_have_a_value(self, twin: Any) -> None:
        twin.set_many({"a": 1, "b": 2, "c": 3})
        assert twin.get_many(["a", "c", "absent"]) == {"a": 1, "c": 3}
        assert twin.get_many(["absent"]) == {}
        assert twin.get_many([]) == {}

    @pytest.mark.parametrize("kind", [list, tuple, set, iter])
    def test_any_iterable_of_keys_is_accepted(self, twin: Any, kind: type[Iterable[str]]) -> None:
        assert twin.set_many({"a": 1, "b": 2}) == []
        assert twin.get_many(kind(["a", "b"])) == {"a": 1, "b": 2}
        assert twin.delete_many(kind(["a", "b"])) is None
        assert twin.get_many(kind(["a", "b"])) == {}

    def test_get_many_returns_a_repeated_key_once(self, twin: Any) -> None:
        twin.set("a", 1)
        assert twin.get_many(["a", "a"]) == {"a": 1}

    @pytest.mark.parametrize("reads", ["any", "leader"])
    def test_get_many_reads_more_keys_than_fit_in_a_batch(
        self, make_twin: MakeTwin, reads: str
    ) -> None:
        twin = make_twin(OPTIONS={"READS": reads})
        values = {f"key:{number}": number for number in range(2500)}
        assert twin.set_many(values) == []
        assert twin.get_many([*values, "absent"]) == values

    def test_a_large_pipeline_is_split_to_bound_memory(
        self, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        twin.set("warm-up", 1)
        session, sizes = twin.plain.session, []
        submit = session.submit

        def counting(waiter: Any) -> None:
            sizes.append(len(waiter.requests))
            submit(waiter)

        monkeypatch.setattr(session, "submit", counting)
        values = {str(number): number for number in range(5000)}
        assert twin.set_many(values) == []
        assert sum(sizes) == 5000
        assert max(sizes) < 5000

    @pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
    def test_get_many_reads_more_bytes_of_keys_than_fit_in_a_message(self, twin: Any) -> None:
        values = {f"{number}-{'x' * 995}": number for number in range(1100)}
        assert twin.set_many(values) == []
        assert twin.get_many(values) == values

    def test_set_many_returns_the_keys_that_failed_and_stores_the_others(
        self, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture
    ) -> None:
        twin = make_twin(OPTIONS={"MAX_VALUE_SIZE": 5000})
        assert twin.set_many({"small": 1, "large": "x" * 6000, "other": 2}) == ["large"]
        assert twin.get_many(["small", "large", "other"]) == {"small": 1, "other": 2}
        assert [message for message in caplog.messages if "'large' was not stored" in message]

    def test_set_many_returns_the_keys_that_the_server_refused(self, make_twin: MakeTwin) -> None:
        twin = make_twin(OPTIONS={"MAX_ENTRIES": 2, "EVICT": False})
        assert twin.set_many({"a": 1, "b": 2, "c": 3}) == ["c"]
        assert twin.get_many("abc") == {"a": 1, "b": 2}

    def test_delete_many_ignores_missing_keys(self, twin: Any) -> None:
        twin.set_many({"a": 1, "b": 2, "c": 3})
        assert twin.delete_many(["a", "absent", "b"]) is None
        assert twin.get_many("abc") == {"c": 3}

    def test_timeout_and_version_apply_to_all_keys(self, twin: Any) -> None:
        twin.set_many({"a": 1, "b": 2}, timeout=60, version=2)
        assert twin.get_many("ab") == {}
        assert twin.get_many("ab", version=2) == {"a": 1, "b": 2}
        assert twin.ttl("a", version=2) == Left(60)
        twin.delete_many("a", version=2)
        assert twin.get_many("ab", version=2) == {"b": 2}


class TestIntegers:
    huge = [2**31, 2**53 + 1, 2**63, 2**64, -(2**64), 10**40]

    @pytest.mark.parametrize("number", huge)
    def test_incr_and_decr_work_on_integers_of_any_size(self, twin: Any, number: int) -> None:
        twin.set("n", number)
        assert twin.get("n") == number
        assert twin.incr("n") == number + 1
        assert twin.incr("n", number) == 2 * number + 1
        assert twin.decr("n", number) == number + 1
        assert twin.get("n") == number + 1

    def test_incr_works_on_more_digits_than_python_converts(self, twin: Any) -> None:
        number = 10**5000
        twin.set("n", number)
        assert twin.get("n") == number
        assert twin.incr("n") == number + 1
        assert twin.get("n") == number + 1

    def test_incr_and_decr_return_the_new_value(self, twin: Any) -> None:
        twin.set("n", 40)
        assert twin.incr("n") == 41
        assert twin.incr("n", 10) == 51
        assert twin.decr("n") == 50
        assert twin.decr("n", 60) == -10
        assert twin.incr("n", -5) == -15
        assert twin.decr("n", -5) == -10
        assert twin.incr("n", 0) == -10

    @pytest.mark.parametrize("name", ["incr", "decr"])
    def test_incr_and_decr_of_a_missing_key_raise_value_error(self, twin: Any, name: str) -> None:
        with pytest.raises(ValueError, match="'n' not found"):
            getattr(twin, name)("n")
        assert twin.has_key("n") is False

    def test_incr_of_an_expired_key_raises_value_error(self, twin: Any) -> None:
        twin.set("n", 1, 60)
        advance(twin, 61)
        with pytest.raises(ValueError, match="'n' not found"):
            twin.incr("n")

    @pytest.mark.parametrize("name", ["incr", "decr"])
    @pytest.mark.parametrize("value", [1.5, "1", b"1", True, None, [1]])
    def test_incr_and_decr_of_a_non_integer_raise_type_error_and_keep_it(
        self, twin: Any, name: str, value: Any
    ) -> None:
        twin.set("n", value)
        with pytest.raises(TypeError, match="'n'"):
            getattr(twin, name)("n")
        assert twin.get("n") == value

    @pytest.mark.parametrize("name", ["incr", "decr"])
    @pytest.mark.parametrize("delta", [1.5, "1", None])
    def test_a_delta_that_is_not_an_integer_raises_type_error(
        self, twin: Any, name: str, delta: Any
    ) -> None:
        twin.set("n", 1)
        with pytest.raises(TypeError):
            getattr(twin, name)("n", delta)
        assert twin.get("n") == 1

    def test_incr_keeps_the_timeout(self, twin: Any) -> None:
        twin.set("n", 1, 100)
        expires = stored(twin, "n").expires
        for _ in range(50):
            twin.incr("n")
            twin.decr("n")
        # To the millisecond: a busy key must age like any other.
        assert stored(twin, "n").expires == pytest.approx(expires, abs=0.001)
        twin.set("n", 1, None)
        twin.incr("n")
        assert twin.ttl("n") is None

    def test_incr_uses_the_given_version(self, twin: Any) -> None:
        twin.set("n", 1, version=2)
        assert twin.incr("n", version=2) == 2
        with pytest.raises(ValueError, match="not found"):
            twin.incr("n")


class TestIgnoreKeyCheck:
    @pytest.mark.parametrize(("name", "sign"), [("incr", 1), ("decr", -1)])
    def test_a_missing_key_is_created_without_a_timeout(
        self, twin: Any, name: str, sign: int
    ) -> None:
        method = getattr(twin, name)
        assert method("key", ignore_key_check=True) == sign
        assert twin.ttl("key") is None
        assert method("key", 10, ignore_key_check=True) == 11 * sign
        assert method("other", 2**70, version=2, ignore_key_check=True) == 2**70 * sign
        assert twin.get("other", version=2) == 2**70 * sign
        assert twin.has_key("other") is False

    def test_an_existing_key_keeps_its_timeout(self, twin: Any) -> None:
        twin.set("key", 1, 70)
        assert twin.incr("key", ignore_key_check=True) == 2
        assert twin.ttl("key") == Left(70)

    def test_a_missing_key_raises_without_the_option(self, twin: Any) -> None:
        for method in (twin.incr, twin.decr):
            with pytest.raises(ValueError, match="not found"):
                method("key", ignore_key_check=False)

    def test_a_non_integer_raises_type_error_despite_the_option(self, twin: Any) -> None:
        twin.set("key", "text")
        with pytest.raises(TypeError, match="not an integer"):
            twin.incr("key", ignore_key_check=True)

    def test_concurrent_creations_lose_no_increment(self, twin: Any) -> None:
        threads = [
            threading.Thread(target=twin.plain.incr, args=("key",), kwargs=CREATING)
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert twin.get("key") == 8


CREATING = {"ignore_key_check": True}


@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda cache: cache.get_many(["a", "b"]), id="get_many"),
        pytest.param(lambda cache: cache.set_many({"a": 1, "b": 2}), id="set_many"),
        pytest.param(lambda cache: cache.set_many({"a": 1, "b": 2}, 0), id="set_many to nothing"),
        pytest.param(lambda cache: cache.delete_many(["a", "b"]), id="delete_many"),
    ],
)
def test_batches_raise_unavailable_if_the_server_does_not_answer(
    own_server: NatsServer, make_twin: MakeTwin, operation: Callable[[Any], object]
) -> None:
    twin = make_twin(on=own_server)
    twin.set("a", 1)
    own_server.pause()
    hurry(twin.plain, 0.2)
    with pytest.raises(Unavailable):
        operation(twin)
    own_server.resume()


class TestTooLarge:
    def test_the_error_names_key_size_and_limit(self, make_twin: MakeTwin) -> None:
        twin = make_twin(OPTIONS={"MAX_VALUE_SIZE": 5000})
        for store in (twin.set, twin.add):
            with pytest.raises(ValueTooLarge, match=r"':1:key' has 60\d\d bytes .* 5000"):
                store("key", "x" * 6000)
        assert twin.get("key") is None
        twin.set("key", "x" * 4000)
        assert twin.get("key") == "x" * 4000
