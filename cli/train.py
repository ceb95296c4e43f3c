"""`vwl train`: one training stage of a run."""

import typer

from cli.options import (
    Address,
    Backend,
    CheckpointSteps,
    CpusPerWorker,
    Data,
    GpusPerWorker,
    MicroBatch,
    Override,
    Overwrite,
    Precision,
    RecipeName,
    RunFolder,
    Workers,
    do_stages,
    layout,
    open_run,
)

app = typer.Typer(no_args_is_help=True, help="Train one network of a run; goes on from its last checkpoint.")


@app.command()
def classifier(
    run: RunFolder,
    data: Data = None,
    recipe: RecipeName = None,
    override: Override = None,
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0,
    micro_batch: MicroBatch = None,
    precision: Precision = "float32",
    checkpoint_steps: CheckpointSteps = 50,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the classifier with visual words and hybrid pooling.

    \b
    Examples:
      vwl train classifier --data voc.parquet --recipe paper-voc --run runs/voc --workers 4 --gpus-per-worker 1
      vwl train classifier --data voc.parquet --recipe small --run runs/k128 -o classifier.num_words=128
    """
    opened = open_run(run, data, recipe, override, overwrite)
    where = layout(workers, cpus_per_worker, gpus_per_worker, micro_batch, precision, checkpoint_steps)
    do_stages(opened, ["classifier"], where, backend, address)


@app.command()
def irnet(
    run: RunFolder,
    override: Override = None,
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0,
    micro_batch: MicroBatch = None,
    precision: Precision = "float32",
    checkpoint_steps: CheckpointSteps = 50,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the boundary network on the run's confident labels.

    \b
    Examples:
      vwl train irnet --run runs/voc
      vwl train irnet --run runs/voc -o irnet.epochs=4 --overwrite
    """
    opened = open_run(run, None, None, override, overwrite)
    where = layout(workers, cpus_per_worker, gpus_per_worker, micro_batch, precision, checkpoint_steps)
    do_stages(opened, ["irnet"], where, backend, address)


@app.command()
def segmenter(
    run: RunFolder,
    override: Override = None,
    workers: Workers = 1,
    cpus_per_worker: CpusPerWorker = None,
    gpus_per_worker: GpusPerWorker = 0,
    micro_batch: MicroBatch = None,
    precision: Precision = "float32",
    checkpoint_steps: CheckpointSteps = 50,
    address: Address = None,
    backend: Backend = "ray",
    overwrite: Overwrite = False,
) -> None:
    """Train the segmentation model on the run's pseudo masks.

    \b
    Examples:
      vwl train segmenter --run runs/voc
      vwl train segmenter --run runs/voc --workers 2 --gpus-per-worker 1 --address auto
    """
    opened = open_run(run, None, None, override, overwrite)
    where = layout(workers, cpus_per_worker, gpus_per_worker, micro_batch, precision, checkpoint_steps)
    do_stages(opened, ["segmenter"], where, backend, address)
