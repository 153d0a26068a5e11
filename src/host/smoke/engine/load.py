"""Loads an engine in its own image, and calculates on each GPU with the image's torch.

    python3 engine-smoke.py vllm|sglang

Prints lines of JSON: one before each step, with its name as `at`, so that a hang or a crash has a place; the last one holds
what was seen. It never raises, bounds all it prints, and needs nothing but the standard library of Python 3.6. What others
print on standard output goes to standard error. See `docs/decisions/smoke.md`.
"""

import json
import os
import sys

SCHEMA = 1
# The longest text, in characters; the most devices, architectures and causes of an exception.
WORDS = 300
DEVICES = 64
ARCHITECTURES = 64
CAUSES = 8
# What a server of the engine loads beside its package: compiled code, and the server. Names of several versions: of each kind
# at least one has to be there, else it is told as missing.
PARTS = {
    "vllm": {
        "compiled code": ["vllm._C", "vllm._C_stable_libtorch"],
        "server": ["vllm.entrypoints.openai.api_server"],
    },
    "sglang": {
        "compiled code": ["sgl_kernel"],
        "server": ["sglang.srt.entrypoints.http_server", "sglang.srt.server"],
    },
}


def short(value):
    """A value as printable text in one line."""
    try:
        text = str(value)[: 4 * WORDS]
    except BaseException:
        return "(no text)"
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= WORDS else text[:WORDS] + "…"


def complaint(at, error):
    """Where, what kind of exception, and its words, with those of the first cause."""
    words = short(error)
    inner = error
    for _ in range(CAUSES):
        if inner.__cause__ is None:
            break
        inner = inner.__cause__
    if inner is not error:
        words = "%s (because of %s: %s)" % (words, type(inner).__name__, short(inner))
    return {"at": short(at), "kind": short(type(error).__name__), "words": words}


class Look:
    """What is seen, and where it is told."""

    def __init__(self, out):
        self.out = out
        self.seen = {"schema": SCHEMA, "python": short(sys.version.split()[0]), "modules": [], "missing": [], "devices": [], "faults": []}

    def say(self, line):
        os.write(self.out, (json.dumps(line) + "\n").encode("ascii"))

    def attempt(self, at, work, faults=None):
        """What `work` gives; None where it raises, which is kept."""
        self.say({"schema": SCHEMA, "at": at})
        try:
            return work()
        except BaseException as error:
            (self.seen["faults"] if faults is None else faults).append(complaint(at, error))
            return None

    def imported(self, name):
        def work():
            __import__(name)
            return sys.modules[name]

        module = self.attempt("import " + name, work)
        if module is not None:
            self.seen["modules"].append(name)
        return module

    def part(self, name):
        """Imports a module, where there is one of that name; whether there is."""

        def work():
            import importlib.util

            try:
                found = importlib.util.find_spec(name)
            except ModuleNotFoundError as error:
                # A package on the way to it that this version does not have.
                if error.name is not None and (name + ".").startswith(error.name + "."):
                    return None
                raise
            if found is None:
                return None
            __import__(name)
            return name

        before = len(self.seen["faults"])
        imported = self.attempt("import " + name, work) is not None
        if imported:
            self.seen["modules"].append(name)
        return imported or len(self.seen["faults"]) > before

    def gpus(self, torch):
        cuda = torch.cuda
        self.seen["torch"] = short(torch.__version__)
        release = getattr(torch.version, "cuda", None)
        self.seen["cuda"] = None if release is None else short(release)
        started = self.attempt("CUDA", lambda: (cuda.init(), True))
        found = self.attempt("architectures", cuda.get_arch_list)
        self.seen["architectures"] = [short(name) for name in (found or [])[:ARCHITECTURES]]
        # Without an initialised CUDA it may count what NVML sees.
        count = self.attempt("CUDA", cuda.device_count) if started else None
        if count is None:
            return
        self.seen["count"] = int(count)
        for index in range(min(count, DEVICES)):
            self.seen["devices"].append(self.gpu(torch, index))

    def gpu(self, torch, index):
        device = {"index": index}
        faults = []

        def work():
            device["name"] = short(torch.cuda.get_device_name(index))
            major, minor = torch.cuda.get_device_capability(index)
            device["capability"] = [int(major), int(minor)]
            # Whole numbers that a float holds exactly: a kernel of torch's own, then one of cuBLAS.
            numbers = torch.arange(1024, dtype=torch.float32, device="cuda:%d" % index)
            got = float((numbers * 3 + 1).sum().item())
            square = numbers.reshape(32, 32)
            ones = torch.ones((32, 32), dtype=torch.float32, device="cuda:%d" % index)
            product = float((square @ ones).sum().item())
            whole = 1023 * 1024 // 2
            device["right"] = got == 3 * whole + 1024 and product == 32 * whole
            return True

        self.attempt("GPU %d" % index, work, faults)
        if faults:
            device["fault"] = faults[0]
        return device


def main(engine):
    out = os.dup(1)
    os.dup2(2, 1)
    # Nothing lies beside this file that could stand for a module. With PYTHONSAFEPATH its directory is not there.
    if sys.path[:1] == [os.path.dirname(os.path.abspath(__file__))]:
        del sys.path[:1]
    look = Look(out)
    torch = look.imported("torch")
    if torch is not None:
        look.attempt("CUDA", lambda: look.gpus(torch))
        package = look.imported(engine)
        if package is not None:
            look.seen["version"] = short(getattr(package, "__version__", "unknown"))
            for kind, names in PARTS[engine].items():
                if not any([look.part(name) for name in names]):
                    look.seen["missing"].append(kind)
    look.seen["faults"] = look.seen["faults"][:CAUSES]
    look.say(look.seen)
    # What was loaded has threads and exit handlers of its own: none of them matters here.
    os._exit(0)


main(sys.argv[1])
