"""Folders that sensors watch: what is new or changed in one, found by looking; a watcher of the system only says when to look.

So nothing depends on a notice that may be lost: a folder is looked at when a notice comes, and every few seconds without
one. One watcher serves all folders of a node. Files directly in the folder count, but not those whose name begins with a dot.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path
from stat import S_ISREG
from typing import Any

from ..core.errors import InvalidKey, UsageError, describe
from ..core.hooks import KEY

LOOK_AGAIN_S = 5.0
"""How often a folder is looked at without any notice."""

Stamp = tuple[int, int, int]
"""By what a file is known to have changed: its inode, size and time of modification."""


def check_installed(where: str) -> None:
    """`UsageError` with the line that installs what watches folders, if it isn't there."""
    if find_spec("watchfiles") is None:
        raise UsageError(f"{where}: watching a folder needs the extra `server`: pip install 'jidosystem[server]'")


def folder_of(template: str, key: str) -> Path:
    """The folder of one agent. `InvalidKey` if its key can't be the name of one."""
    if KEY in template and ("/" in key or os.sep in key or key.startswith(".")):
        raise InvalidKey(f"the key {key!r} can't stand for {KEY} in watch={template!r}: no '/' and no '.' at its beginning", key=key)
    return Path(template.replace(KEY, key))


def changed(seen: Mapping[Path, Stamp], present: Mapping[Path, Stamp]) -> list[Path]:
    """The files that are new or not as they were, in the order of their names."""
    return sorted(path for path, stamp in present.items() if seen.get(path) != stamp)


def files_in(folder: Path) -> dict[Path, Stamp]:
    """The files of a folder as they are now; what can't be looked at raises an `OSError` that says what to do."""
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no folder {str(folder)!r} in {os.getcwd()!r}: make it, or mend watch= of the sensor") from None
    found: dict[Path, Stamp] = {}
    for entry in entries:
        try:
            told = entry.stat()
        except FileNotFoundError:  # gone since
            continue
        if S_ISREG(told.st_mode) and not entry.name.startswith("."):
            found[Path(entry.path)] = (told.st_ino, told.st_size, told.st_mtime_ns)
    return found


class Folders:
    """The watcher of one node; does nothing while no folder is watched."""

    __slots__ = ("_hints", "_log", "_own", "_stop", "_task")

    def __init__(self, own: Callable[[Coroutine[Any, Any, None]], asyncio.Future[Any]], log: Any) -> None:
        self._own = own
        self._log = log
        self._hints: dict[str, set[asyncio.Event]] = {}  # by absolute path
        self._stop = asyncio.Event()
        self._task: asyncio.Future[Any] | None = None

    def watch(self, folder: Path) -> asyncio.Event:
        """An event that is set when there may be something new in a folder."""
        hint = asyncio.Event()
        self._hints.setdefault(os.path.abspath(folder), set()).add(hint)
        self.renew()
        return hint

    def forget(self, folder: Path, hint: asyncio.Event) -> None:
        """Nobody waits for it any more."""
        path = os.path.abspath(folder)
        hints = self._hints.get(path, set())
        hints.discard(hint)
        if not hints:
            self._hints.pop(path, None)
            self._stop.set()

    def renew(self) -> None:
        """Begin to watch anew: folders have come, or come back."""
        self._stop.set()
        if self._task is None or self._task.done():
            self._task = self._own(self._watch())

    async def _watch(self) -> None:
        while self._hints:
            self._stop.clear()
            await asyncio.sleep(0)  # others may come in the same moment
            try:
                await self._watch_these(await asyncio.to_thread(_existing, tuple(self._hints)))
            except (OSError, RuntimeError) as error:  # the system's limit, perhaps; each folder is looked at all the same
                self._log.warning("folders can't be watched just now, they are looked at every few seconds", error=describe(error))
                await asyncio.sleep(LOOK_AGAIN_S)

    async def _watch_these(self, folders: list[str]) -> None:
        from watchfiles import awatch

        if not folders:
            await self._stop.wait()
            return
        notices = awatch(*folders, stop_event=self._stop, recursive=False, watch_filter=None)
        first = asyncio.ensure_future(anext(notices, None))
        try:
            await asyncio.sleep(0)  # it watches now: what came before is seen by looking
            self._tell(folders)
            changes = await first
            while changes is not None and not self._stop.is_set():
                self._tell({os.path.dirname(path) for _change, path in changes})
                changes = await anext(notices, None)
        finally:
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
            await notices.aclose()

    def _tell(self, folders: Iterable[str]) -> None:
        for folder in folders:
            for hint in self._hints.get(folder, ()):
                hint.set()


def _existing(folders: tuple[str, ...]) -> list[str]:
    return [folder for folder in folders if os.path.isdir(folder)]


class Watched:
    """New and changed files of a folder as occasions; see `occasions.py`."""

    __slots__ = ("_folder", "_folders", "_hint", "_lost", "_present", "_seen")

    def __init__(self, folders: Folders, folder: Path) -> None:
        self._folders, self._folder = folders, folder
        self._seen: dict[Path, Stamp] = {}
        self._present: dict[Path, Stamp] = {}
        self._hint = folders.watch(folder)
        self._lost = False

    async def wait(self) -> Mapping[str, Any]:
        """Return when there are files that no good run was given as they are now."""
        while True:
            self._hint.clear()
            try:
                self._present = await asyncio.to_thread(files_in, self._folder)
            except OSError:
                self._lost = True
                raise
            if self._lost:
                self._lost = False
                self._folders.renew()
            if files := changed(self._seen, self._present):
                return {"files": files}
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await self._hint.wait()
            except TimeoutError:
                continue

    async def done(self) -> None:
        """These files were had."""
        self._seen = self._present

    def close(self) -> None:
        """Watch no longer."""
        self._folders.forget(self._folder, self._hint)
