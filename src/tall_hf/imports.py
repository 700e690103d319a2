"""Where another interpreter finds the libraries that this one has."""

import os
import sys
import sysconfig

from transformers.utils import HF_MODULES_CACHE


def library_paths() -> list[str]:
    """Folders for another interpreter's `sys.path`: those of this one, without what belongs to this process alone.

    Left out are the script's own folder and the cache of remote code, which transformers puts there when it loads some: the
    other interpreter has a cache of its own, and would look for its modules in this one.
    """
    paths = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *sys.path[1:]]
    return [path for path in dict.fromkeys(paths) if os.path.isdir(path) and path != HF_MODULES_CACHE]
