"""``BundleConfig``: what ``config.json`` of a bundle says, checked to the last key.

Never imports torch.

A bundle may come from anywhere: what is read here is data, and nothing in it is believed that does
not fit. Its checksum finds damage and careless edits; it is no signature.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from studies.errors import UserError, one_line
from transfer.backbones.catalog import Interpolation
from transfer.config import METRICS, TransferConfig
from transfer.data.decoding import Resize
from transfer.messages import printable

# Raise it when a field changes its meaning or its name.
FORMAT = 2
CONFIG, MODEL, CARD, SCRIPT, ONNX = (
    "config.json",
    "model.safetensors",
    "MODEL_CARD.md",
    "reproduce.sh",
    "model.onnx",
)
# The card is text for people and may be edited: nothing reads it.
HASHED = (MODEL, SCRIPT, ONNX)
FILES = (CONFIG, *HASHED, CARD)
MOST_BYTES = 4 * 2**20
WAY_OUT = "export it again, or take an undamaged copy"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=0)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Colours = tuple[Finite, Finite, Finite]
SixteenBit = Annotated[int, Field(ge=0, le=65535)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Preprocessing(_Part):
    """How an image becomes what the network takes, the same for every image."""

    image_size: Annotated[int, Field(ge=1, le=1024)]
    mean: Colours
    std: Colours
    window: tuple[SixteenBit, SixteenBit] | None
    resize: Resize
    interpolation: Interpolation
    grey: Literal["repeated to 3 channels"] = "repeated to 3 channels"


class Scaling(_Part):
    """Calibration: probabilities are the softmax of ``scale`` * logits + ``biases``, of C classes.

    The first bias is 0.
    """

    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    biases: Annotated[tuple[Finite, ...], Field(min_length=2)]


class StudyOrigin(_Part):
    """Which training this is: ``trial`` of the search, ``confirm_trial`` of NAME/confirm.

    ``seeds`` were declared before any of them trained and ``seed`` is the first. ``split_seed``
    drew the validation images, ``threads`` changes last bits. ``search_id`` stays when the study
    is renamed; a bundle of a study that is older than ids has none.
    """

    name: str
    search_id: str | None = None
    storage: str
    trial: Count
    confirm_trial: Count
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    seed: Seed
    split_seed: Seed
    resplit: bool
    threads: Annotated[int, Field(ge=1, le=4096)]


class Search(_Part):
    """What the configuration was chosen from, and how."""

    space: str
    num_trials: Count
    num_pruned: Count
    num_failed: Count
    num_confirmed: Count
    choose: Literal["best", "cheapest"]


class DataOrigin(_Part):
    """The data trained on. ``counts`` are images by split and class.

    ``flags`` are the allowances, ``allowed`` the errors that the study went on with by them.
    """

    source: str
    group_pattern: str | None
    fingerprint: Sha256
    test_fingerprint: Sha256
    counts: dict[str, dict[str, Count]]
    flags: dict[str, bool]
    allowed: tuple[str, ...]
    warnings: tuple[str, ...]
    left_out: dict[str, dict[str, Count]]


class WeightsOrigin(_Part):
    """The weights that training started from: of ``random`` ones the hash is ``random-SEED``.

    ``path`` is where their file last was, None where they come from none.
    """

    kind: Literal["imagenet", "random"]
    sha256: str
    seed: Seed
    path: str | None = None


class Validation(_Part):
    """What was measured on validation images: ``value`` of this seed, ``values`` of every seed.

    ``metrics`` are those of this seed's best epoch. With ``refit`` they are of the model before.
    """

    metric: str
    value: Finite
    values: Annotated[tuple[Finite, ...], Field(min_length=1)]
    metrics: dict[str, Finite]
    best_epoch: Annotated[int, Field(ge=1)]
    num_images: Annotated[int, Field(ge=1)]
    loss_calibrated: Finite

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in METRICS:
            raise ValueError(f"one of {', '.join(METRICS)}")
        return value


class ModuleOrigin(_Part):
    """The file that defines the backbone: enough to know it again, not to run it."""

    file: str
    sha256: Sha256


class BundleConfig(_Part):
    """A model with all that is needed to use it, to trace it and to train it again."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)] = FORMAT
    created: str
    configuration: dict[str, str | int | float]
    classes: Annotated[tuple[str, ...], Field(min_length=2)]
    preprocessing: Preprocessing
    calibration: Scaling
    threshold: Annotated[float, Field(ge=0, le=1)] | None
    refit: bool
    validation: Validation
    study: StudyOrigin
    search: Search
    data: DataOrigin
    weights: WeightsOrigin
    backbone_module: ModuleOrigin | None
    versions: dict[str, str]
    files: dict[str, Sha256]

    @field_validator("configuration")
    @classmethod
    def _a_configuration(cls, value: dict[str, Any]) -> dict[str, Any]:
        """All fields of ``TransferConfig`` and no other, each within its law."""
        names = {field.name for field in fields(TransferConfig)}
        if value.keys() != names:
            odd = ", ".join(sorted(value.keys() ^ names))
            raise ValueError(f"its keys must be those of a configuration: {odd}")
        _CONFIGURATION.validate_json(json.dumps(value), strict=True)
        return value

    @field_validator("classes")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) < len(value) or not all(n and n.isprintable() for n in value):
            raise ValueError("classes have names, no two the same, without control characters")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if (self.threshold is None) != (len(self.classes) > 2):
            raise ValueError("two classes have a threshold, more have none")
        if len(self.calibration.biases) != len(self.classes):
            raise ValueError("calibration has a bias for each class")
        if self.study.seed != self.study.seeds[0]:
            raise ValueError("the seed must be the first that was declared")
        if not {MODEL, SCRIPT} <= self.files.keys() <= set(HASHED):
            raise ValueError(f"files must have the hashes of {MODEL} and {SCRIPT}, maybe {ONNX}")
        return self

    @property
    def config(self) -> TransferConfig:
        """The configuration as it is trained."""
        return TransferConfig(**self.configuration)  # type: ignore[arg-type]

    @property
    def backbone(self) -> str:
        return self.config.backbone


_CONFIGURATION = TypeAdapter(TransferConfig)


def configuration_of(config: TransferConfig) -> dict[str, Any]:
    """A configuration as JSON."""
    return {key: str(v) if key == "strategy" else v for key, v in asdict(config).items()}


def config_text(config: BundleConfig) -> str:
    """``config.json``: the checksum is over everything else."""
    values = config.model_dump(mode="json")
    text = json.dumps({"checksum": checksum(values), **values}, indent=2, allow_nan=False)
    return text + "\n"


def checksum(values: Mapping[str, Any]) -> str:
    """SHA-256 of the values as canonical JSON: sorted keys, no spaces, ASCII."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def read_config(folder: Path) -> BundleConfig:
    """Read and check ``config.json`` of a bundle, and nothing else of it.

    Raises:
        UserError: no bundle, damaged, edited, malformed, or of another version.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        raise UserError(f"No bundle at {folder}; make one with `python -m studies export`.")
    values = _parsed(path)
    if isinstance(values.get("format"), int) and values["format"] > FORMAT:
        raise UserError(
            f"{path} was written by a newer version of transfer-studies (format "
            f"{values['format']}, this one knows {FORMAT}); update it."
        )
    if isinstance(values.get("format"), int) and 0 < values["format"] < FORMAT:
        raise UserError(
            f"{path} was written by an older version of transfer-studies (format "
            f"{values['format']}, this one knows {FORMAT}); export it again."
        )
    told = values.pop("checksum", None)
    if told != checksum(values):
        raise UserError(f"{path} was changed after it was written (checksum differs); {WAY_OUT}.")
    try:
        return BundleConfig.model_validate_json(json.dumps(values))
    except ValidationError as error:
        raise UserError(f"{path}: {printable(one_line(error, 'key'))}; {WAY_OUT}.") from None


def _parsed(path: Path) -> dict[str, Any]:
    try:
        # A device or a pipe would be read for ever.
        if not path.is_file():
            raise UserError(f"{path.parent} is no bundle: it has no file {CONFIG}; {WAY_OUT}.")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from None
    if len(content) > MOST_BYTES:
        raise UserError(f"{path} has more than {MOST_BYTES // 2**20} MiB: no config of a bundle.")
    try:
        values = json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); {WAY_OUT}.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold one JSON object; {WAY_OUT}.")
    return values


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return values


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")
