"""Plays `torch` on a machine with GPUs: what `src/host/smoke/engine/load.py` calls of it. The variable STAND_IN, in JSON, says
what goes wrong; without it two devices calculate right."""

import json
import os
import sys
import time

PLAY = json.loads(os.environ.get("STAND_IN", "{}"))

__version__ = "2.8.0+cu128"
float32 = "float32"

# Libraries talk on standard output as they are imported.
print("a banner\n{\"schema\":1}")


class version:
    cuda = PLAY.get("release", "12.8")


class cuda:
    @staticmethod
    def init():
        if "noise" in PLAY:
            for stream in (sys.stdout, sys.stderr):
                stream.write("x" * PLAY["noise"])
                stream.flush()
        if "hang" in PLAY:
            time.sleep(3600)
        if "init" in PLAY:
            raise RuntimeError(PLAY["init"])

    @staticmethod
    def device_count():
        return PLAY.get("devices", 2)

    @staticmethod
    def get_arch_list():
        return ["sm_80", "sm_90", "compute_90"]

    @staticmethod
    def get_device_name(index):
        return "NVIDIA H100 80GB HBM3"

    @staticmethod
    def get_device_capability(index):
        return (9, 0)


class Tensor:
    def __init__(self, values, device, wide=None):
        self.values, self.device, self.wide = values, device, wide

    def of(self, values):
        return Tensor(values, self.device, self.wide)

    def __mul__(self, factor):
        return self.of([value * factor for value in self.values])

    def __add__(self, number):
        return self.of([value + number for value in self.values])

    def __matmul__(self, other):
        wide = self.wide
        rows = [self.values[at * wide:(at + 1) * wide] for at in range(wide)]
        columns = [other.values[at::wide] for at in range(wide)]
        return self.of([sum(a * b for a, b in zip(row, column)) for row in rows for column in columns])

    def reshape(self, rows, columns):
        return Tensor(self.values, self.device, columns)

    def sum(self):
        return self.of([sum(self.values)])

    def item(self):
        wrong = int(self.device.split(":")[1]) in PLAY.get("wrong", [])
        return self.values[0] + (1 if wrong else 0)


def on(device):
    words = PLAY.get("raises", {}).get(device.split(":")[1])
    if words is not None:
        raise RuntimeError(words)
    return device


def arange(count, dtype, device):
    return Tensor([float(number) for number in range(count)], on(device))


def ones(shape, dtype, device):
    return Tensor([1.0] * (shape[0] * shape[1]), on(device), shape[1])
