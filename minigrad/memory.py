"""What happens to the memory of freed arrays, in the whole process.

By default, glibc returns a large block to the system as soon as it is freed, and the system
clears every page again for the next array. That takes a fifth of a training step with batches of
250 to 10,000. So ``import minigrad`` asks glibc to keep up to 256 MB of freed memory (see
mallopt(3)). This affects all code in the process. To leave glibc alone, set the environment
variable MINIGRAD_KEEP_MEMORY to 0 before the import.
"""

import ctypes
import os


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, unless MINIGRAD_KEEP_MEMORY is 0; return whether it does."""
    M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
    if os.environ.get("MINIGRAD_KEEP_MEMORY") == "0":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library: macOS, Windows
        return False
    # 32 MB is the largest value that glibc accepts; larger blocks are still returned.
    return bool(mallopt(M_MMAP_THRESHOLD, 32 << 20) and mallopt(M_TRIM_THRESHOLD, 256 << 20))
