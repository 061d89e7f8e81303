"""Keeps what torch and converters print, log and warn about away from the user."""

from __future__ import annotations

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout

_LOGGERS = ("", "torch", "torch.export", "torchao", "executorch", "litert_torch", "absl", "jax")


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Python's output, log records and warnings while something is built.

    What is built is compared with the module afterwards, which says more than remarks. Errors
    come through. Deprecations inside a library are not the user's to mend.
    """
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(io.StringIO()))
        stack.enter_context(redirect_stderr(io.StringIO()))
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            stack.callback(logger.setLevel, logger.level)
            logger.setLevel(logging.CRITICAL)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextmanager
def silent_descriptors() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to nowhere, for what C++ code writes there.

    All threads of the process share them: whatever another one writes meanwhile is lost too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    with ExitStack() as stack:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(nowhere, descriptor)
        yield
