#!/usr/bin/env python3
"""What `plainfold run` costs with many mirrors.

    cargo build --release && python3 benches/agent.py

Each mirror follows a recorded feed of its own. Prints a table: the time until the agent is ready and until
all mirrors have caught up; its memory, threads and open files then; its processor time at rest; the time
of a reload that changes one mirror; and the time from SIGTERM to the end of the process.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

# A measurement leaves nothing behind in the repository.
sys.dont_write_bytecode = True

import harness

TICKS = os.sysconf("SC_CLK_TCK")


class Notifications:
    """What the agent reports to the service manager."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))

    def wait_for(self, state, seconds=900):
        deadline = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                said = self.socket.recv(65536).decode().splitlines()
            except TimeoutError:
                sys.exit(f"waited in vain for {state}")
            if state in said:
                return


def write_feed(path, collections, documents):
    with open(path, "w") as feed:
        for number in range(1, collections * documents + 1):
            name, revision, body = harness.document(number, 300)
            row = {
                "seq": number,
                "collection": f"collection-{number % collections:03}",
                "id": name,
                "changes": [{"rev": revision}],
                "doc": json.loads(body),
            }
            feed.write(json.dumps(row, separators=(",", ":")) + "\n")


def config(place, mirrors, changed=None):
    """Replaces the config, as an editor does. The mirror of the number `changed` has another option."""
    lines = ["[api]", "listen = ['./agent.sock']"]
    for number in range(mirrors):
        name = f"mirror-{number:04}"
        lines += ["[[mirror]]", f"name = '{name}'", f"source = 'feed:feeds/{number}.ndjson'"]
        lines += [f"directory = 'mirrors/{name}'"]
        if number == changed:
            lines += ["reserve = '1MiB'"]
    new = place / "plainfold.toml.new"
    new.write_text("\n".join(lines) + "\n")
    new.rename(place / "plainfold.toml")


def field(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def processor(pid):
    part = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(part[11]) + int(part[12])) / TICKS


class Log:
    """The lines that the agent logs."""

    def __init__(self, path, process):
        self.path = path
        self.process = process

    def wait_for(self, text, count, seconds=3600):
        deadline = time.monotonic() + seconds
        while self.path.read_text(errors="replace").count(text) < count:
            if time.monotonic() > deadline or self.process.poll() is not None:
                tail = self.path.read_text(errors="replace")[-2000:]
                sys.exit(f"waited in vain for {count} times {text!r}:\n{tail}")
            time.sleep(0.02)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mirrors", type=int, default=200)
    parser.add_argument("--collections", type=int, default=10, help="of each mirror")
    parser.add_argument("--documents", type=int, default=5, help="of each collection")
    parser.add_argument("--rest", type=int, default=60, help="seconds at rest; 0 leaves it out")
    parser.add_argument("--binary", help="another build of plainfold")
    parser.add_argument("--place", help="the folder in which the mirrors are made")
    options = parser.parse_args()
    binary = str(Path(options.binary).resolve() if options.binary else harness.plainfold())
    with harness.Workspace(options.place) as place:
        (place / "feeds").mkdir()
        for number in range(options.mirrors):
            write_feed(place / "feeds" / f"{number}.ndjson", options.collections, options.documents)
        config(place, options.mirrors)
        rows = []
        for what in ["first start", "second start"]:
            rows += [(what, *row) for row in measure(binary, place, options)]
    harness.table(["", "measured", "value"], rows)


def measure(binary, place, options):
    """Starts the agent, and ends it."""
    notified = Notifications(place / "notify")
    environment = {**os.environ, "NOTIFY_SOCKET": str(notified.path)}
    with open(place / "log", "wb") as log:
        begun = time.monotonic()
        process = subprocess.Popen(
            [binary, "run", "--config", "plainfold.toml"],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    since = lambda begun: f"{time.monotonic() - begun:.2f} s"
    log, pid = Log(place / "log", process), process.pid
    try:
        notified.wait_for("READY=1")
        yield "until it is ready", since(begun)
        log.wait_for("caught up with", options.mirrors)
        yield "until all have caught up", since(begun)
        time.sleep(2)
        yield "resident memory", f"{field(pid, 'VmRSS') / 1024:.0f} MiB"
        yield "most resident memory", f"{field(pid, 'VmHWM') / 1024:.0f} MiB"
        yield "threads", field(pid, "Threads")
        yield "open files", len(os.listdir(f"/proc/{pid}/fd"))
        if options.rest > 0:
            before = processor(pid)
            time.sleep(options.rest)
            used = (processor(pid) - before) / options.rest
            yield f"processor in {options.rest} s at rest", f"{used * 100:.2f} %"
        config(place, options.mirrors, changed=0)
        begun = time.monotonic()
        process.send_signal(signal.SIGHUP)
        log.wait_for("is in force: changed mirror-0000", 1)
        yield "reload until the config is in force", since(begun)
        log.wait_for("caught up with", options.mirrors + 1)
        yield "reload until its mirror has caught up", since(begun)
        begun = time.monotonic()
        process.terminate()
        if process.wait(60) != 0:
            sys.exit(f"plainfold ended with {process.returncode}")
        yield "from SIGTERM to the end", since(begun)
    finally:
        process.kill()
        process.wait()
        notified.path.unlink()
        config(place, options.mirrors)


if __name__ == "__main__":
    main()
