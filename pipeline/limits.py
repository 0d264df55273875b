"""How much may be under way between workers, unless a flow says otherwise."""

WINDOW = 8 << 20  # bytes under way on a data edge before its sender waits
FRAME_CAP = 64 << 20  # bytes in the buffers of one frame
