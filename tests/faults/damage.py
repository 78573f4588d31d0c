"""Ways in which a file is damaged: cut, or with a bit of a byte turned over."""

STRIDE = 1000  # bytes


def cut(content, stride=STRIDE):
    """A content cut at 0, at every so many bytes, and before its last byte."""
    for length in sorted({*range(0, len(content), stride), len(content) - 1}):
        yield f"cut at {length}", content[:length]


def flipped(content, stride=STRIDE):
    """A content with one of the bits of a byte turned over, at every so many bytes."""
    for number, place in enumerate(sorted({*range(0, len(content), stride)})):
        bit = 1 << number % 8
        changed = bytes([content[place] ^ bit])
        yield (
            f"bit {bit} of byte {place}",
            content[:place] + changed + content[place + 1 :],
        )


def damaged(content, stride=STRIDE):
    """All of these."""
    yield from cut(content, stride)
    yield from flipped(content, stride)


def attempt(read, *arguments):
    """What reads a file, as (value, None), or (None, message) where it refuses to."""
    try:
        return read(*arguments), None
    except (ValueError, OSError) as error:
        return None, str(error)
