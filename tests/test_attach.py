"""Content parts with media: their true types, what they weigh, and the three forms that name a file."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from thorough import EXAMPLES

from runner.pricing import LIST, Price
from runner.recipe import Recipe
from runner.records import Failure, Kind, Request, Row
from runner.wire.attach import Local, Look, Stamp, carries, cut, frame, names_files, parts, stamped, weight
from runner.wire.encode import HASH_RECIPE, MAX_BODY_BYTES, encode
from runner.wire.mediatokens import UNSEEN, Tokens, audio_tokens, file_tokens, image_tokens
from runner.wire.mediatypes import media_type
from runner.worstcase import worst_usd

BASE = "https://api.cometapi.com/v1"
OFFICE = "application/vnd.openxmlformats-officedocument."
STAMP = Stamp(68, 1_700_000_000_000_000_001)

# What a file is


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "photo.jpg", "image/png"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "photo", "image/jpeg"),
        (b"GIF89a\1\0", "a.png", "image/gif"),
        (b"GIF87a\1\0", "a.png", "image/gif"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "a.wav", "image/webp"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "a.webp", "audio/wav"),
        (b"RIFF\x24\0\0\0AVI LIST", "a.wav", "application/octet-stream"),
        (b"ID3\x04\0\0", "a", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "a", "audio/mpeg"),
        (b"\xff\xf3\x40\xc4", "a", "audio/mpeg"),
        (b"\xff\xf1\x50\x80", "a.mp3", "application/octet-stream"),  # AAC: another layer
        (b"\xff\xfb\xf0\x64", "a.mp3", "application/octet-stream"),  # a rate that is none
        (b"\xff\xeb\x90\x64", "a.mp3", "application/octet-stream"),  # a version that is none
        (b"\xff\xfe", "a.mp3", "application/octet-stream"),
        (b"%PDF-1.7\n", "a.txt", "application/pdf"),
        (b"PK\x03\x04", "a.docx", OFFICE + "wordprocessingml.document"),
        (b"PK\x03\x04", "A.XLSX", OFFICE + "spreadsheetml.sheet"),
        (b"PK\x03\x04", "a.png", "application/zip"),
        (b"a,b\n1,2\n", "a.CSV", "text/csv"),
        (b"a,b\n", "a.png", "text/plain"),
        (b"# h\n", "README.md", "text/markdown"),
        ("\u00eb".encode() * 2047 + b"-\xc3", "cut.txt", "text/plain"),
        (b"Zo\xeb", "latin.txt", "application/octet-stream"),
        (b"a\0b", "a.txt", "application/octet-stream"),
        (b"", "a.png", "text/plain"),
    ],
)
def test_the_first_bytes_say_what_a_file_is(head: bytes, name: str, kind: str) -> None:
    assert media_type(head, name) == kind


@given(st.binary(max_size=64), st.text(max_size=8))
@settings(deadline=None, max_examples=EXAMPLES)
def test_any_bytes_are_of_some_type(head: bytes, name: str) -> None:
    assert "/" in media_type(head, name)


# What media weigh


@pytest.mark.parametrize(
    ("model", "detail", "count", "most"),
    [
        ("gpt-4o", "low", 85, 85),
        ("gpt-4o", "high", 1536, 1536),
        ("gpt-4o", "auto", 1536, 1536),
        ("m", None, 1536, 16384),
        ("m", "low", 85, 16384),
        ("gpt-4o-mini-2024-07-18", "low", 2833, 2833),
        ("openai/GPT-4.1-mini", None, 2489, 2489),
        ("anthropic/claude-x", "low", 1600, 4784),
        ("gemini-2.5-flash", None, 4128, 4128),
    ],
)
def test_an_image_counts_by_its_table(model: str, detail: str | None, count: int, most: int) -> None:
    assert image_tokens(model, detail) == (count, most)


def test_recordings_and_files_count_by_their_size_which_bounds_a_recording_alone() -> None:
    assert audio_tokens(1_000_000) == (1000, 32259)
    assert file_tokens(1001) == (251, None)


def body(*content: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model": "gpt-4o",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}, *content]}],
    } | more


def image(**value: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": value}


def found(path: str, where: str) -> Stamp:
    return STAMP


INLINE = "data:image/png;base64," + "A" * 4000
WEIGHTS: list[tuple[dict[str, Any], Tokens, int, int]] = [
    (image(file="a.png", detail="low"), Tokens(85, 85), 0, 92),
    (image(url=INLINE, detail="low"), Tokens(85, 85), len(INLINE), 0),
    (image(url="https://x/a.png"), Tokens(1536, 1536), 0, 0),
    ({"type": "input_audio", "input_audio": {"file": "a.wav"}}, audio_tokens(68), 0, 92),
    ({"type": "input_audio", "input_audio": {"data": "A" * 4000, "format": "wav"}}, audio_tokens(3000), 4000, 0),
    ({"type": "file", "file": {"file": "a.pdf"}}, file_tokens(68), 0, 92),
    ({"type": "file", "file": {"file_data": "A" * 4000, "filename": "a"}}, file_tokens(3000), 4000, 0),
    ({"type": "file", "file": {"file_id": "f-1"}}, UNSEEN, 0, 0),
]


@pytest.mark.parametrize(("part", "tokens", "inline", "added"), WEIGHTS)
def test_a_part_weighs_what_its_table_says(part: dict[str, Any], tokens: Tokens, inline: int, added: int) -> None:
    weighed = stamped(body(part), found)
    assert not isinstance(weighed, Failure)
    assert (weighed.tokens, weighed.inline_bytes, weighed.file_bytes) == (tokens, inline, added)


PRICE = Price("gpt-4o", Decimal(1), None, None, Decimal(0), LIST, "x")


def asked(given: dict[str, Any], look: Look = found) -> Request | Failure:
    """What the recipe of a job makes of a rendered body."""
    recipe = Recipe(
        model="gpt-4o",
        columns=None,
        render=lambda row: given,
        encode=lambda index, body: encode(index, body, BASE),
        bound=lambda request, body: worst_usd(request, body, PRICE, media=True),
        attach=lambda body: stamped(body, look),
    )
    return recipe.request(Row(0, {}))


def made(*content: dict[str, Any]) -> Request:
    request = asked(body(*content, max_tokens=1))
    assert isinstance(request, Request), request
    return request


def test_estimates_and_reservations_take_media_by_the_table_and_not_by_their_bytes() -> None:
    text, linked, inline = (
        made(),
        made(image(url="https://x/a.png", detail="low")),
        made(image(url=INLINE, detail="low")),
    )
    around = len(inline.body) - len(INLINE)
    assert text.tokens == text.prompt_tokens + 1 == len(text.body) // 4 + 1
    assert linked.prompt_tokens == len(linked.body) // 4 + 85
    assert abs(inline.prompt_tokens - (around // 4 + 85)) <= 1
    assert inline.tokens == inline.prompt_tokens + 1
    assert text.reserved_usd == Decimal(len(text.body)) / 10**6
    assert linked.reserved_usd == Decimal(len(linked.body) + 85) / 10**6
    assert inline.reserved_usd == Decimal(around + 85) / 10**6
    file = made({"type": "file", "file": {"file_id": "f-1"}})
    assert (file.prompt_most, file.reserved_usd) == (None, Decimal(128_000) / 10**6)  # the whole context of gpt-4o


def test_files_that_are_too_much_together_fail_their_row() -> None:
    big = Stamp(MAX_BODY_BYTES // 4 * 3 // 2, 1)
    failure = asked(body(image(file="a"), image(file="b")), lambda path, where: big)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message[:12]) == (Kind.INPUT, "the request ")
    assert "the limit is 33,554,432" in failure.message


# The forms that name a file


def test_a_stamped_body_names_its_files_and_shares_the_rest() -> None:
    given = body(image(file="a.png", detail="low", surprise=1), image(url="https://x"))
    before = json.dumps(given)
    weighed = stamped(given, found)
    assert not isinstance(weighed, Failure)
    named = {"file": "a.png", "size": 68, "mtime_ns": STAMP.mtime_ns, "detail": "low"}
    assert weighed.body == body(image(**named), image(url="https://x"))
    assert json.dumps(given) == before
    assert stamped(body(image(url="x")), found).body["messages"] is not None  # type: ignore[union-attr]


# A change here means that every stored answer with media would be asked for again: add a recipe, never change one.
@pytest.mark.parametrize(
    ("part", "digest"),
    [
        (image(file="a.png", detail="low"), "f3a218a93fba05a27e087dfdb09ca740"),
        ({"type": "input_audio", "input_audio": {"file": "a.wav"}}, "70b7ba7dcb90270e327c6fc1ad363026"),
        ({"type": "file", "file": {"file": "a.pdf", "filename": "b.pdf"}}, "dbb6174b17caf9055ec63b13cf7c8d77"),
    ],
)
def test_the_hash_of_a_request_with_files_never_changes(part: dict[str, Any], digest: str) -> None:
    weighed = stamped(body(part), found)
    assert not isinstance(weighed, Failure)
    request = encode(0, weighed.body, BASE)
    assert isinstance(request, Request)
    assert HASH_RECIPE == 1
    assert request.hash == digest


def test_a_file_of_another_size_or_time_is_another_request() -> None:
    hashes = set()
    for stamp in (STAMP, Stamp(69, STAMP.mtime_ns), Stamp(68, STAMP.mtime_ns + 1)):
        weighed = stamped(body(image(file="a.png")), lambda path, where, stamp=stamp: stamp)  # type: ignore[misc]
        request = encode(0, weighed.body, BASE)  # type: ignore[union-attr]
        hashes.add(request.hash)  # type: ignore[union-attr]
    assert len(hashes) == 3


def test_a_stamp_out_of_the_data_is_not_believed() -> None:
    weighed = stamped(body(image(file="a.png", size=1, mtime_ns=2)), found)
    assert weighed.body == body(image(file="a.png", size=68, mtime_ns=STAMP.mtime_ns))  # type: ignore[union-attr]


@pytest.mark.parametrize("path", [3, "", "a\0b", {"x": 1}])
def test_a_path_that_is_none_is_told_by_its_part(path: Any) -> None:
    failure = stamped(body(image(file=path)), found)
    assert isinstance(failure, Failure)
    assert failure.message == "messages.0.content.1.image_url.file: the path of a file must be text, and not empty"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
WORDS = st.sampled_from(["media0", '"media0"', "media", 'x"mtime_ns":1', "media_", "\u2028"])


@given(JSON, WORDS, st.integers(0, 3))
@settings(deadline=None, max_examples=EXAMPLES)
def test_a_body_comes_back_whole_around_its_files(anything: Any, word: str, count: int) -> None:
    given_body = body(*[image(file=f"{word}{n}", size=n, mtime_ns=n) for n in range(count)], extra=anything, word=word)
    pieces = cut(json.dumps(given_body, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    files = [piece for piece in pieces if isinstance(piece, Local)]
    assert [(file.file, file.stamp) for file in files] == [(f"{word}{n}", Stamp(n, n)) for n in range(count)]
    whole = b"".join(b'{"at":"%s"}' % piece.where.encode() if isinstance(piece, Local) else piece for piece in pieces)
    expected = body(
        *[image(at=f"messages.0.content.{n + 1}.image_url") for n in range(count)], extra=anything, word=word
    )
    expected["messages"][0]["content"][1:] = [
        {"type": "image_url", "image_url": {"at": f"messages.0.content.{n + 1}.image_url"}} for n in range(count)
    ]
    assert json.loads(whole) == expected


def test_a_body_without_files_is_not_touched() -> None:
    plain = json.dumps(body(image(url="https://x"), text='"mtime_ns":1')).encode()
    assert cut(plain) == [plain]


def test_a_request_weighs_what_goes_over_the_wire() -> None:
    assert weight([b"12345", Local("x", "file", "a", Stamp(4, 1)), b"6"]) == 6 + 8


FRAMES: list[tuple[str, Any, bytes, dict[str, Any]]] = [
    ("image_url", "low", b"GIF89a", {"url": "data:image/gif;base64,QUJD", "detail": "low"}),
    ("image_url", None, b"GIF89a", {"url": "data:image/gif;base64,QUJD"}),
    ("input_audio", None, b"ID3", {"data": "QUJD", "format": "mp3"}),
    ("file", None, b"%PDF-", {"file_data": "data:application/pdf;base64,QUJD", "filename": 'a "b"é.pdf'}),
    ("file", "c", b"GIF89a", {"file_data": "data:image/gif;base64,QUJD", "filename": "c"}),
]


@pytest.mark.parametrize(("kind", "extra", "head", "value"), FRAMES)
def test_a_part_is_framed_as_the_wire_has_it(kind: str, extra: Any, head: bytes, value: dict[str, Any]) -> None:
    around = frame(Local("x", kind, 'deep/a "b"é.pdf', STAMP, extra), head)
    assert not isinstance(around, Failure)
    assert json.loads(around[0] + base64.b64encode(b"ABC") + around[1]) == value


@pytest.mark.parametrize(
    ("kind", "head", "said"),
    [
        (
            "image_url",
            b"%PDF-",
            "the file is application/pdf, and not an image; PNG, JPEG, GIF and WebP can be sent: a",
        ),
        ("input_audio", b"GIF89a", "the file is image/gif, and not a WAV or MP3 recording: a"),
    ],
)
def test_a_file_of_another_kind_than_its_part_is_refused(kind: str, head: bytes, said: str) -> None:
    failure = frame(Local("messages.0.content.1." + kind, kind, "a", STAMP), head)
    assert isinstance(failure, Failure)
    assert failure.message == f"messages.0.content.1.{kind}.file: by its first bytes {said}"


# What a job's messages may hold


@pytest.mark.parametrize(
    ("messages", "any_media", "files"),
    [
        ([{"role": "user", "content": "x"}], False, False),
        ([{"role": "user", "content": [{"type": "text", "text": "x"}]}], False, False),
        ([{"role": "user", "content": [image(url="x")]}], True, False),
        ([{"role": "user", "content": [image(file="x")]}], True, True),
        ([{"role": "user", "content": [{"type": "{{ t }}", "text": "x"}]}], True, False),
        ("{{ history }}", True, False),
        (["{{ history }}", {"role": "user", "content": "x"}], True, False),
    ],
)
def test_a_job_shows_what_its_messages_may_hold(messages: Any, any_media: bool, files: bool) -> None:
    assert (carries(messages), names_files(messages)) == (any_media, files)


@given(JSON, JSON)
@settings(deadline=None, max_examples=EXAMPLES)
def test_no_part_out_of_the_data_breaks_the_search_for_media(content: Any, part: Any) -> None:
    messages = [
        {"role": "user", "content": content},
        {"role": "user", "content": [part, {"type": part, "file": part}]},
        part,
    ]
    assert all(isinstance(found.where, str) for found in parts({"messages": messages}))
