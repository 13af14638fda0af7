"""The settings of the distortions."""

from dataclasses import dataclass, fields
from typing import ClassVar

from bottlenecks.errors import UsageError
from bottlenecks.settings import Settings, flag, require

VARIANTS, MOST_VARIANTS = 4, 1000  # of a photo: unless said otherwise, and at the most
# The greatest value of each flag that is a number; a shear of 60 degrees leans by 1.7 sides.
_MOST = {
    **dict.fromkeys(("random_crop", "random_scale", "random_brightness", "random_shift"), 100),
    "random_rotation": 180,
    "random_shear": 60,
}


@dataclass(frozen=True, kw_only=True)
class DistortionSettings(Settings):
    """How the variants of a photo differ from it; each is drawn anew for each variant."""

    title: ClassVar[str] = "distortions: variants of training photos"

    flip_left_right: bool = flag(False, "mirror half of the variants")
    flip_up_down: bool = flag(False, "turn half of the variants upside down, as a mirror does")
    random_crop: int = flag(
        0,
        "margin that is cut off, in percent of what is left, at a random place",
        metavar="PERCENT",
    )
    random_scale: int = flag(0, "enlarge by up to this much", metavar="PERCENT")
    random_brightness: int = flag(
        0, "make darker or brighter by up to this much", metavar="PERCENT"
    )
    random_rotation: float = flag(0.0, "rotate by up to this angle, either way", metavar="DEG")
    random_shear: float = flag(0.0, "shear by up to this angle, either way", metavar="DEG")
    random_shift: int = flag(
        0, "shift by up to this much of the sides, each way", metavar="PERCENT"
    )
    distortions_per_image: int = flag(VARIANTS, "variants of each training photo", metavar="K")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, most in _MOST.items():
            value = getattr(self, name)
            require(0 <= value <= most, name, f"from 0 to {most}", value)
        count = self.distortions_per_image
        is_count = 1 <= count <= MOST_VARIANTS
        require(is_count, "distortions_per_image", f"from 1 to {MOST_VARIANTS}", count)
        if count != VARIANTS and not self.distorts:
            raise UsageError(
                "--distortions_per_image does nothing without a distortion; add one, as "
                "--flip_left_right or --random_crop 10, or leave it out"
            )

    @property
    def distortions(self) -> dict[str, float]:
        """Those that are on: the flags' names and values, 1 for a flip, in order."""
        names = (f.name for f in fields(DistortionSettings) if f.name != "distortions_per_image")
        return {name: float(value) for name in names if (value := getattr(self, name))}

    @property
    def distorts(self) -> bool:
        """Whether any distortion is on."""
        return bool(self.distortions)

    @property
    def variants(self) -> int:
        """How many each training photo has: what is asked for, but of flips alone 1 or 3 at most.

        0 where nothing distorts.
        """
        on, count = self.distortions, self.distortions_per_image
        flips_alone = all(name.startswith("flip_") for name in on)
        return min(count, 2 ** len(on) - 1) if flips_alone else count
