"""The network between machines of a test, as a process: every packet passes here, and may be dropped, held up, or not let through at all.

Started with the names of network namespaces, which it gives an interface and an address each. It reads what is to be done from its standard
input, a line of JSON each time, and answers with what it has done so far.
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import random
import selectors
import struct
import subprocess
import sys
import time
from collections import Counter

from tests.cluster.namespaces import address_of, inside

TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 1, 0x1000
MTU_BYTES = 9000
Ends = tuple[bytes, bytes]


def interface(name: str, number: int) -> int:
    """A new one in a namespace; what is sent there is read here."""
    with inside(name):
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"wire", IFF_TUN | IFF_NO_PI))
        for words in (f"addr add {address_of(number)}/24 dev wire", f"link set wire mtu {MTU_BYTES} txqueuelen 2000 up", "link set lo up"):
            subprocess.run(["ip", *words.split()], check=True)
    return device


class Switch:
    """See the module."""

    def __init__(self, names: list[str], seed: str) -> None:
        self._random = random.Random(seed)
        self._ends = {name.rpartition("-")[2]: bytes(map(int, address_of(number).split("."))) for number, name in enumerate(names)}
        self._devices = {self._ends[name.rpartition("-")[2]]: interface(name, number) for number, name in enumerate(names)}
        self._cut: set[Ends] = set()
        self._loss, self._delay_s = 0.0, (0.0, 0.0)
        self._late: list[tuple[float, int, bytes]] = []
        self._did: Counter[str] = Counter()

    def run(self) -> None:
        """Until nobody tells it anything any more."""
        with selectors.DefaultSelector() as selector:
            selector.register(sys.stdin, selectors.EVENT_READ)
            for device in self._devices.values():
                selector.register(device, selectors.EVENT_READ)
            while True:
                for key, _events in selector.select(self._until_next()):
                    if key.fileobj is not sys.stdin:
                        self._read(key.fd)
                    elif line := sys.stdin.readline():
                        self._obey(json.loads(line))
                    else:
                        return
                while self._late and self._late[0][0] <= time.monotonic():
                    self._write(heapq.heappop(self._late)[2])

    def _until_next(self) -> float | None:
        return max(0.0, self._late[0][0] - time.monotonic()) if self._late else None

    def _obey(self, told: dict[str, object]) -> None:
        self._cut = {(self._ends[one], self._ends[other]) for one, other in told["cut"]}  # type: ignore[attr-defined]
        self._loss, self._delay_s = told["loss"], told["delay_s"]  # type: ignore[assignment]
        print(json.dumps(self._did), flush=True)

    def _read(self, device: int) -> None:
        try:
            for _ in range(64):
                self._take(os.read(device, 65536))
        except BlockingIOError:
            pass

    def _take(self, packet: bytes) -> None:
        if packet[0] >> 4 != 4:
            return
        if (packet[12:16], packet[16:20]) in self._cut:
            self._did["cut"] += 1
        elif self._loss and self._random.random() < self._loss:
            self._did["lost"] += 1
        elif self._delay_s[1]:
            self._did["held up"] += 1
            heapq.heappush(self._late, (time.monotonic() + self._random.uniform(*self._delay_s), self._did["held up"], packet))
        else:
            self._write(packet)

    def _write(self, packet: bytes) -> None:
        device = self._devices.get(packet[16:20])
        if device is None:
            return
        try:
            os.write(device, packet)
            self._did["carried"] += 1
        except OSError:
            self._did["overflowed"] += 1


if __name__ == "__main__":
    Switch(sys.argv[2:], sys.argv[1]).run()
