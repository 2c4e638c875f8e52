"""Compiled kernels as one column of bytes: a zip of the files that Triton keeps of each."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping

_NAME = re.compile(r"\w+\.(json|cubin)")  # no folders: a file goes where Triton's cache is and nowhere else


def packed(files: Mapping[str, bytes]) -> bytes:
    """Files as a zip."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files of a zip; none where it holds anything else than a compiled kernel or is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, EOFError):
        return {}
    return files if all(_NAME.fullmatch(name) for name in files) else {}
