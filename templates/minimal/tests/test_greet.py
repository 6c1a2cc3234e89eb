import json
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest


def call(url: str, guest: dict[str, str]) -> dict[str, str]:
    request = Request(f"{url}/greet", json.dumps(guest).encode(), {"Content-Type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)


def test_a_guest_is_greeted_by_name(url: str) -> None:
    assert call(url, {"name": "Ada"}) == {"message": "Hello, Ada!"}


def test_a_guest_without_a_name_is_refused(url: str) -> None:
    with pytest.raises(HTTPError) as refused:
        call(url, {"name": ""})
    with refused.value as answer:
        assert answer.code == 400
