#!/usr/bin/env python3
"""Records the session that README shows: runs its commands in a terminal, and draws what they print.

    python3 docs/session/record.py PROGRAM            runs the commands; writes session.txt and session.svg
    python3 docs/session/record.py PROGRAM --check    runs them again, and compares what they print with session.txt

The commands run in an empty folder, which is shown as /srv. Nothing else is changed in what they print."""

import fcntl
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from html import escape
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURES = HERE.parent.parent / "fixtures"
COLUMNS, ROWS = 106, 50
SHOWN_FOLDER = "/srv"
DEADLINE = 60

COMMANDS = [
    "# A mirror by one command: each document becomes a folder.",
    "plainfold mirror feed:library.ndjson ./mirror",
    "find mirror/books/isbn%3A979-7-7004-3908-7 -type f | sort",
    "plainfold verify ./mirror",
    "",
    "# All mirrors of a machine in one service.",
    "plainfold config init plainfold.toml",
    "plainfold config check --config plainfold.toml",
    "plainfold run --config plainfold.toml 2> run.log &",
    "plainfold mirrors --config plainfold.toml",
]


class Screen:
    """As much of a terminal as these programs use: lines, a cursor, and no colours."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif part.startswith("\x1b"):
                self.control(part[-1], int(part[2:-1] or 0) if part[2:-1].isdigit() or not part[2:-1] else 0)
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + part + line[self.column + len(part) :]
                self.column += len(part)

    def control(self, what, number):
        if what == "A":
            self.row = max(0, self.row - max(1, number))
        elif what == "K":
            self.lines[self.row] = self.lines[self.row][: self.column] if number == 0 else ""
        elif what == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]

    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


def printed(command, folder, environment):
    """What a command prints on a terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", command], environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    signal.alarm(DEADLINE)
    data = b""
    while True:
        try:
            more = os.read(terminal, 65536)
        except OSError:
            break
        if not more:
            break
        data += more
    _, status = os.waitpid(pid, 0)
    signal.alarm(0)
    os.close(terminal)
    if status != 0:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}: {data.decode()}")
    screen = Screen()
    screen.feed(data.decode())
    return screen.text()


def run_beside(command, folder, environment):
    """Starts a command that goes on beside the next ones, and waits until it has caught up."""
    command, log = command.removesuffix(" &").split(" 2> ")
    with open(folder / log, "w") as stderr:
        process = subprocess.Popen(
            ["bash", "-c", f"exec {command}"], cwd=folder, env=environment, stderr=stderr, stdout=stderr
        )
    until = time.monotonic() + DEADLINE
    while "caught up with" not in (text := (folder / log).read_text()):
        if process.poll() is not None or time.monotonic() > until:
            sys.exit(f"{command} has not caught up: {text}")
        time.sleep(0.05)
    return process


def record(program):
    """The commands, each with what it prints."""
    session, service = [], None
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve() / "session"
        (folder / "bin").mkdir(parents=True)
        (folder / "bin/plainfold").symlink_to(Path(program).resolve())
        shutil.copy(FIXTURES / "library.ndjson", folder)
        shutil.copytree(FIXTURES / "files", folder / "files")
        environment = {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TERM": "xterm-256color",
            "LC_ALL": "C.UTF-8",
            "RUNTIME_DIRECTORY": str(folder / "run"),
        }
        try:
            for command in COMMANDS:
                if command.startswith("#") or not command:
                    session.append((command, ""))
                elif command.endswith(" &"):
                    service = run_beside(command, folder, environment)
                    session.append((command, ""))
                else:
                    output = printed(command, folder, environment)
                    session.append((command, output.replace(str(folder), SHOWN_FOLDER)))
        finally:
            if service:
                service.terminate()
                service.wait(DEADLINE)
    return session


def as_text(session):
    lines = []
    for command, output in session:
        lines.append(command if command.startswith("#") or not command else f"$ {command}")
        lines += output.split("\n") if output else []
    return "\n".join(lines) + "\n"


def comparable(text):
    """The lines without what differs from run to run: times, room, and in how many steps documents arrived."""
    text = re.sub(r"\b\d+(\.\d+)? (s|ms|[KMGT]iB free)\b", r"N \2", text)
    # If the machine is slow, a document that changes twice in the feed is written twice.
    return [re.sub(r"[\d.]+", "N", line) if line.startswith("caught up") else line for line in text.split("\n")]


def wrapped(line):
    return [line[at : at + COLUMNS] for at in range(0, len(line), COLUMNS)] or [""]


WIDTH, LINE, MARGIN, TOP = 8.4, 21, 24, 58

STYLE = """
.w{fill:#fff;stroke:#d0d7de}.b{fill:#f6f8fa}text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",
"Liberation Mono",monospace;fill:#424a53;white-space:pre}.c{fill:#1f2328;font-weight:600}.p,.g{fill:#1a7f37;font-weight:600}
.h{fill:#6e7781;font-style:italic}.t{fill:#6e7781;font-size:13px}.k{fill:#fff}
.o{animation:show .15s both}.k{transform-box:fill-box;transform-origin:right;transform:scaleX(0);animation:type backwards}
@keyframes show{from{opacity:0}}@keyframes type{from{transform:scaleX(1)}}
@media(prefers-color-scheme:dark){.w{fill:#0d1117;stroke:#30363d}.b{fill:#161b22}.k{fill:#0d1117}text{fill:#c9d1d9}
.c{fill:#f0f6fc}.p,.g{fill:#3fb950}.h,.t{fill:#8b949e}}
@media(prefers-reduced-motion:reduce){.o,.k{animation:none}}
"""


def spans(line, kind):
    """A line with its parts coloured."""
    text = escape(line, quote=False)
    if kind == "command":
        return f'<tspan class="p">$</tspan> <tspan class="c">{text[2:]}</tspan>'
    if kind == "comment":
        return f'<tspan class="h">{text}</tspan>'
    good = r"^(  ok)(?= )|^(caught up)|^(no problems found)|(everything works)$|(?<= )(running)(?= )"
    return re.sub(good, lambda found: f'<tspan class="g">{found[0]}</tspan>', text)


def as_svg(text):
    """A picture of the session that types itself, and is complete where nothing moves."""
    drawn, row, at = [], 0, 0.5
    for whole in text.rstrip("\n").split("\n"):
        kind = "command" if whole.startswith("$ ") else "comment" if whole.startswith("#") else "output"
        at += {"command": 0.9, "comment": 0.9}.get(kind, 0.06)
        for line in wrapped(whole):
            y = TOP + row * LINE
            row += 1
            if not line:
                continue
            length = f'textLength="{len(line) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
            drawn.append(
                f'<text class="o" style="animation-delay:{at:.2f}s" x="{MARGIN}" y="{y}" {length}>{spans(line, kind)}</text>'
            )
            if kind == "command":
                typed, seconds = len(line) - 2, (len(line) - 2) * 0.03
                drawn.append(
                    f'<rect class="k" x="{MARGIN + 2 * WIDTH:.1f}" y="{y - 15}" width="{typed * WIDTH:.1f}" height="{LINE}"'
                    f' style="animation-delay:{at:.2f}s;animation-duration:{seconds:.2f}s;'
                    f'animation-timing-function:steps({typed})"/>'
                )
                at += seconds + 0.4
    width, height = round(2 * MARGIN + COLUMNS * WIDTH), TOP + row * LINE + 4
    dots = "".join(
        f'<circle cx="{MARGIN + 18 * n}" cy="18" r="6" fill="{colour}"/>'
        for n, colour in enumerate(["#ff5f57", "#febc2e", "#28c840"])
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>A terminal session with Plainfold</title><style>{STYLE}</style>"
        f'<rect class="w" x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="10"/>'
        f'<path class="b" d="M1 36V11a10 10 0 0 1 10-10H{width - 11}a10 10 0 0 1 10 10v25z"/>{dots}'
        f'<text class="t" x="{width / 2}" y="23" text-anchor="middle">plainfold</text>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def main(program, check):
    text = as_text(record(program))
    if not check:
        (HERE / "session.txt").write_text(text)
        (HERE / "session.svg").write_text(as_svg(text))
        return
    kept = (HERE / "session.txt").read_text()
    if comparable(kept) != comparable(text):
        sys.exit(f"The commands print something else now; record the session again.\nThen:\n{kept}\nNow:\n{text}")
    if (HERE / "session.svg").read_text() != as_svg(kept):
        sys.exit("session.svg is not the picture of session.txt; record the session again")


if __name__ == "__main__":
    main(sys.argv[1], "--check" in sys.argv[2:])
