"""In PYTHONPATH: a process that reads the image named in VWL_FATAL_IMAGE, or the file named so in VWL_FATAL_FILE, dies, as of a crashing decoder."""

import os
import signal
import sys

if os.environ.get("VWL_FATAL_IMAGE"):
    from vwl.data.index import Index

    read_image = Index.read_image

    def fatal(self, row):
        if row.image_id == os.environ["VWL_FATAL_IMAGE"]:
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(self, row)

    Index.read_image = fatal

if os.environ.get("VWL_FATAL_FILE"):
    from vwl.prediction import images

    read_image_file = images.read_image_file

    def fatal_file(path):
        if os.path.basename(path) == os.environ["VWL_FATAL_FILE"]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image_file(path)

    images.read_image_file = fatal_file
