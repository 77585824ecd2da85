"""Common parts of the measuring scripts: private brokers, the stand-in for the API, and measuring a process."""

import contextlib
import functools
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches/peers"
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
TOOLS = TARGET / "peers"
PROGRAM = TARGET / "release/labelcast"
BARE = TOOLS / "struson/release/bare-struson"
RABBITMQ = pathlib.Path("/usr/lib/rabbitmq/bin")
# The maximum number of unconfirmed messages, as in the program.
WINDOW = 512


class Measured:
    """Measurements of one process: seconds, CPU seconds, peak resident KiB."""

    def __init__(self, seconds, cpu, peak):
        self.seconds = seconds
        self.cpu = cpu
        self.peak = peak


def measure(command, ready=False, meanwhile=None, **options):
    """Runs and measures a command. With `ready`, the command reports when it is ready, and the time starts when it is
    told to go. `meanwhile` runs at the same time and must be shorter."""
    # Use GNU time, which is small. A fork of this process would start with its memory.
    with tempfile.NamedTemporaryFile("r") as told:
        timed = ["/usr/bin/time", "--quiet", "-f", "%M", "-o", told.name, *command]
        pipe = subprocess.PIPE if ready else subprocess.DEVNULL
        begin = time.perf_counter()
        process = subprocess.Popen(timed, stdin=pipe, stdout=pipe, **options)
        if ready:
            process.stdout.readline()
            begin = time.perf_counter()
            process.stdin.write(b"\n")
            process.stdin.flush()
        if meanwhile:
            meanwhile()
            if os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                sys.exit(f"{command[0]} ended before the measurement beside it")
        # This is the usage of the command. GNU time itself would round it to 10 ms.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            sys.exit(f"{command[0]} ended with {process.returncode}")
        return Measured(seconds, usage.ru_utime + usage.ru_stime, int(told.read()))


def build_limits():
    """Builds the programs that only do the broker's part."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", PEERS / "raw_redis.c", "-o", TOOLS / "raw_redis"], check=True)
    subprocess.run(["cc", "-O2", PEERS / "librabbitmq.c", "-lrabbitmq", "-o", TOOLS / "librabbitmq"], check=True)


def build_parser():
    """Builds the program that only does the parser's part."""
    words = ["--locked", "--release", "--quiet", "--manifest-path", PEERS / "struson/Cargo.toml"]
    subprocess.run(["cargo", "build", *words, "--target-dir", TOOLS / "struson"], cwd=ROOT, check=True)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextlib.contextmanager
def running(command, **options):
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Redis:
    def __init__(self, stack, folder):
        self.port = free_port()
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", str(folder)]
        stack.enter_context(running(command, stdout=subprocess.DEVNULL))
        self.url = f"redis://127.0.0.1:{self.port}"
        while self.ask("ping") != "PONG":
            time.sleep(0.05)

    def ask(self, *words):
        command = ["redis-cli", "-p", str(self.port), *words]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()

    def prepare(self, _queue):
        self.ask("flushall")

    def memory(self, *patterns):
        """Bytes of all keys that match."""
        keys = [key for pattern in patterns for key in self.ask("KEYS", pattern).split()]
        return sum(int(self.ask("MEMORY", "USAGE", key, "SAMPLES", "0")) for key in keys)

    def held(self, queue, _expected):
        return int(self.ask("xlen", queue))

    def limit(self, queue, chats, ids, meanwhile=None):
        command = [TOOLS / "raw_redis", str(self.port), queue, str(chats), str(ids)]
        return measure(command, ready=True, meanwhile=meanwhile)


class RabbitMq:
    def __init__(self, stack, folder):
        self.port = free_port()
        self.environment = os.environ | {
            "HOME": str(folder),
            "RABBITMQ_NODENAME": f"bench{self.port}@localhost",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": str(free_port()),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbit"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
        }
        (folder / "rabbit.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{self.port}\n")
        (folder / "plugins").write_text("[].\n")
        log = open(folder / "said", "wb")
        options = {"env": self.environment, "cwd": folder, "stdout": log, "stderr": log}
        # Cleanup runs in reverse order: first the broker, then the port mapper that it started.
        stack.callback(self.stop_port_mapper)
        stack.enter_context(running([RABBITMQ / "rabbitmq-server"], **options))
        while b"completed with" not in (folder / "said").read_bytes():
            time.sleep(0.2)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}"

    def stop_port_mapper(self):
        """Retries, because the port mapper refuses until it has noticed that the broker is gone."""
        for _ in range(50):
            if "Killed" in subprocess.run(["epmd", "-kill"], env=self.environment, capture_output=True, text=True).stdout:
                return
            time.sleep(0.1)

    def control(self, *words):
        command = [RABBITMQ / "rabbitmqctl", "--silent", *words]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout

    def of(self, kind):
        """Returns the same broker, for queues of a type."""
        queue = object.__new__(RabbitMq)
        queue.__dict__ = self.__dict__ | {"kind": kind}
        return queue

    def prepare(self, queue):
        self.control("delete_queue", queue)
        # Declare the queue, so that all programs find the same one.
        self.limit(queue, 0, 1)

    def held(self, queue, expected):
        # The broker updates this number every few seconds and reports 0 at first.
        held = 0
        for _ in range(40):
            found = re.search(rf"^{queue}\s+(\d+)$", self.control("list_queues", "name", "messages"), re.M)
            held = int(found[1]) if found else 0
            if held == expected:
                break
            time.sleep(0.5)
        return held

    def limit(self, queue, chats, ids, meanwhile=None):
        words = [str(self.port), "/", queue, self.kind, str(chats), str(WINDOW), str(ids)]
        return measure([TOOLS / "librabbitmq", *words], meanwhile=meanwhile)


class File:
    def __init__(self, folder):
        self.path = folder / "chats.jsonl"
        self.url = f"file:{self.path}"

    def prepare(self, _queue):
        for path in self.path.parent.glob("chats.jsonl*"):
            path.unlink()

    def held(self, _queue, _expected):
        with open(self.path, "rb") as lines:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: lines.read(1 << 20), b""))

    def limit(self, _queue, _chats, _ids):
        """Copies and flushes the file of the previous run."""
        copy = self.path.with_suffix(".copy")
        return measure(["dd", f"if={self.path}", f"of={copy}", "bs=64K", "conv=fdatasync", "status=none"])


class Api:
    """The program's stand-in for the API, with a label of this many chats."""

    environment = os.environ | {"WAWP_ACCESS_TOKEN": "demo-token"}

    def __init__(self, stack, chats):
        self.stack = stack
        self.chats = chats
        command = [PROGRAM, "demo", "--serve", "--chats", str(chats)]
        process = stack.enter_context(running(command, stdout=subprocess.PIPE, text=True))
        self.url = re.search(r"http://[0-9.:]+", process.stdout.readline())[0]
        self.list = f"{self.url}/v2/labels/1/chats?instance_id=demo&access_token=demo-token"

    @functools.cached_property
    def saved(self):
        """The path of a file with the list."""
        file = self.stack.enter_context(tempfile.NamedTemporaryFile())
        with urllib.request.urlopen(self.list) as body:
            shutil.copyfileobj(body, file)
        file.flush()
        return file.name

    def download(self, meanwhile):
        """Downloads the list several times and discards it."""
        measure(["curl", "-s", *[self.list, "-o", "/dev/null"] * 8], meanwhile=meanwhile)

    def parse(self, enough=1_000_000):
        """Returns the CPU seconds that the parser alone takes for the list, in memory."""
        # The kernel counts in ticks of several milliseconds, so short lists are parsed repeatedly until there
        # are enough chats.
        times = -(-enough // self.chats)
        _chats, nanos = subprocess.check_output([BARE, self.saved, str(times)]).split()
        return int(nanos) / times / 1e9

    def command(self, sink, queue, more=(), program=PROGRAM):
        command = [program, "run", "--quiet", "--report", "none", "--api-url", self.url]
        command += ["--instance-id", "demo", "--label", "1", "--sink", sink, "--queue", queue]
        return [*command, *more]

    def run(self, sink, queue, ids=1, more=(), program=PROGRAM):
        packed = ("--ids-per-message", str(ids))
        return measure(self.command(sink, queue, [*packed, *more], program), env=self.environment)


def check(name, broker, queue, expected):
    held = broker.held(queue, expected)
    if held != expected:
        sys.exit(f"{name} published {held} messages instead of {expected}")


def table(columns, rows):
    """Returns a table in Markdown. The first column is text, the others are numbers."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
