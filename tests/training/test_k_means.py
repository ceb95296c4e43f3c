"""k-means: Lloyd's algorithm by cosine similarity, with the same bits at any number of workers."""

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from vwl.training.distributed import rank, world_size
from vwl.training.k_means import Clusters, k_means

NUM_BLOCKS, DIM = 6, 5
SIZES = (30, 0, 17, 25, 1, 40)


def block(number: int) -> torch.Tensor:
    """Features (n, d) float32 of a block."""
    return torch.from_numpy(np.random.default_rng(number).gamma(1.0, size=(SIZES[number], DIM)).astype(np.float32))


def clustered(num_clusters: int = 4, iterations: int = 50, seed: int = 0) -> Clusters:
    blocks = {number: block(number) for number in range(NUM_BLOCKS) if number % world_size() == rank() and SIZES[number]}
    return k_means(blocks, NUM_BLOCKS, DIM, num_clusters, iterations, np.random.default_rng(seed))


def lloyd(num_clusters: int, iterations: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and assignments of all features in one array."""
    features = np.concatenate([block(number).numpy() for number in range(NUM_BLOCKS)]).astype(np.float64)
    centres = features[np.sort(np.random.default_rng(seed).choice(len(features), num_clusters, replace=False))]
    for _ in range(iterations):
        cosines = features @ centres.T / np.outer(np.linalg.norm(features, axis=1), np.linalg.norm(centres, axis=1))
        nearest = cosines.argmax(axis=1)
        centres = np.stack([features[nearest == k].mean(axis=0) if (nearest == k).any() else centres[k] for k in range(num_clusters)])
    return centres, nearest


@pytest.mark.parametrize("iterations", [1, 3, 50])
@pytest.mark.parametrize("num_clusters", [1, 4, 12])
def test_it_is_lloyds_algorithm_with_cosine_similarity(num_clusters, iterations):
    centres, nearest = lloyd(num_clusters, iterations, seed=2)
    found = clustered(num_clusters, iterations, seed=2)
    np.testing.assert_allclose(found.centres, centres, rtol=1e-12)
    np.testing.assert_array_equal(found.sizes, np.bincount(nearest, minlength=num_clusters))


def test_it_ends_where_every_feature_is_in_the_cluster_of_its_nearest_centre():
    found = clustered()
    features = torch.cat([block(number) for number in range(NUM_BLOCKS)]).double()
    nearest = (features @ torch.nn.functional.normalize(found.centres, dim=1).T).argmax(dim=1)
    for number, centre in enumerate(found.centres):
        torch.testing.assert_close(features[nearest == number].mean(dim=0), centre, rtol=1e-9, atol=1e-12)
    assert int(found.sizes.sum()) == len(features)


def test_there_are_no_more_clusters_than_features():
    assert len(k_means({0: torch.ones(2, 3)}, 1, 3, 5, 9, np.random.default_rng(0)).sizes) == 2
    none = k_means({}, 1, 3, 5, 9, np.random.default_rng(0))
    assert (none.centres.shape, none.sizes.shape) == ((0, 3), (0,))


def test_an_empty_cluster_keeps_its_centre():
    found = k_means({0: torch.ones(3, 2)}, 1, 2, 3, 9, np.random.default_rng(0))
    assert found.sizes.tolist() == [3, 0, 0]
    assert found.centres.tolist() == [[1, 1]] * 3


def cluster_as_worker(number: int, num_workers: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting-{num_workers}", rank=number, world_size=num_workers)
    found = clustered()
    np.save(f"{folder}/{num_workers}-{number}.npy", np.column_stack([found.centres, found.sizes]))
    distributed.destroy_process_group()


@pytest.mark.parametrize("num_workers", [2, 4])
def test_all_workers_get_the_clusters_of_one_worker(tmp_path, num_workers):
    multiprocessing.spawn(cluster_as_worker, (num_workers, str(tmp_path)), nprocs=num_workers)
    alone = clustered()
    for number in range(num_workers):
        np.testing.assert_array_equal(np.load(tmp_path / f"{num_workers}-{number}.npy"), np.column_stack([alone.centres, alone.sizes]))
