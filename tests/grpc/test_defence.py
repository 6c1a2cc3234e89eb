from ..flow.conftest import Peak, Process
def test_x():
    assert Peak and Process
