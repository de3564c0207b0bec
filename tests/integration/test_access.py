"""API keys at a gateway that is not on loopback."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from tests.house import House, body, obey, running, until

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import NotApproved, Tampered, Unauthenticated
from interlock.core.files import write_atomic
from interlock.registry.tokens import FILE, Access, Token, TokenList, Use, new_token, seal_tokens

INFER = "/v2/models/flight-delay/infer"
FEEDBACK = "/endpoints/flight-delay/feedback"


def test_only_a_key_that_is_for_it_opens_the_door(tmp_path: Path) -> None:
    house = House(tmp_path / "house")
    found = house.package()
    house.approve(found)
    route = house.route({"champion": (found, 10_000)})
    now = SystemClock().now()
    both: tuple[Use, ...] = ("predict", "feedback")
    key, good = new_token("shop", ("flight-delay",), both, "olga", now, now + timedelta(hours=1))
    asks, asking = new_token("shop", (), ("predict",), "olga", now, None)
    other, elsewhere = new_token("shop", ("other",), both, "olga", now, None)
    late, over = new_token("shop", (), both, "olga", now, now - timedelta(seconds=1))

    def publish(revision: int, *tokens: object, by: str = "olga") -> None:
        content = TokenList(1, revision, iso(now), tokens)  # type: ignore[arg-type]  # tokens, as made above
        write_atomic(house.project.state / FILE, seal_tokens(content, house.keys[by]))

    def post(path: str, token: str = "") -> int:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        content = {"prediction_id": "x", "label": 1} if path == FEEDBACK else body()
        return house.client.post(house.url + path, json=content, headers=headers).status_code

    publish(1, good, asking, elsewhere, over)
    with running(house.serve(found), house.gateway(INTERLOCK_SERVE__HOST="0.0.0.0")):
        obey(house, route.revision)
        assert [post(INFER, one) for one in (key, asks)] == [200, 200]
        assert [post(INFER, one) for one in ("", other, late, key[:-1], "ilk_x_y", "ilk_")] == [401] * 6
        assert [post(FEEDBACK, one) for one in (key, asks, "")] == [400, 401, 401]
        assert house.client.get(f"{house.url}/v2/health/ready").status_code == 200
        until(lambda: httpx.get(f"{house.url}/v2/models/flight-delay").status_code == 401, what="metadata")
        publish(2, good, by="rob")
        publish(3, asking)
        until(lambda: post(INFER, key) == 401, what="the end of the first key")
        assert post(INFER, asks) == 200
    house.close()


def test_an_older_list_and_one_of_a_revoked_operator_are_refused(tmp_path: Path) -> None:
    house, now = House(tmp_path / "house"), SystemClock().now()
    path = house.project.state / FILE
    first, token = new_token("shop", (), ("predict",), "olga", now, None)
    second, other = new_token("shop", (), ("predict",), "olga", now, None)
    access = Access(path, house.project.trust, house.fingerprint, SystemClock(), loopback=False, anonymous=("free",))

    def publish(revision: int, *tokens: Token) -> None:
        write_atomic(path, seal_tokens(TokenList(1, revision, iso(now), tokens), house.keys["olga"]))

    def opens(key: str) -> bool:
        try:
            access.require("flight-delay", "predict", {"authorization": f"Bearer {key}"})
        except Unauthenticated:
            return False
        return True

    access.refresh()
    access.require("free", "predict", {})
    publish(2, token)
    access.refresh()
    publish(3, other)
    access.refresh()
    assert (opens(first), opens(second)) == (False, True)
    publish(2, token)
    with pytest.raises(Tampered, match="older than 3"):
        access.refresh()
    assert (opens(first), opens(second)) == (False, True)
    publish(4, token)
    house.revoked = {"olga"}
    house.write_trust()
    with pytest.raises(NotApproved, match="was not valid"):
        access.refresh()
    assert (opens(first), opens(second)) == (False, True)
    house.close()
