"""Streams a file out of multipart/form-data while it arrives, without gathering or spooling it.

The framework's own form would first write the file, up to 4 GB, to the temporary directory. Fields are few
and short, and the file is the one part with a file name.
"""

from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.domain.errors import FieldError, Unprocessable

MAX_FIELDS: Final = 20
MAX_FIELD: Final = 4096
"""Bytes of a field's value."""
MAX_NAME: Final = 255


class MultipartFile:
    """Takes the body as it arrives and returns the file's bytes."""

    def __init__(self, content_type: str) -> None:
        _, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:
            raise _refused("The Content-Type names no boundary of 1 to 70 characters.")
        self.fields: dict[str, str] = {}
        self.file_name: str | None = None
        self._has_file = False
        self._ended = False
        self._in_file = False
        self._name = ""
        self._value = bytearray()
        self._header = bytearray()
        self._header_value = bytearray()
        self._disposition = b""
        self._found: list[bytes] = []
        callbacks: dict[str, Any] = {
            "on_part_begin": self._part_begins,
            "on_part_data": self._part_data,
            "on_part_end": self._part_ends,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header_value.extend(data[start:end]),
            "on_header_end": self._header_ends,
            "on_headers_finished": self._headers_end,
            "on_end": self._ends,
        }
        self._parser = MultipartParser(boundary, callbacks)  # type: ignore[arg-type]

    def feed(self, chunk: bytes) -> list[bytes]:
        """The file's bytes in this part of the body. Raises Unprocessable."""
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _refused("The body is not well-formed multipart/form-data.") from error
        found, self._found = self._found, []
        return found

    def end(self) -> None:
        """Raises Unprocessable when the body ended too soon or had no file."""
        if not self._ended:
            raise Unprocessable("upload_broken_off", "The body ends before its closing boundary.")
        if not self._has_file:
            raise _refused("There is no part with a file name: the file is missing.")

    def _part_begins(self) -> None:
        self._disposition, self._in_file = b"", False
        self._value.clear()

    def _header_ends(self) -> None:
        if bytes(self._header).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header.clear()
        self._header_value.clear()

    def _headers_end(self) -> None:
        _, options = parse_options_header(self._disposition)
        self._name = options.get(b"name", b"").decode("utf-8", "replace")[:MAX_NAME]
        if b"filename" in options:
            if self._has_file:
                raise _refused("There is more than one file: upload each on its own.")
            self._has_file = self._in_file = True
            self.file_name = options[b"filename"].decode("utf-8", "replace")[:MAX_NAME]
        elif self._name in self.fields or len(self.fields) >= MAX_FIELDS:
            raise _refused("A field is there twice, or there are too many.")

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._in_file:
            self._found.append(bytes(data[start:end]))
            return
        self._value.extend(data[start:end])
        if len(self._value) > MAX_FIELD:
            raise _refused(f"A field has more than {MAX_FIELD:,} bytes.")

    def _part_ends(self) -> None:
        if not self._in_file:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _ends(self) -> None:
        self._ended = True


def _refused(words: str) -> Unprocessable:
    return Unprocessable("validation_failed", words, [FieldError("", "validation_failed", words)])
