"""Keep what TensorFlow prints at its start from burying the answer of the command `tfbn`."""

import os
import sys
import tempfile


def is_command() -> bool:
    """Whether this process is the command `tfbn`, not a program that imports the package."""
    return os.path.basename(sys.argv[0]) in ("tfbn", "tfbn.exe")


def import_tensorflow() -> None:
    """Import TensorFlow without the lines that its libraries write to stderr.

    They write before they read any log level, so the file descriptor itself is redirected. If the
    import fails, the lines are shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as aside:
        os.dup2(aside.fileno(), 2)
        try:
            import tensorflow  # noqa: F401, PLC0415
        except BaseException:
            aside.seek(0)
            os.write(stderr, aside.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
