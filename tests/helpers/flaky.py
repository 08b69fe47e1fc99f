"""Storage that is slow and fails now and then: local files behind a protocol of their own, `flaky:///path`.

Processes that find ``flaky.dist-info`` on their path know it, and behave as FLAKY_PART and FLAKY_DELAY say.
"""

import errno
import functools
import os
import random
import threading
import time

import fsspec
from fsspec.implementations.local import LocalFileSystem

CALLS = ("info", "cat_file", "pipe_file", "put_file", "get_file", "cp_file", "ls", "find", "rm_file", "rm", "makedirs")


class Flaky(LocalFileSystem):
    """Fails by chance, seeded, or where ``broken`` says so. A failing write leaves nothing, as a PUT does."""

    protocol = "flaky"
    part, delay = float(os.environ.get("FLAKY_PART", 0)), float(os.environ.get("FLAKY_DELAY", 0))
    calls, faults = 0, 0
    broken = staticmethod(lambda call, path: False)
    chance = random.Random(0)
    inside = threading.local()

    def __init__(self, **options):
        super().__init__(auto_mkdir=True, **options)

    @classmethod
    def _strip_protocol(cls, path):
        return LocalFileSystem._strip_protocol(path.removeprefix("flaky://"))

    def unstrip_protocol(self, name):
        return f"flaky://{self._strip_protocol(name)}"

    @classmethod
    def behave(cls, part=0.0, delay=0.0, broken=None):
        cls.part, cls.delay, cls.calls, cls.faults = part, delay, 0, 0
        cls.broken, cls.chance = staticmethod(broken or (lambda call, path: False)), random.Random(0)


def shaky(name):
    plain = getattr(LocalFileSystem, name)

    @functools.wraps(plain)
    def call(self, *arguments, **options):
        if getattr(self.inside, "busy", False):
            return plain(self, *arguments, **options)
        time.sleep(Flaky.delay)
        Flaky.calls += 1
        place = arguments[1] if name in ("put_file", "cp_file") else arguments[0]
        if Flaky.chance.random() < Flaky.part or Flaky.broken(name, str(place)):
            Flaky.faults += 1
            raise OSError(errno.EIO, "injected")
        self.inside.busy = True
        try:
            return plain(self, *arguments, **options)
        finally:
            self.inside.busy = False

    return call


for name in CALLS:
    setattr(Flaky, name, shaky(name))
fsspec.register_implementation("flaky", Flaky, clobber=True)
