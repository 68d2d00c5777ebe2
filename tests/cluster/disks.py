"""Disks under NATS servers: ext4 on loop devices that lose their power, and small file systems that fill up.

Power is lost as the kernel lets it be lost: from one moment on nothing reaches the device any more, not even the journal, so that an image of it
holds what was synced and what the kernel had happened to write. All of this blocks, for milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

from jidosystem.backends.nats.server import NatsCluster

DISK_BYTES = 512 * 1024**2
SMALL_BYTES = 128 * 1024**2
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

    def come_back(self) -> None:
        """A copy of the image as it is takes the disk's place. Nobody may use the disk any more."""
        copy = self._image.with_suffix(".copy")
        _run("cp", "--sparse=always", self._image, copy)
        _run("umount", self.folder)
        copy.replace(self._image)
        self._mount()

    def remove(self) -> None:
        _run("umount", "-l", self.folder)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", self._image, self.folder)


class SmallDisk:
    """A file system in memory with little room, which somebody else's file can take."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={SMALL_BYTES}", "tmpfs", folder)

    def fill(self) -> None:
        """No byte is left; whatever was freed meanwhile is taken too."""
        with suppress(OSError), (self.folder / "filler").open("ab", buffering=0) as file:
            while True:
                file.write(bytes(64 * 1024))

    def empty(self) -> None:
        """What isn't the servers' is gone."""
        (self.folder / "filler").unlink()

    def remove(self) -> None:
        _run("umount", "-l", self.folder)


D = TypeVar("D", Disk, SmallDisk)


@contextmanager
def disks_under(servers: NatsCluster, make: Callable[[Path], D]) -> Iterator[list[D]]:
    """A disk of its own under each server, which was made and isn't started yet. Skips where nothing can be mounted."""
    with ExitStack() as stack:
        disks: list[D] = []
        for server in servers.servers:
            try:
                disks.append(make(server.directory / "store"))
            except OSError as error:
                pytest.skip(f"no file system can be mounted here (it takes Linux, root and loop devices): {error}")
            stack.callback(disks[-1].remove)
        stack.callback(servers.stop)
        yield disks


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, words))}: {done.stderr.strip()}")
