from blocks.sink.null import Null
from pipeline.instance import drive


def test_frames_are_counted_and_not_read():
    sink = Null()
    drive(sink, [{}, {}, {}])
    assert sink.signature().reads == {}
    assert sink.report(None) == {"frames": 3}
