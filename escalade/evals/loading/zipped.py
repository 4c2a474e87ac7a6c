"""Members of zip files, those packed with zstandard as well: inspect_ai packs so, and Python can from 3.14 on."""

from __future__ import annotations

import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from escalade.errors import DataError

ZSTANDARD = 93
"""The number of this compression in zip files (APPNOTE.TXT 6.3.8)."""

MOST = 256 * 2**20
"""Bytes of a member, unpacked: a sample with its whole transcript is seldom larger than a few MiB."""

LOCAL, NAME_LENGTH, EXTRA_LENGTH = 30, 26, 28
"""Of a member's local header: its size without name and extra field, and where their lengths stand."""


class Zipped:
    """A zip file. `names`: of its members. Raises DataError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as file:
                self._members = {info.filename: info for info in file.infolist()}
        except OSError as error:
            raise DataError(f"{path}: {error.strerror or error}") from None
        except zipfile.BadZipFile as error:
            raise DataError(f"{path}: not a zip file, or a damaged one ({error})") from None

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def json(self, name: str) -> Any:
        """A member, parsed. Raises DataError."""
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(f"{self.path}: {name}: not JSON: {error}") from None

    def read(self, name: str) -> bytes:
        """A member, unpacked. Raises DataError, also for one that is larger than any log has: memory is finite."""
        info = self._members[name]
        if info.file_size > MOST:
            told = f"it unpacks to {info.file_size / 2**20:,.0f} MiB; at most {MOST / 2**20:,.0f} are read"
            raise DataError(f"{self.path}: {name}: {told}. If it is a log: `inspect log convert --to json` unpacks it")
        try:
            if info.compress_type != ZSTANDARD:
                with zipfile.ZipFile(self.path) as file:
                    return file.read(info)
            raw = _unpacked(self.path, self._packed(info), info.file_size)
        except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise DataError(f"{self.path}: {name}: can't be unpacked ({error})") from None
        if zlib.crc32(raw) != info.CRC:
            raise DataError(f"{self.path}: {name}: damaged; its checksum is another one")
        return raw

    def _packed(self, info: zipfile.ZipInfo) -> bytes:
        with self.path.open("rb") as file:
            file.seek(info.header_offset)
            header = file.read(LOCAL)
            skipped = sum(int.from_bytes(header[at : at + 2], "little") for at in (NAME_LENGTH, EXTRA_LENGTH))
            file.seek(skipped, 1)
            return file.read(info.compress_size)


def _unpacked(path: Path, packed: bytes, size: int) -> bytes:
    """By Python itself from 3.14 on, else by pyarrow."""
    try:
        from compression import zstd  # type: ignore[import-not-found,unused-ignore]

        return bytes(zstd.decompress(packed))
    except ModuleNotFoundError:
        pass
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        told = 'packed with zstandard; pip install "escalade[parquet]", or `inspect log convert --to json`'
        raise DataError(f"{path}: {told}") from None
    return bytes(pa.Codec("zstd").decompress(packed, decompressed_size=size).to_pybytes())
