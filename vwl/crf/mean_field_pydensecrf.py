"""Mean-field inference of the dense CRF by the package pydensecrf, which the other implementations are compared with.

It is optional to install (`pip install 'vwl[pydensecrf]'`): its package is compiled.
"""

from typing import Any

import numpy as np

from vwl.config.recipe import CrfKernels
from vwl.errors import VwlError


class PydensecrfMeanField:
    """The dense CRF of one image and a number of labels."""

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        """Build the lattices of an image (H, W, 3) uint8.

        Raises:
            VwlError: pydensecrf is not installed.
        """
        self._iterations = kernels.iterations
        self._field = import_pydensecrf().DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self._field.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
        self._field.addPairwiseBilateral(
            sxy=kernels.bilateral_sxy,
            srgb=kernels.bilateral_srgb,
            rgbim=np.array(image, order="C"),  # the package takes no read-only array
            compat=kernels.bilateral_compat,
        )

    def infer(self, unary: np.ndarray) -> np.ndarray:
        """Return probabilities (L, N) float32 for unary energies (L, N) float32."""
        self._field.setUnaryEnergy(np.array(unary, dtype=np.float32, order="C"))
        return np.array(self._field.inference(self._iterations), dtype=np.float32)


def import_pydensecrf() -> Any:
    """Return the module `pydensecrf.densecrf`.

    Raises:
        VwlError: it is not installed.
    """
    try:
        from pydensecrf import densecrf
    except ImportError:
        raise VwlError(
            "implementation: pydensecrf is not installed; it is built with a C++ compiler: pip install 'vwl[pydensecrf]' "
            "(or use implementation: native)"
        ) from None
    return densecrf
