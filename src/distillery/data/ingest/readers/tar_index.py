"""The members of a tar and where their bytes lie, read from the headers alone.

In: a tar file from anywhere. Out: `Member`s, and their bytes on request. Headers are read, never
followed blindly: one whose name claims megabytes, a chain of them, or one that is no header is
damage with the place named, and after the last member there must be nothing but zeros. Links count
as the member they point to. Nothing is extracted, no file is created.
"""

import errno
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from distillery.core.errors import DamagedError
from distillery.data.foreign import foreign_kind
from distillery.data.ingest.sample import is_companion, shown_name

REMEDY = "fetch or write this shard again, or delete its files"
_BLOCK_BYTES = 512
_MAX_HEADER_BYTES = 2**20  # of a long name or of extended headers
_ZEROS_BYTES = 2**20
_IGNORED = "a folder or device"
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd",
           b"PK\3\4": "zip"}  # fmt: skip
_HEADERS_WITH_DATA = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Member:
    """A file in a tar and the place of its bytes; `problem` says why there are none."""

    name: str
    offset: int
    num_bytes: int
    link: str = ""
    problem: str = ""


class _Header(tarfile.TarInfo):
    """A header that is refused before as many bytes are read as it claims for a name."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS_WITH_DATA and self.size > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)


def list_members(tar: Path) -> list[Member]:
    """Files and links of a tar in order, without a Mac's companions.

    Raises DamagedError naming the tar where it is cut short or damaged anywhere between members.
    About 300 bytes of memory a member, whatever it holds.
    """
    check_end_of_archive(tar)
    members: list[Member] = []
    try:
        with tar.open("rb") as file:
            for header in _read_headers(file):
                members.append(_as_member(header))
            _require_zeros(file, members, tar)
    except DamagedError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, RecursionError) as error:
        raise DamagedError(
            f"{tar}: {_after(members)} not a readable tar ({error}); {REMEDY}"
        ) from None
    files = {_plain(m.name): m for m in members if not (m.link or m.problem)}
    wanted = (m for m in members if m.problem != _IGNORED and not is_companion(m.name))
    return [_resolve(member, files) for member in wanted]


def iter_members(file: BinaryIO) -> Iterator[Member]:
    """Files, links and what else an opened tar has, as headers are read; not checked at all."""
    return map(_as_member, _read_headers(file))


def read_member(file: BinaryIO, member: Member) -> bytes:
    """The bytes of a member of the opened tar."""
    file.seek(member.offset)
    return file.read(member.num_bytes)


def check_end_of_archive(tar: Path) -> None:
    """Raise DamagedError unless the file ends with the two zero blocks that close every tar."""
    size_bytes = tar.stat().st_size
    with tar.open("rb") as file:
        head = file.read(_BLOCK_BYTES)
        file.seek(max(size_bytes - 2 * _BLOCK_BYTES, 0))
        tail = file.read()
    if packed := next((name for magic, name in _PACKED.items() if head.startswith(magic)), None):
        raise DamagedError(f"{tar}: packed with {packed}; unpack it to a plain .tar")
    if size_bytes % _BLOCK_BYTES or len(tail) < 2 * _BLOCK_BYTES or any(tail):
        kind = foreign_kind(head) if head.strip(b"\0") else None
        what = f"{kind}, no tar" if kind else "cut short, the end-of-archive mark is missing"
        raise DamagedError(f"{tar}: {what}; {REMEDY}")


def _read_headers(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """All headers; the file is left where the last one was looked for."""
    with tarfile.open(fileobj=file, mode="r:", tarinfo=_Header, errors="surrogateescape") as tar:
        while (header := tar.next()) is not None:
            tar.members.clear()  # it would keep all of them
            yield header
        file.seek(tar.offset)


def _require_zeros(file: BinaryIO, members: list[Member], tar: Path) -> None:
    """Data after the last header that could be read: a damaged header, or a tar put behind."""
    place = file.tell()
    while block := _next_block(file):
        if block.count(0) != len(block):
            raise DamagedError(
                f"{tar}: {_after(members)} (byte {place}) comes no member, but not the end either: "
                f"a damaged header, or several tars in one; {REMEDY}"
            )


def _next_block(file: BinaryIO) -> bytes:
    """Bytes from where the file is, or from the end of a hole there, which holds zeros."""
    try:
        file.seek(os.lseek(file.fileno(), file.tell(), os.SEEK_DATA))
    except OSError as error:
        if error.errno == errno.ENXIO:  # nothing but a hole up to the end
            return b""
    return file.read(_ZEROS_BYTES)


def _after(members: list[Member]) -> str:
    return f"after {shown_name(members[-1].name)}" if members else "at its beginning"


def _as_member(header: tarfile.TarInfo) -> Member:
    if header.islnk():
        return Member(header.name, 0, 0, link=header.linkname)
    if header.issym():
        return Member(header.name, 0, 0, link=f"{posixpath.dirname(header.name)}/{header.linkname}")
    if header.issparse():
        return Member(header.name, 0, 0, problem="stored with holes; write the tar without them")
    problem = "" if header.isreg() else _IGNORED
    return Member(header.name, header.offset_data, header.size, problem=problem)


def _resolve(member: Member, files: dict[str, Member]) -> Member:
    """A link becomes the bytes of the member that it points to."""
    if not member.link:
        return member
    if aim := files.get(_plain(member.link)):
        return Member(member.name, aim.offset, aim.num_bytes)
    return Member(member.name, 0, 0, problem="a link to what is not in the tar")


def _plain(name: str) -> str:
    return posixpath.normpath(name.lstrip("/"))
