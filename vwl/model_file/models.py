"""The public classes of trained models: `SegmentationModel` gives masks, `Classifier` class activation maps of given labels.

Both predict by the code of the run's own stages (`vwl.inference`), so that they give its masks and maps bit for bit on the same machine.
Through the mixin of huggingface_hub they have `save_pretrained`, `from_pretrained` and `push_to_hub`.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelHubMixin
from torch import Tensor

from vwl.data.class_names import class_ids
from vwl.errors import VwlError
from vwl.inference.cam import CamPredictor
from vwl.inference.segment import MaskPredictor, SoftMask
from vwl.model_file.building import building, find_device, require_normalisation, require_sizes, settings_on
from vwl.model_file.card import model_card
from vwl.model_file.content import digest_of, encode_model, read_model, write_model
from vwl.model_file.description import KINDS, AnyDescription, ClassifierDescription, Description, SegmentationDescription
from vwl.model_file.hub import FILE_NAME, hub_errors, hub_file
from vwl.model_file.image_input import ImageInput, as_array
from vwl.model_file.prediction import ActivationMaps, Prediction
from vwl.model_file.sources import find_sources, frames_of
from vwl.models.classifier import Classifier as ClassifierNet
from vwl.models.deeplab import DeepLabV2


class TrainedModel(ModelHubMixin, library_name="vwl", tags=["weakly-supervised"]):
    """What both kinds of models have.

    Attributes:
        description: how the model predicts, what it scored, and where it comes from.
        device: where its network runs.
    """

    description: Description
    device: torch.device
    _state: Mapping[str, Tensor]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names by id, background first."""
        return self.description.classes

    @property
    def palette(self) -> tuple[int, ...]:
        """Colours of masks: 768 values, RGB of each of the 256 class ids."""
        return self.description.palette

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """Tensors of the network, by name, as in its model file."""
        return self._state

    def save(self, path: str | Path) -> None:
        """Write the model file, the same bytes as `vwl export model`.

        Raises:
            VwlError: the path does not end in .safetensors, or it cannot be written.
        """
        write_model(path, encode_model(self.description, self._state))

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the model card that `save_pretrained` writes as README.md, made from the description."""
        return ModelCard(model_card(self.description))

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / FILE_NAME)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model file with its model card to the Hugging Face Hub and return the address of the commit.

        Args:
            repo_id: OWNER/NAME; made if it does not exist.
            options: of the mixin: `private`, `token`, `commit_message`, `branch`, `create_pr`.

        Raises:
            VwlError: the Hub cannot be reached, or refuses the upload.
        """
        with hub_errors(f"the model was not uploaded to {repo_id}"):
            return str(super().push_to_hub(repo_id, **options))

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        device: str | torch.device | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a folder written by `save_pretrained`, or a model of the Hugging Face Hub.

        The mixin's own method would also read config.json, which repeats what the model file says.

        Args:
            pretrained_model_name_or_path: the folder, or OWNER/NAME.
            force_download, token, cache_dir, local_files_only, revision: as for every model of the Hub.
            device: as `vwl.load_model`.
            model_kwargs: none; the mixin's signature has them.

        Raises:
            VwlError: there is no such model, it is damaged, or it is of the other kind.
        """
        if model_kwargs:
            raise TypeError(f"from_pretrained has no argument '{next(iter(model_kwargs))}'")
        source = str(pretrained_model_name_or_path)
        if Path(source).is_dir():
            path = str(Path(source, FILE_NAME))
        else:
            path = hub_file(
                source,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        model = model_from(*read_model(path), path, device)
        if not isinstance(model, cls):
            raise VwlError(f"{source} holds a model of kind '{model.description.kind}'; load it with vwl.load_model")
        return model

    def _hold(self, description: Description, state: Mapping[str, Tensor], device: torch.device) -> None:
        self.description, self._state, self.device = description, state, device
        self._hub_mixin_config = {"vwl_format": description.format, "kind": description.kind, "model_file": FILE_NAME}


class SegmentationModel(TrainedModel, pipeline_tag="image-segmentation"):
    """A trained segmentation model, made by `vwl.load_model`."""

    description: SegmentationDescription

    def __init__(
        self, description: SegmentationDescription, state: Mapping[str, Tensor], device: torch.device, source: str = "the model"
    ) -> None:
        """Build the network of a description and fill it with weights.

        Raises:
            Damaged: the weights do not fit the description; `source` names the file.
        """
        self._hold(description, state, device)
        settings = description.architecture
        with building(source):
            require_sizes(len(settings.atrous_rates), state)
            network = DeepLabV2(settings, len(description.classes))
            network.load_state_dict(dict(state))
            require_normalisation(description, network.backbone)
        self._predictor = MaskPredictor(settings_on(device, description.prediction), network.to(device).eval())

    @property
    def network(self) -> DeepLabV2:
        """The network as it predicts: with folded batch norms (`vwl.models.folding`)."""
        return self._predictor.model

    @overload
    def predict(  # type: ignore[overload-overlap]
        self, images: ImageInput, crf: bool | None = None, labels: Sequence[str] | None = None
    ) -> Prediction: ...

    @overload
    def predict(self, images: Sequence[ImageInput], crf: bool | None = None, labels: Sequence[str] | None = None) -> list[Prediction]: ...

    def predict(
        self, images: ImageInput | Sequence[ImageInput], crf: bool | None = None, labels: Sequence[str] | None = None
    ) -> Prediction | list[Prediction]:
        """Segment an image, or each image of a list.

        Args:
            images: the path of an image file, a PIL image, an array (H, W, 3) uint8 RGB or a tensor (3, H, W) RGB, uint8 or floating from
                0 to 1; or a list of them. Files and PIL images are turned upright as their EXIF orientation says.
            crf: refine the masks with the dense CRF or not; default: as the run did.
            labels: names of the object classes that the images may hold; their masks have no others. Default: all classes.

        Raises:
            VwlError: an image cannot be read, or a label is no object class.
        """
        classes = None if labels is None else self.object_ids([labels] if isinstance(labels, str) else labels)
        if isinstance(images, list | tuple):
            return [self._predict(image, crf, classes) for image in images]
        return self._predict(images, crf, classes)  # type: ignore[arg-type]

    def stream(
        self,
        sources: str | Path | Sequence[str | Path],
        crf: bool | None = None,
        labels: Sequence[str] | None = None,
        recursive: bool = True,
        every: int = 1,
    ) -> Iterator[Prediction]:
        """Segment files, the images of folders, patterns such as `images/*.jpg`, and the frames of videos, one at a time.

        A prediction's name is that of its file below the folder; of a frame, with its number.

        Args:
            sources: one or several of them.
            crf, labels: as `predict`.
            recursive: whether folders below a folder are searched.
            every: of videos, only each frame of this many; needs the extra `video`.

        Raises:
            VwlError: as `predict`; a folder holds no images, or a pattern matches no file.
        """
        classes = None if labels is None else self.object_ids([labels] if isinstance(labels, str) else labels)
        for source in find_sources([sources] if isinstance(sources, str | Path) else sources, recursive):
            for name, image in frames_of(source, every) if source.is_video else [(source.name, source.path)]:
                yield self._predict(image, crf, classes, name)

    def object_ids(self, labels: Sequence[str]) -> list[int]:
        """Return the ids of object classes.

        Raises:
            VwlError: a name is unknown, or the background's; the message suggests the most similar one.
        """
        return [number + 1 for number in class_ids(self.classes[1:], labels)]

    def soft_masks(
        self, images: Sequence[np.ndarray], crf: bool | None = None, classes: Sequence[Sequence[int] | None] | None = None
    ) -> list[SoftMask]:
        """Return the scores of images (H, W, 3) uint8 of one size, which pass through the network together.

        Args:
            images: one image gives the bits of `predict`; several differ in the last ones.
            crf: as `predict`.
            classes: of each image, the ids of the object classes that it may hold, none for all; default: all for all.
        """
        found = self._predictor.batch_probabilities(images)
        limits = [None] * len(images) if classes is None else classes
        return [self._predictor.refined(*three[:2], crf, three[2]) for three in zip(images, found, limits, strict=True)]

    def _predict(self, image: ImageInput, crf: bool | None, classes: Sequence[int] | None, name: str | None = None) -> Prediction:
        pixels = as_array(image)
        stem = Path(image).stem if isinstance(image, str | Path) else "image"
        (soft,) = self.soft_masks([pixels], crf, [classes])
        return Prediction(soft.mask(*pixels.shape[:2]), self.classes, self.palette, pixels, name or stem)


class Classifier(TrainedModel, pipeline_tag="image-classification"):
    """A trained classifier, for class activation maps of given labels; made by `vwl.load_model`."""

    description: ClassifierDescription

    def __init__(
        self, description: ClassifierDescription, state: Mapping[str, Tensor], device: torch.device, source: str = "the model"
    ) -> None:
        """Build the network of a description and fill it with weights.

        Raises:
            Damaged: the weights do not fit the description; `source` names the file.
        """
        self._hold(description, state, device)
        settings = description.architecture
        with building(source):
            require_sizes(settings.codebook.num_codewords if settings.codebook.strategy != "none" else 0, state)
            network = ClassifierNet(settings, len(description.classes) - 1)
            network.load_state_dict(dict(state))
            require_normalisation(description, network.backbone)
        self._predictor = CamPredictor(description.prediction, network.to(device).eval())

    def cam(self, image: ImageInput, labels: Sequence[str]) -> ActivationMaps:
        """Return the class activation maps of the labels of an image.

        Args:
            image: as `SegmentationModel.predict`.
            labels: names of the object classes in the image.

        Raises:
            VwlError: the image cannot be read, or a label is no object class.
        """
        names = [labels] if isinstance(labels, str) else list(dict.fromkeys(labels))
        pixels, ids = as_array(image), class_ids(self.classes[1:], names)
        maps = self._predictor.maps(pixels, [number + 1 for number in ids])
        return ActivationMaps(tuple(names), maps, pixels.shape[0], pixels.shape[1])


def model_from(
    description: AnyDescription,
    state: Mapping[str, Tensor],
    source: str,
    device: str | torch.device | None = None,
) -> SegmentationModel | Classifier:
    """Return the model of a model file's content, on a device (default: the GPU, or the CPU where there is none).

    Raises:
        VwlError: there is no such device, or the weights do not fit the description.
    """
    where = find_device(device)
    if isinstance(description, SegmentationDescription):
        return SegmentationModel(description, state, where, source)
    return Classifier(description, state, where, source)


def described(values: Mapping[str, Any], state: Mapping[str, Tensor]) -> AnyDescription:
    """Return the description with the digest of the tensors that it describes."""
    return KINDS[values["kind"]].model_validate({**values, "weights": digest_of(state)})
