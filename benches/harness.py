"""What the measurements share: the binary, feeds to read, running a command and what it used.

Only Python's standard library. Nothing here knows what is being compared.
"""

import base64
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "release"
MIB = 1024 * 1024
# Divisible by three, so that pieces of base64 can be joined.
PIECE = 768 * 1024


def binary(name, how):
    """The path of a release binary; `how` says what builds it."""
    path = RELEASE / name
    if not path.exists():
        sys.exit(f"{path} is not there. Build it first: {how}")
    return path


def plainfold():
    return binary("plainfold", "cargo build --release")


def document(number, size):
    """The id, the revision and the body of an invented document of exactly `size` bytes."""
    name = f"doc-{number:07}"
    revision = "1-" + hashlib.md5(name.encode()).hexdigest()
    head = f'{{"_id":"{name}","_rev":"{revision}","number":{number},"tags":["a","b"],"text":"'
    return name, revision, head + "x" * (size - len(head) - 2) + '"}'


def write_feed(path, count, size):
    """A recorded feed of `count` documents."""
    with open(path, "w", buffering=MIB) as feed:
        for number in range(1, count + 1):
            name, revision, body = document(number, size)
            feed.write(
                f'{{"seq":{number},"id":"{name}","changes":[{{"rev":"{revision}"}}],"doc":{body}}}\n'
            )


def random_pieces(size):
    """`size` bytes that do not compress, the same every time, piece by piece."""
    source = random.Random(size)
    while size > 0:
        piece = min(size, PIECE)
        yield source.randbytes(piece)
        size -= piece


def base64_pieces(size):
    for piece in random_pieces(size):
        yield base64.b64encode(piece)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Usage:
    """What a command that ran used."""

    def __init__(self, seconds, rusage, high_water):
        self.seconds = seconds
        self.user = rusage.ru_utime
        self.system = rusage.ru_stime
        self.cpu = rusage.ru_utime + rusage.ru_stime
        # `ru_maxrss` starts at what the parent had when it forked. Where that floor hides the
        # true value, VmHWM shows it, which was read every few milliseconds.
        floor = own_high_water()
        exact = rusage.ru_maxrss * 1024
        self.peak = exact if exact > floor else high_water
        self.switches = rusage.ru_nvcsw + rusage.ru_nivcsw


def own_high_water(pid="self"):
    try:
        with open(f"/proc/{pid}/status") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def run(command, watch_memory=False):
    """Runs a command to its end, which must be a success."""
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        high_water = [0]
        ended = threading.Event()

        def watch():
            while not ended.wait(0.005):
                high_water[0] = max(high_water[0], own_high_water(process.pid))

        if watch_memory:
            threading.Thread(target=watch, daemon=True).start()
        _, status, rusage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - begun
        ended.set()
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            tail = said.read()[-2000:].decode(errors="replace")
            sys.exit(f"{' '.join(map(str, command))} ended with {process.returncode}:\n{tail}")
    return Usage(seconds, rusage, high_water[0])


def mirror(source, directory, *options, watch_memory=False):
    command = [plainfold(), "mirror", source, directory, "--progress", "never", *options]
    return run(command, watch_memory)


def table(head, rows):
    """Prints a Markdown table."""
    print("\n".join(table_lines(head, rows)))


def table_lines(head, rows):
    """The lines of a Markdown table."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    line = lambda row: "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |"
    return [line(head), "|" + "|".join("-" * (width + 2) for width in widths) + "|", *map(line, rows)]


class Workspace:
    """A directory that is gone afterwards."""

    def __init__(self, parent=None):
        self.path = Path(tempfile.mkdtemp(prefix="plainfold-bench-", dir=parent))

    def __enter__(self):
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path, ignore_errors=True)
