"""A file comes out of a form byte for byte, wherever the body is cut."""

from hypothesis import given
from hypothesis import strategies as st

from app.api.http.multipart import MultipartFile

BOUNDARY = b"boundary--of"
TYPE = f"multipart/form-data; boundary={BOUNDARY.decode()}"


def body(data: bytes, before: str, after: str) -> bytes:
    def field(name: str, value: str) -> bytes:
        head = f'Content-Disposition: form-data; name="{name}"\r\n\r\n'
        return b"--" + BOUNDARY + b"\r\n" + head.encode() + value.encode() + b"\r\n"

    head = 'Content-Disposition: form-data; name="file"; filename="g\u00e4.csv"\r\nContent-Type: x/y\r\n\r\n'
    file = b"--" + BOUNDARY + b"\r\n" + head.encode() + data + b"\r\n"
    return field("reference", before) + file + field("group_tag", after) + b"--" + BOUNDARY + b"--\r\n"


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30)


@given(
    data=st.binary(max_size=300) | st.just(b"\r\n--" + BOUNDARY[:-1] + b"\r\n--"),
    before=TEXT,
    after=TEXT,
    cuts=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=20),
)
def test_the_file_and_the_fields_come_out_whole(
    data: bytes, before: str, after: str, cuts: list[int]
) -> None:
    whole, at, turn, found = body(data, before, after), 0, 0, bytearray()
    form = MultipartFile(TYPE)
    while at < len(whole):
        size = cuts[turn % len(cuts)]
        for part in form.feed(whole[at : at + size]):
            found += part
        at, turn = at + size, turn + 1
    form.end()
    assert bytes(found) == data
    assert form.fields == {"reference": before, "group_tag": after}
    assert form.file_name == "g\u00e4.csv"
