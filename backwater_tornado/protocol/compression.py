"""zstd for bodies, with a bound on what a frame may grow to.

Rule: a body is exactly one zstd frame, complete, with nothing behind it. Output is bounded by the caller's limit and
the window by `MAX_WINDOW`, whatever the frame's head claims. This module does not know what a body means.

Why it is written as it is (libzstd 1.5.7, zstandard 0.25):

* A compressor or decompressor shared by threads crashes the process; a new one per call costs three times as much; one
  for each thread keeps the memory of the largest body that thread has ever met. So who needs one takes the one that was
  put back last, and there are as many as were ever needed at the same time.
* `decompress(max_output_size=...)` ignores that bound when the frame states its size (a 13-byte frame can ask for
  terabytes), so the stated size is compared with the limit first. The output of a frame that then holds more than it
  stated is still bounded by its statement.
* `allow_extra_data=False` is ignored for a frame that does not state its size, and a stream reader returns a truncated
  frame's beginning without complaint. Such frames (ours always state it; pipes do not) are read twice: once to learn
  that the output is within the limit, and once by the interface that says where the frame ended.
"""

from __future__ import annotations

import zstandard

from backwater_tornado.errors import BodyTooLarge, BodyUndecodable, InvalidOption

#: The compression level where nothing else is said; level 1 saves no time worth having on bodies of a few kB.
DEFAULT_LEVEL = 4
#: The highest level whose window (8 MiB) every receiver accepts.
MAX_LEVEL = 19
#: The largest window, in bytes, that a frame may ask the receiver to hold.
MAX_WINDOW = 8 << 20


#: Those that nobody uses right now, by level; taking and putting back are single steps, so threads need no lock.
_compressors: dict[int, list[zstandard.ZstdCompressor]] = {}
_decompressors: list[zstandard.ZstdDecompressor] = []


def compress(body: bytes, threshold: int, level: int = DEFAULT_LEVEL) -> bytes | None:
    """The body as one zstd frame, or None where it is better sent as it is.

    That is when it is shorter than `threshold` bytes, or when compression does not make it shorter.
    """
    if len(body) < threshold:
        return None
    if not 1 <= level <= MAX_LEVEL:
        raise InvalidOption(f"compression level must be from 1 to {MAX_LEVEL}, not {level}")
    idle = _compressors.setdefault(level, [])
    try:
        compressor = idle.pop()
    except IndexError:
        compressor = zstandard.ZstdCompressor(level=level)
    try:
        frame = compressor.compress(body)
    finally:
        idle.append(compressor)
    return frame if len(frame) < len(body) else None


def decompress(body: bytes, limit: int) -> bytes:
    """The content of the zstd frame that `body` is; at most `limit` bytes are ever produced.

    Raises:
        BodyTooLarge: the content is larger than `limit`.
        BodyUndecodable: the body is not exactly one intact frame, or asks for a window above `MAX_WINDOW`.
    """
    try:
        decompressor = _decompressors.pop()
    except IndexError:
        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    try:
        size = zstandard.frame_content_size(body)
        if size > limit:
            raise BodyTooLarge(f"the body is {size} bytes once decompressed, the limit is {limit}")
        if size < 0:
            return _decompress_unsized(decompressor, body, limit)
        return decompressor.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise BodyUndecodable(f"the body is not one intact zstd frame: {exc}") from exc
    finally:
        _decompressors.append(decompressor)


def _decompress_unsized(decompressor: zstandard.ZstdDecompressor, body: bytes, limit: int) -> bytes:
    """As `decompress`, for a frame whose head does not state how large its content is."""
    with decompressor.stream_reader(body) as reader:
        if len(reader.read(limit + 1)) > limit:
            raise BodyTooLarge(f"the body is more than {limit} bytes once decompressed")
    once = decompressor.decompressobj()
    content = once.decompress(body)
    if not once.eof:
        raise BodyUndecodable("the body is not one intact zstd frame: it ends before its frame does")
    if once.unused_data:
        raise BodyUndecodable(f"the body is not one intact zstd frame: {len(once.unused_data)} bytes follow it")
    return content
