"""The recipe's section of AdvCAM, an option of the CAM stage (`cam.advcam`)."""

from pydantic import Field

from vwl.config.sections import Fraction, Section


class AdvCam(Section):
    """AdvCAM (Lee, Kim and Yoon, CVPR 2021): maps summed while the image climbs towards its class; off by default."""

    steps: int = Field(0, ge=0)
    """Maps that are summed at each scale, the first of which is that of the image itself; 27 in the published code, 0: off. At scales of
    0.5 and below about half as many, as published. Each costs two to three passes of the network per label."""
    step_size: float = Field(0.08, gt=0)
    """Largest change of a pixel in a step, in standard deviations of the backbone's normalisation."""
    regularisation: float = Field(7.0, ge=0)
    """Weight of the penalty on changes of the map where it is high already, lambda in the paper."""
    region_threshold: Fraction = 0.5
    """The penalty acts where the map exceeds this share of its maximum, tau in the paper."""
