"""Disks under NATS servers: ext4 on loop devices, which lose their power and fill up. It takes Linux and root.

Power is lost as the kernel lets it be lost: from one moment on nothing reaches the device any more, not even the journal, so that an image of it
holds what was synced and what the kernel had happened to write. All of this blocks, for milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from jidosystem.backends.nats.server import NatsCluster

DISK_BYTES = 2 * 1024**3  # sparse; hours of events go in
EXT4_IOC_SHUTDOWN = 0x8004587D
NOTHING_MORE = 2  # not even what the journal holds in memory


class Disk:
    """An ext4 file system in a file, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self._image, self.folder = folder.with_suffix(".ext4"), folder
        folder.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", self._image)
        self._mount()

    def cut(self) -> None:
        """The power is gone."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NOTHING_MORE))
        finally:
            os.close(folder)

    def fill(self) -> None:
        """No byte is left; what was freed meanwhile is taken too."""
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            os.posix_fallocate(file.fileno(), 0, self._filler.stat().st_size + _free_bytes(self.folder))
        with suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """There is room again."""
        self._filler.unlink()

    def come_back(self) -> None:
        """A copy of the image as it is takes the disk's place. Nobody may use the disk any more."""
        copy = self._image.with_suffix(".copy")
        _run("cp", "--sparse=always", self._image, copy)
        _run("umount", self.folder)
        copy.replace(self._image)
        self._mount()

    def remove(self) -> None:
        _run("umount", "-l", self.folder)

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def _mount(self) -> None:
        _run("mount", "-o", "loop,commit=300", self._image, self.folder)  # the kernel writes little that nobody asked for


@contextmanager
def disks_under(servers: NatsCluster) -> Iterator[list[Disk]]:
    """A disk of its own under each server, which was made and isn't started yet. `OSError` where nothing can be mounted."""
    with ExitStack() as stack:
        disks: list[Disk] = []
        for server in servers.servers:
            disks.append(Disk(server.directory / "store"))
            stack.callback(disks[-1].remove)
        stack.callback(servers.stop)
        yield disks


def _free_bytes(folder: Path) -> int:
    told = os.statvfs(folder)
    return told.f_bfree * told.f_frsize


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
