"""Where stages are done: this machine's processes or Ray. Only this package imports Ray."""

import os

# Ray reads it when it is imported. Else a thread that still asks for something after Ctrl-C has shut Ray down would start another one.
os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
