"""A command in a terminal of its own."""

import os
import pty
import re
import subprocess


def run(command, **options):
    """Run a command whose stderr is a terminal; returns its exit code and all that the terminal was sent, as text."""
    ours, theirs = pty.openpty()
    sent = b""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=theirs, **options) as started:
        os.close(theirs)
        try:
            while part := _read(ours):
                sent += part
        finally:
            os.close(ours)  # which ends the command, should it still run
    text = sent.decode(errors="replace").replace("\r", "\n")
    return started.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def _read(terminal):
    try:
        return os.read(terminal, 2**16)
    except OSError:  # nobody has it open any more
        return b""
