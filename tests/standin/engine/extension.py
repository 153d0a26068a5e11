"""Plays the compiled part of an engine: it loads, or does what the variable STAND_IN says."""

import os
import sys

import torch

if "missing" in torch.PLAY:
    try:
        raise OSError(torch.PLAY["missing"] + ": cannot open shared object file: No such file or directory")
    except OSError as error:
        raise ImportError("the compiled part does not load") from error
if "huge" in torch.PLAY:
    raise ImportError("\x1b[2J\n" * 1000000)
if "leaves" in torch.PLAY:
    sys.exit("this engine does not like the machine")
if "crashes" in torch.PLAY:
    # A signal sent to the first process of a container does nothing, so it must come from the processor.
    os.abort()
