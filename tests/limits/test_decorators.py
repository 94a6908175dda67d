"""Views that are limited by ``@ratelimit``, on a real server."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.http import HttpRequest, HttpResponse
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.views import View
from django.views.decorators.cache import never_cache

from django_nats.counters import Counters
from django_nats.limits import Rate, Ratelimited, declared, ratelimit, request_limits
from tests.limits.conftest import Time

pytestmark = [
    pytest.mark.usefixtures("alias", "time"),
    pytest.mark.filterwarnings("ignore:No directory at"),
]


@pytest.fixture(autouse=True)
def without_memory() -> None:
    """Let no test know what another was refused: views are the same, streams are not."""
    request_limits._limit.cache_clear()


def answer(request: HttpRequest, **kwargs: Any) -> HttpResponse:
    return HttpResponse("limited" if getattr(request, "limited", False) else "fine")


def limited(name: str = "shop", **options: Any) -> Any:
    """Return a view with a group of that name, limited to two requests a minute."""
    arguments = {"key": "ip", "rate": "2/m", "group": name, **options}
    return ratelimit(**arguments)(answer)


def get(view: Any, *, user: Any = None, method: str = "GET", **meta: Any) -> HttpResponse:
    request = RequestFactory().generic(method, "/", **meta)
    request.user = user or AnonymousUser()
    return view(request)  # type: ignore[no-any-return]


def count_let_through(view: Any, tries: int = 5, **meta: Any) -> int:
    """Return how many of so many requests are answered."""
    let_through = 0
    for _ in range(tries):
        try:
            let_through += get(view, **meta).status_code == 200
        except Ratelimited:
            pass
    return let_through


@ratelimit(key="ip", rate="2/m")
def page(request: HttpRequest) -> HttpResponse:
    return answer(request)


@ratelimit(key="ip", rate="2/m", block=False)
def soft(request: HttpRequest) -> HttpResponse:
    return answer(request)


@ratelimit(key="ip", rate="9/h")
@ratelimit(key="ip", rate="2/m")
def stacked(request: HttpRequest) -> HttpResponse:
    return answer(request)


class Shop(View):
    @method_decorator(ratelimit(key="ip", rate="2/m"))
    def get(self, request: HttpRequest) -> HttpResponse:
        return answer(request)

    @method_decorator(ratelimit(key="ip", rate="1/m"))
    def post(self, request: HttpRequest) -> HttpResponse:
        return answer(request)


@method_decorator(ratelimit(key="ip", rate="2/m"), name="dispatch")
class Dispatched(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return answer(request)


class OtherDispatched(Dispatched):
    pass


class Plain(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return answer(request)


urlpatterns = [
    path("page", page),
    path("soft", soft),
    path("stacked", stacked),
    path("shop", Shop.as_view()),
    path("dispatched", Dispatched.as_view()),
    path("other", OtherDispatched.as_view()),
    path("wrapped", ratelimit(key="ip", rate="2/m")(Plain.as_view())),
]


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("url", ["/page", "/shop", "/dispatched", "/other", "/wrapped", "/stacked"])
@pytest.mark.parametrize("status", [403, 429])
def test_the_third_request_is_refused(url: str, status: int, client: Client, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    with override_settings(NATS_LIMITS={"STATUS": status}):
        statuses = [client.get(url).status_code for _ in range(4)]
        assert statuses == [200, 200, status, status]
        assert client.get(url, REMOTE_ADDR="203.0.113.7").status_code == 200
        time.pass_by(120)
        assert client.get(url).status_code == 200


@override_settings(ROOT_URLCONF=__name__, NATS_LIMITS={"STATUS": 429, "HEADERS": "both"})
def test_responses_say_how_much_is_left(client: Client, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    responses = [client.get("/page") for _ in range(3)]
    assert [each.headers["RateLimit-Limit"] for each in responses] == ["2", "2", "2"]
    assert [each.headers["RateLimit-Remaining"] for each in responses] == ["1", "0", "0"]
    assert [each.headers.get("Retry-After") for each in responses[:2]] == [None, None]
    wait = int(responses[2].headers["Retry-After"])
    assert responses[2].headers["RateLimit"] == f'"2/m";r=0;t={wait}'
    assert responses[2].headers["RateLimit-Policy"] == '"2/m";q=2;w=60'
    assert wait == 90  # half of the next window, when one of the two hits still counts


@override_settings(ROOT_URLCONF=__name__)
@pytest.mark.parametrize("proxies", [0, 1, ["127.0.0.0/8"]])
def test_a_forged_header_does_not_help(proxies: Any, client: Client) -> None:
    with override_settings(NATS_LIMITS={"TRUSTED_PROXIES": proxies}):
        headers = [f"192.0.2.{n}, 203.0.113.7" for n in range(4)]
        statuses = [client.get("/page", HTTP_X_FORWARDED_FOR=each).status_code for each in headers]
    assert statuses == [200, 200, 403, 403]


@override_settings(ROOT_URLCONF=__name__)
def test_a_view_that_is_not_blocked_is_told_that_the_request_is_limited(
    client: Client, time: Time
) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    responses = [client.get("/soft") for _ in range(3)]
    assert [each.content for each in responses] == [b"fine", b"fine", b"limited"]
    assert responses[2].headers["RateLimit-Remaining"] == "0"


@override_settings(ROOT_URLCONF=__name__)
def test_of_stacked_limits_the_tightest_has_the_headers(client: Client, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    assert client.get("/stacked").headers["RateLimit-Limit"] == "2"


@override_settings(ROOT_URLCONF=__name__)
def test_the_methods_of_a_class_are_counted_apart(client: Client, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    assert [client.post("/shop").status_code for _ in range(2)] == [200, 403]
    assert [client.get("/shop").status_code for _ in range(3)] == [200, 200, 403]


@override_settings(ROOT_URLCONF=__name__)
def test_classes_that_share_a_method_are_counted_apart(client: Client, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    assert [client.get("/dispatched").status_code for _ in range(3)] == [200, 200, 403]
    assert client.get("/other").status_code == 200


def test_views_of_one_group_share_a_count(time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    assert count_let_through(limited()) + count_let_through(limited()) == 2


@pytest.mark.parametrize(
    "other", [{"name": "other"}, {"rate": "3/m"}, {"method": "GET"}, {"key": "header:host"}]
)
def test_another_group_rate_method_or_key_has_a_count_of_its_own(other: Any, time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    assert count_let_through(limited()) == 2
    assert get(limited(**other)).status_code == 200


def test_groups_with_long_names_are_told_apart(time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    one, other = (limited("ünïcode." * 50 + end) for end in "ab")
    assert count_let_through(one) == count_let_through(other) == 2


@pytest.mark.parametrize(
    ("method", "counted"),
    [("POST", ["POST"]), (["PUT", "post"], ["PUT"]), ("GET", ["GET", "HEAD"]), (None, ["TRACE"])],
)
def test_requests_with_these_methods_are_counted(method: Any, counted: Any) -> None:
    for each in counted:
        request_limits._limit.cache_clear()
        assert count_let_through(limited(each, method=method), method=each) == 2


def test_requests_with_other_methods_are_not_counted() -> None:
    view = limited(method=ratelimit.UNSAFE)
    assert count_let_through(view, method="GET") == 5
    assert "RateLimit-Limit" not in get(view).headers


def test_users_are_counted_apart(time: Time) -> None:
    time.begin_window("user:1", 60)
    view = limited(key="user_or_ip")
    assert count_let_through(view, user=User(pk=1)) == 2
    assert get(view, user=User(pk=2)).status_code == 200
    assert get(view).status_code == 200


# Rates ---------------------------------------------------------------------------------------


def rate_of(group: str, request: HttpRequest) -> str | None:
    return None if request.user.is_authenticated else "1/m"


@pytest.mark.parametrize("rate", [rate_of, f"{__name__}.rate_of"])
def test_a_rate_may_be_a_function_of_the_request(rate: Any) -> None:
    view = limited(rate=rate)
    assert count_let_through(view) == 1
    assert count_let_through(view, user=User(pk=1)) == 5


def test_a_function_gets_the_group() -> None:
    groups: list[str] = []

    def rate(group: str, request: HttpRequest) -> str:
        groups.append(group)
        return "1/s"

    get(limited("shop.buy", rate=rate))
    assert groups == ["shop.buy"]


@pytest.mark.parametrize("rate", [None, [], [None], lambda group, request: None])
def test_without_a_rate_there_is_no_limit(rate: Any) -> None:
    view = limited(rate=rate)
    assert count_let_through(view) == 5
    assert "RateLimit-Limit" not in get(view).headers


@pytest.mark.parametrize("rate", ["0/s", (0, 60), lambda group, request: "0/s"])
def test_a_rate_of_0_lets_nothing_through(rate: Any) -> None:
    assert count_let_through(limited(rate=rate)) == 0


@override_settings(NATS_LIMITS={"STATUS": 429})
def test_a_list_of_rates_is_one_limit(time: Time) -> None:
    time.begin_window("ip:127.0.0.1", 60)
    view = limited(rate=["2/m", "3/h"])
    assert count_let_through(view) == 2
    time.pass_by(120)
    assert get(view).headers["RateLimit-Limit"] == "3"
    assert get(view).headers["RateLimit-Limit"] == "3"


def test_a_function_that_returns_nonsense_is_an_error_that_names_the_group() -> None:
    view = limited("shop.buy", rate=lambda group, request: "5/x")
    match = rf"^@ratelimit in {re.escape(__name__)}, line \d+, for 'shop\.buy': the rate '5/x' "
    with pytest.raises(ValueError, match=match):
        get(view)


# Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mistake", "error", "message"),
    [
        ({"rate": "5/x"}, ValueError, "the rate '5/x' is not a rate"),
        ({"rate": ["5/m", "9/60s"]}, ValueError, "two rates are for the same time: 5/m, 9/m"),
        ({"rate": 5}, TypeError, "a rate cannot be int"),
        ({"key": "users"}, ValueError, "the key 'users' is unknown"),
        ({"key": None}, TypeError, "the key cannot be NoneType"),
        ({"method": []}, ValueError, "method is []"),
        ({"group": answer}, TypeError, "group must be a string"),
        ({"exempt": True}, TypeError, "exempt must be a function"),
    ],
)
def test_nonsense_is_an_error_at_import_that_names_the_place(
    mistake: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(
        error, match=rf"^@ratelimit in .*, line \d+: {re.escape(message)}"
    ) as caught:
        ratelimit(**{"key": "ip", "rate": "5/m", **mistake})
    line = caught.traceback[0].lineno + 1
    assert str(caught.value).startswith(f"@ratelimit in {__name__}, line {line}: ")


@pytest.mark.parametrize(
    ("mistake", "kind"),
    [
        ({"algorithm": "leaky"}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": ""}, ValueError),
    ],
)
def test_a_wrong_option_is_an_error_at_import_that_names_the_place(mistake: Any, kind: Any) -> None:
    with pytest.raises(kind, match=rf"^@ratelimit in {__name__}, line [0-9]+: "):
        ratelimit(key="ip", rate="5/m", **mistake)


def test_a_method_and_a_class_need_method_decorator() -> None:
    with pytest.raises(TypeError, match=r"^@ratelimit in .*: use method_decorator"):

        class Page(View):
            @ratelimit(key="ip", rate="5/m")
            def get(self, request: HttpRequest) -> HttpResponse:
                return HttpResponse()

    with pytest.raises(TypeError, match=r"^@ratelimit in .*: use method_decorator"):
        ratelimit(key="ip", rate="5/m")(Plain)


def test_a_method_that_another_decorator_hides_needs_method_decorator_as_well() -> None:
    class Hidden(View):
        @ratelimit(key="ip", rate="2/m")
        @never_cache
        def get(self, request: HttpRequest) -> HttpResponse:
            return answer(request)

    with pytest.raises(TypeError, match=r"^@ratelimit in .*, line .* Hidden.*method_decorator"):
        get(Hidden.as_view())


@pytest.mark.parametrize("given", [{"key": "ip"}, {"rate": "5/m"}])
def test_a_key_and_a_rate_must_be_given(given: Any) -> None:
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument"):
        ratelimit(**given)


# Exceptions to the rule ----------------------------------------------------------------------


@override_settings(NATS_LIMITS={"ENABLED": False}, NATS_COUNTERS={})
def test_limits_that_are_off_ask_no_server() -> None:
    view = limited(rate="0/s", block=False)
    response = get(view)
    assert response.content == b"fine"
    assert "RateLimit-Limit" not in response.headers


def test_a_dry_run_only_logs(caplog: pytest.LogCaptureFixture) -> None:
    view = limited("shop.buy", rate="2/m", dry_run=True)
    caplog.set_level("INFO", "django_nats")
    assert count_let_through(view) == 5
    assert get(view).content == b"fine"
    assert "RateLimit-Limit" not in get(view).headers
    assert "would refuse" in caplog.text
    assert "127.0.0.1" not in caplog.text


def test_all_limits_may_be_dry_runs() -> None:
    with override_settings(NATS_LIMITS={"DRY_RUN": True}):
        assert count_let_through(limited()) == 5
        assert count_let_through(limited(dry_run=False)) == 0


def is_internal(request: HttpRequest) -> bool:
    return request.META["REMOTE_ADDR"].startswith("10.")


@pytest.mark.parametrize("exempt", [is_internal, f"{__name__}.is_internal"])
def test_a_setting_exempts_requests(exempt: Any) -> None:
    with override_settings(NATS_LIMITS={"EXEMPT": exempt}):
        assert count_let_through(limited(), REMOTE_ADDR="10.0.0.1") == 5
        assert count_let_through(limited(), REMOTE_ADDR="203.0.113.7") == 2


def test_a_limit_exempts_requests_of_its_own() -> None:
    view = limited(exempt=is_internal)
    assert count_let_through(view, REMOTE_ADDR="10.0.0.1") == 5
    assert count_let_through(view, REMOTE_ADDR="203.0.113.7") == 2


@pytest.mark.parametrize(("fail_open", "let_through"), [(True, 5), (False, 0)])
def test_while_the_server_is_away_fail_open_decides(
    fail_open: bool, let_through: int, alias: Counters
) -> None:
    away = {"default": {"LOCATION": "nats://127.0.0.1:1", "CONNECT_TIMEOUT": 0.5}}
    with override_settings(NATS_COUNTERS=away):
        assert count_let_through(limited(fail_open=fail_open, timeout=0.5)) == let_through


# What checks and commands know ----------------------------------------------------------------


def test_a_limit_is_declared_before_its_first_request() -> None:
    view = limited("declared.shop", method="POST")
    known = {each.name: each.rates for each in declared.limits()}
    assert known["declared.shop 2/m POST"] == [Rate(2, 60)]
    assert count_let_through(view, method="POST") == 2
    assert sum(each.name.startswith("declared.shop") for each in declared.limits()) == 1


@pytest.mark.parametrize("rate", [None, rate_of, f"{__name__}.rate_of"])
def test_a_limit_whose_rate_is_not_known_is_not_declared(rate: Any) -> None:
    limited("undeclared.shop", rate=rate)
    assert not any(each.name.startswith("undeclared.shop") for each in declared.limits())


def test_the_function_on_which_method_decorator_tries_a_decorator_is_not_declared() -> None:
    method_decorator(ratelimit(key="ip", rate="2/m"), name="get")(type("Shop", (Plain,), {}))
    assert not any("dummy" in each.name for each in declared.limits())


# Refusals ------------------------------------------------------------------------------------


def test_the_exception_has_the_decision() -> None:
    with pytest.raises(Ratelimited) as caught:
        get(limited(rate="0/s"))
    assert caught.value.decision.limit == 0


def test_a_view_sees_the_decision_about_its_request() -> None:
    @ratelimit(key="ip", rate="2/m", group="shop")
    def view(request: Any) -> HttpResponse:
        return HttpResponse(str(request.limit_decision.remaining))

    assert get(view).content == b"1"


def test_a_view_keeps_its_name_and_attributes() -> None:
    def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    view.csrf_exempt = True  # type: ignore[attr-defined]
    decorated: Any = ratelimit(key="ip", rate="2/m")(view)
    assert decorated.__name__ == "view"
    assert decorated.csrf_exempt
