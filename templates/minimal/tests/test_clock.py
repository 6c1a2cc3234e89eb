import json
from datetime import datetime
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest


def test_ticks_are_counted_and_timed(url: str) -> None:
    request = Request(f"{url}/streams/clock?every=0.01&limit=3", headers={"Accept": "application/x-ndjson"})
    with urlopen(request) as answer:
        ticks = [json.loads(line) for line in answer]
    assert [tick["number"] for tick in ticks] == [1, 2, 3]
    times = [datetime.fromisoformat(tick["time"]) for tick in ticks]
    assert times == sorted(times)


def test_without_a_limit_it_goes_on_until_the_client_leaves(url: str) -> None:
    with urlopen(f"{url}/streams/clock?every=0.01") as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = [line for line in (answer.readline() for _ in range(6)) if line.startswith(b"data: ")]
    assert [json.loads(event[6:])["number"] for event in events] == [1, 2, 3]


def test_a_pace_that_is_too_fast_is_refused(url: str) -> None:
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{url}/streams/clock?every=0")
    with refused.value as answer:
        assert answer.code == 400
        assert json.load(answer)["error"]["code"] == "VALIDATION_ERROR"
