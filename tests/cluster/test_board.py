"""What a sweep says of its trials."""

import pytest

from cluster.failures import of_text


@pytest.mark.parametrize(
    ("told", "line"),
    [
        (
            "Failure # 1 (occurred at 2026-11-23)\nray::ImplicitFunc.train() (pid=7)\n  File x, line 1\n"
            "FloatingPointError: the training loss is nan in epoch 2; lower --model.lr\n",
            "the training loss is nan in epoch 2; lower --model.lr",
        ),
        ("Failure # 1\nMemoryError\n", "out of memory"),
        (
            "Failure # 1\ntorch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n",
            "out of memory: CUDA out of memory. Tried to allocate 2 GiB",
        ),
        (
            "Failure # 1\nThe actor died unexpectedly before finishing this task.\n\tclass_name: x\n\tpid: 7\n",
            "its process died (out of memory, or killed)",
        ),
        (
            "Failure # 1\nray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n",
            "out of memory: Ray ended it; give each trial more, or run fewer at a time (--concurrent)",
        ),
        ("Failure # 1\nkeys are: a: b\n", "keys are: a: b"),
        ("", "unknown"),
    ],
)
def test_why_a_trial_failed_is_one_line(told, line):
    assert of_text(told) == line
