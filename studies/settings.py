"""What the user may ask for (``StudyOptions``) and what a study is run with (``StudySettings``).

Options say only what was given; what was not comes from the stored study when one is resumed,
else from the search space's suggestion, else from ``DEFAULTS``.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studies.errors import UserError, one_line
from transfer.cache import SIZE_LAW, parse_size
from transfer.config import CALIBRATED_LOSS, criterion
from transfer.data.decoding import Resize

Metric = Literal["accuracy", "balanced_accuracy", "auroc", "f1", "loss"]
StrategyName = Literal["feature_extraction", "fine_tuning"]
Count = Annotated[int, Field(ge=1)]
# Of what would matter between two strategies: hundredths of a point, or of nats, mean nothing.
LEAST_MARGIN, MOST_MARGIN = 0.001, 0.5
# Trials are pruned from so many peers and so many epochs on.
MIN_PEERS, WARMUP_EPOCHS = 4, 2

DEFAULTS: Mapping[str, Any] = {
    "trials": 30,
    "timeout": None,
    "epochs": 15,
    "patience": 5,
    "metric": "accuracy",
    "choose_by": "calibrated_loss",
    "image_size": 224,
    "resize": "squeeze",
    "num_views": 1,
    "flip": "horizontal",
    "seed": 0,
    "weights": "imagenet",
    "share": "trials",
    "sampler": "tpe",
    "pruner": "median",
    "device": "auto",
    "precision": "auto",
}

# What a study is created with and can't be changed, beside its data, space, weights and threads.
FIXED = (
    "metric",
    "choose_by",
    "epochs",
    "patience",
    "image_size",
    "resize",
    "num_views",
    "flip",
    "seed",
    "weights",
    "share",
    "sampler",
    "pruner",
    "precision",
)


DEFAULT_STORAGE = "sqlite:///studies.db"


class StudyOptions(BaseModel):
    """What was asked for, by flag or file. None means not given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    data: str | None = None
    group_pattern: str | None = None
    allow_leakage: bool | None = None
    skip_unreadable: bool | None = None
    drop_duplicates: bool | None = None
    space: str | None = None
    set: tuple[str, ...] | None = None
    backbones: tuple[str, ...] | None = None
    backbone_module: Path | None = None
    strategies: tuple[StrategyName, ...] | None = None
    trials: Count | None = None
    timeout: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Count | None = None
    patience: Count | None = None
    metric: Metric | None = None
    choose_by: Literal["metric", "calibrated_loss"] | None = None
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    resize: Resize | None = None
    num_views: Annotated[int, Field(ge=1, le=100)] | None = None
    flip: Literal["none", "horizontal", "both"] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] | None = None
    storage: str = DEFAULT_STORAGE
    weights: Literal["imagenet", "random"] | None = None
    weights_dir: Path | None = None
    device: str | None = None
    precision: Literal["auto", "fp32", "bf16", "fp16"] | None = None
    cache_dir: Path | None = None
    cache_limit: int | None = None  # bytes; may be given as `2GB`
    share: Literal["trials", "seconds"] | None = None
    sampler: Literal["tpe", "random"] | None = None
    pruner: Literal["median", "none"] | None = None
    retry_failed: bool = False
    confirm: bool = True
    top: Count | None = None
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None
    resplit: bool | None = None
    choose: Literal["best", "cheapest"] | None = None
    margin: Annotated[float, Field(ge=LEAST_MARGIN, le=MOST_MARGIN)] | None = None

    @field_validator("set", mode="before")
    @classmethod
    def _one_or_several(cls, value: object) -> object:
        """Accept one text beside a list of them: its commas are its own."""
        return (value,) if isinstance(value, str) else value

    @field_validator("backbones", "strategies", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Accept `a,b` beside a list."""
        if isinstance(value, str):
            value = names_of(value)
        if value == [] or value == ():
            raise ValueError("at least one must be named")
        return value

    @field_validator("cache_limit", mode="before")
    @classmethod
    def _a_size(cls, value: object) -> object:
        """Read `2GB` as a number of bytes."""
        try:
            return value if value is None else parse_size(str(value))
        except ValueError:
            raise ValueError(SIZE_LAW) from None

    @field_validator("name")
    @classmethod
    def _simple_name(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[\w.-][\w. -]*", value):
            raise ValueError("a name has letters, digits, '_', '-', '.' and spaces")
        return value


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """A study's settings, all decided. ``timeout_seconds`` bounds the time spent on trials."""

    name: str
    trials: int
    timeout_seconds: float | None
    epochs: int
    patience: int
    metric: str
    choose_by: str
    image_size: int
    resize: Resize
    num_views: int
    flip: str
    seed: int
    weights: str
    share: str
    sampler: str
    pruner: str
    precision: str
    device: str

    @property
    def criterion(self) -> str:
        """The name of the validation value that chooses epochs, trials and candidates."""
        return criterion(self.metric, self.choose_by)


def chooser_words(metric: str, choose_by: str) -> str:
    """What chooses epochs, trials and candidates, in words."""
    name = criterion(metric, choose_by)
    words = "calibrated loss (log loss at its best temperature)"
    return words if name == CALIBRATED_LOSS else name.replace("_", " ")


def names_of(text: str | None) -> tuple[str, ...] | None:
    """The names in `a,b`; None where nothing was given."""
    if text is None:
        return None
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_options(given: Mapping[str, Any], config: Path | None = None) -> StudyOptions:
    """Options from a TOML file and from what was given directly, which wins.

    Raises:
        UserError: no such file, malformed TOML (with the line), unknown key, value out of range.
    """
    from_file: dict[str, Any] = {} if config is None else _read_toml(config)
    if "backbone_module" in from_file:
        raise UserError(
            f"{config}: backbone_module runs code, which no file may ask for; give it as "
            "--backbone-module FILE."
        )
    checked: dict[str, Any] = {}
    for values, what in ((from_file, f"{config}: option"), (given, "option")):
        try:
            StudyOptions(**values)
        except ValidationError as error:
            raise UserError(f"{_with_choices(one_line(error, what), error)}.") from None
        checked.update(values)
    return StudyOptions(**checked)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}).") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid TOML: {error}.") from None


def _with_choices(message: str, error: ValidationError) -> str:
    if error.errors()[0]["type"] != "extra_forbidden":
        return message
    return f"{message}; choose from {', '.join(sorted(StudyOptions.model_fields))}"


def decide(
    options: StudyOptions,
    *,
    name: str,
    stored: Mapping[str, Any],
    suggested: Mapping[str, Any],
) -> StudySettings:
    """Fill in what was not given: from the stored study, the suggestions, the defaults."""

    def value(key: str) -> Any:
        given = getattr(options, key)
        if given is not None:
            return given
        return next((s[key] for s in (stored, suggested) if s.get(key)), DEFAULTS[key])

    fixed = {key: value(key) for key in FIXED}
    if "seed" in stored and options.seed is None:
        fixed["seed"] = stored["seed"]
    return StudySettings(
        name=name,
        trials=value("trials"),
        timeout_seconds=value("timeout"),
        device=value("device"),
        **fixed,
    )
