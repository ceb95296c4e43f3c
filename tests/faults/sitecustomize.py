"""In PYTHONPATH: a process that reads the image named in VWL_FATAL_IMAGE, or the file named so in VWL_FATAL_FILE, dies, as of a crashing decoder;
and faults by the files in VWL_FAULTS."""

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

if os.environ.get("VWL_FAULTS"):
    # a folder: while it holds a file of this name, processes that load a stage die, a training's workers die, or its worker 1 hangs
    from pathlib import Path

    from vwl.inference import build as inference_build
    from vwl.training import build as training_build

    faults = Path(os.environ["VWL_FAULTS"])
    build_stage, build_task = inference_build.build_stage, training_build.build_task

    def fatal_stage(spec):
        if (faults / "stage-dies").exists():
            os._exit(1)
        return build_stage(spec)

    def fatal_task(spec):
        if (faults / "training-dies").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        if (faults / "worker-hangs").exists() and os.environ.get("RANK") == "1":
            signal.pause()
        return build_task(spec)

    inference_build.build_stage, training_build.build_task = fatal_stage, fatal_task
