"""One answer's bytes in, head and body out: split anywhere, cut anywhere, or no answer at all."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from endpoints.answer_reader import AnswerReader
from endpoints.failures import BadAnswer, CutHead, LostMidBody
from tests.fakes import Reply

PIECES = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
NAMES = st.text("abcXYZ-", min_size=1, max_size=8).map(lambda text: b"X" + text.encode())
VALUES = st.text("abc;=,/ \xe9", max_size=12).map(lambda text: text.encode("latin-1").strip(b" "))
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=5)


def encode(reply: Reply) -> bytes:
    """The whole answer on the wire."""
    if reply.chunks is None:
        return reply.head() + reply.body
    chunks = [piece for piece in reply.chunks if isinstance(piece, bytes)]
    return reply.head() + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in chunks) + b"0\r\n\r\n"


def feed_split(reader: AnswerReader, data: bytes, cuts: list[int]) -> bytes:
    """Feed `data` cut at these places; what was read of the body."""
    body = b""
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    for start, end in itertools.pairwise(places):
        reader.feed(data[start:end])
        body += reader.take()
    return body


@given(headers=HEADERS, pieces=PIECES, chunked=st.booleans(), cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_it_reads_the_same_however_the_bytes_are_split(headers, pieces, chunked, cuts):
    reply = Reply(200, headers, b"".join(pieces), chunks=pieces if chunked else None)
    reader = AnswerReader(b"GET")
    body = feed_split(reader, encode(reply), cuts)
    assert (reader.complete, reader.excess, reader.keep_alive) == (True, False, True)
    assert body == b"".join(pieces)
    assert reader.headers[:-1] == headers


@given(pieces=PIECES, chunked=st.booleans(), cut=st.integers(0, 2000), clean=st.booleans())
def test_it_never_completes_a_cut_answer(pieces, chunked, cut, clean):
    data = encode(Reply(200, [], b"".join(pieces), chunks=pieces if chunked else None))
    cut %= len(data)
    reader = AnswerReader(b"GET")
    if cut:
        reader.feed(data[:cut])
    head_end = data.index(b"\r\n\r\n") + 4
    assert not reader.complete
    assert type(reader.cut(clean=clean)) is (CutHead if cut < head_end else LostMidBody)


@given(data=st.lists(st.binary(min_size=1, max_size=200), max_size=10), head=st.booleans())
def test_it_reads_or_refuses_garbage_and_nothing_else(data, head):
    reader = AnswerReader(b"GET")
    start = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"] if head else []
    try:
        for piece in start + data:
            reader.feed(piece)
    except BadAnswer:
        return
    assert reader.complete or reader.cut(clean=True) is not None


@given(
    lines=st.lists(
        st.sampled_from(
            [
                b"Content-Length: 3", b"content-length: 4", b"Content-Length:3", b"Content-Length: 3,3",
                b"Transfer-Encoding: chunked", b"transfer-encoding: identity", b"Transfer-Encoding : chunked",
                b" folded", b"Connection: close", b"X: y", b"Content-Length: 0x3", b"Content-Length: ",
            ]
        ),
        min_size=2,
        max_size=4,
    )
)  # fmt: skip
def test_it_accepts_at_most_one_plain_framing_header(lines):
    reader = AnswerReader(b"GET")
    try:
        reader.feed(b"HTTP/1.1 200 OK\r\n" + b"\r\n".join(lines) + b"\r\n\r\n")
    except BadAnswer:
        return
    framing = [line for line in lines if line.lower().startswith((b"content-length", b"transfer-encoding"))]
    assert len(framing) <= 1
    assert set(framing) <= {
        b"Content-Length: 3", b"content-length: 4", b"Content-Length:3", b"Transfer-Encoding: chunked",
    }  # fmt: skip


@pytest.mark.parametrize("extra", [b"\r\n", b"\0", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"hello"])
@pytest.mark.parametrize("reply", [Reply(body=b"abc"), Reply(204, length=0), Reply(chunks=[b"abc"])])
def test_it_notices_bytes_after_the_end(reply, extra):
    reader = AnswerReader(b"GET")
    reader.feed(encode(reply))
    reader.feed(extra)
    assert (reader.complete, reader.excess) == (True, True)
    assert reader.take() in {b"abc", b""}


def test_it_forgives_line_ends_before_the_status_line():
    reader = AnswerReader(b"GET")
    reader.feed(b"\r\n")
    reader.feed(b"\r\n" + encode(Reply(body=b"abc")))
    assert reader.take() == b"abc"


def test_it_drops_trailers():
    reader = AnswerReader(b"GET")
    reader.feed(Reply(chunks=[]).head() + b"3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert reader.complete
    assert reader.headers == [(b"Transfer-Encoding", b"chunked")]
