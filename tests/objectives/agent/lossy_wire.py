"""A wire that loses packets: `python lossy_wire.py LEFT RIGHT LOSS_FILE`.

It carries every frame between two network interfaces, except for a share of them, which it reads
from a file now and then: 0.1 loses every tenth, 1 is a wire that was cut. How many it lost, it
writes to a file beside that one, with the suffix `.lost`.
"""

from __future__ import annotations

import random
import select
import socket
import sys
import time
from pathlib import Path

ETH_P_ALL = 3
PACKET_OUTGOING = 4


def main() -> None:
    left, right = (_opened(name) for name in sys.argv[1:3])
    loss_file = Path(sys.argv[3])
    dice = random.Random(0)
    lost_file = loss_file.with_suffix(".lost")
    loss, looked, lost = 0.0, 0.0, 0
    print("carrying", flush=True)
    while True:
        for here in select.select([left, right], [], [], 1.0)[0]:
            if time.monotonic() - looked > 0.02:
                loss, looked = float(loss_file.read_text() or 0), time.monotonic()
            frame, origin = here.recvfrom(1 << 16)
            if origin[2] == PACKET_OUTGOING:
                continue
            if dice.random() < loss:
                lost += 1
                lost_file.write_text(str(lost))
                continue
            there = right if here is left else left
            try:
                there.send(frame)
            except OSError:  # the interface went down, or the frame is too long: lost as well
                continue


def _opened(name: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    opened.bind((name, 0))
    return opened


if __name__ == "__main__":
    main()
