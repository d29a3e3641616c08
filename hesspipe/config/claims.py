"""Claims in config.yaml: which statement is checked on which results, and what would do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hesspipe.config.types import (
    Distinct,
    Matrix,
    OutlierRule,
    Positive,
    Section,
    Seed,
    Share,
    Step,
)


class _Claim(Section):
    section: str
    seed: Seed
    step: Step


class _SeveralSeeds(Section):
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    step: Step


class FlatnessClaim(_Claim):
    """Most eigenvalues lie near zero."""

    kind: Literal["flatness"]
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    max_magnitude: Share
    min_share: Share


class CountsMatchClaim(_Claim):
    """There are as many outliers as classes."""

    kind: Literal["counts_match"]
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    rule: OutlierRule
    max_difference: int = Field(ge=0)
    min_share: Share


class CountsGrowClaim(_Claim):
    """Within a group of experiments, in the order given, the number of outliers grows."""

    kind: Literal["counts_grow"]
    groups: list[Annotated[list[str], Field(min_length=2)]] = Field(min_length=1)
    rule: OutlierRule

    @property
    def experiments(self) -> list[str]:
        """Every experiment of every group."""
        return [name for group in self.groups for name in group]


class NegativePartClaim(_Claim):
    """Negative eigenvalues remain, and are much smaller than the largest positive ones."""

    kind: Literal["negative_part"]
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    max_magnitude: Share


class _ComparisonClaim(_SeveralSeeds):
    section: str
    experiments: Annotated[list[str], Distinct] = Field(min_length=2)


class EdgeUnchangedClaim(_ComparisonClaim):
    """The largest eigenvalues are the same in all experiments, up to a factor."""

    kind: Literal["edge_unchanged"]
    num_compared: int = Field(ge=1)
    max_ratio: Positive


class ShareUnchangedClaim(_ComparisonClaim):
    """The share of negative eigenvalues is the same in all experiments, up to a factor."""

    kind: Literal["share_unchanged"]
    max_ratio: Positive


class FirstIsLargerClaim(_ComparisonClaim):
    """The first of two experiments has the larger outliers."""

    kind: Literal["first_is_larger"]
    num_compared: int = Field(ge=1)


class CountsEqualClaim(_ComparisonClaim):
    """Two experiments have the same number of outliers."""

    kind: Literal["counts_equal"]
    rule: OutlierRule
    max_difference: int = Field(ge=0)


class ResidualIsSmallClaim(_SeveralSeeds):
    """The residual is a small part of the Hessian at the end of training."""

    kind: Literal["residual_is_small"]
    section: str
    max_ratio: Positive

    @property
    def matrices(self) -> list[Matrix]:
        """Which spectra are read."""
        return ["hessian", "ggn", "residual"]


class TrivialZerosClaim(_SeveralSeeds):
    """G has at least P - N zero eigenvalues."""

    kind: Literal["trivial_zeros"]
    section: str

    @property
    def matrices(self) -> list[Matrix]:
        """Which spectra are read."""
        return ["ggn"]


class ResidualFadesClaim(Section):
    """The residual's part of the Hessian shrinks through training."""

    kind: Literal["residual_fades"]
    section: str
    experiment: str
    seed: Seed
    max_ratio: Positive

    @property
    def steps(self) -> list[int]:
        """None by name: every step with spectra is read."""
        return []

    @property
    def matrices(self) -> list[Matrix]:
        """Which spectra are read."""
        return ["hessian", "residual"]


class DirectionsClaim(Section):
    """The leading eigenvectors lie in the span of class-mean gradients of the outputs."""

    kind: Literal["outliers_are_class_means"]
    section: str
    experiments: Annotated[list[str], Distinct] = Field(min_length=1)
    seed: Seed
    min_overlap: Share

    @property
    def steps(self) -> list[int]:
        """None by name: the end of each training is looked at."""
        return []


class NoBarrierClaim(Section):
    """No barrier on the line between the ends of two parts of a training."""

    kind: Literal["no_barrier"]
    section: str
    experiment: str
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)
    max_rise: Share


class SecondEndIsBetterClaim(Section):
    """The second part of a training ends at a higher test accuracy."""

    kind: Literal["second_end_is_better"]
    section: str
    experiment: str
    seeds: Annotated[list[Seed], Distinct] = Field(min_length=1)


class LawsClaim(Section):
    """Linear models' spectra follow a law."""

    kind: Literal["plain_law", "generalized_law"]
    section: str
    sources: Annotated[list[str], Distinct] = Field(min_length=1)
    max_distance: Share


class LargeOutlierClaim(Section):
    """Each of several linear models has one outlier far above the bulk, where it is predicted."""

    kind: Literal["large_outlier"]
    section: str
    sources: Annotated[list[str], Distinct] = Field(min_length=1)
    max_error: Share


class SpikePositionsClaim(Section):
    """Theorem 1: where the largest eigenvalue lies, for each size."""

    kind: Literal["spike_positions"]
    section: str
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    min_distance: Positive
    max_errors: Positive


class SpikeFluctuationsClaim(Section):
    """Theorem 1: how the largest eigenvalue fluctuates, at the largest size."""

    kind: Literal["spike_fluctuations"]
    section: str
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    min_distance: Positive
    min_p_value: Share


class SpikedSpectraClaim(Section):
    """Theorem 2: zeros, bulk and outliers."""

    kind: Literal["spectrum_parts"]
    section: str
    sources: Annotated[list[str], Distinct] = Field(min_length=1)
    max_errors: Positive


Claim = Annotated[
    FlatnessClaim
    | CountsMatchClaim
    | CountsGrowClaim
    | NegativePartClaim
    | EdgeUnchangedClaim
    | ShareUnchangedClaim
    | FirstIsLargerClaim
    | CountsEqualClaim
    | ResidualIsSmallClaim
    | TrivialZerosClaim
    | ResidualFadesClaim
    | DirectionsClaim
    | NoBarrierClaim
    | SecondEndIsBetterClaim
    | LawsClaim
    | LargeOutlierClaim
    | SpikePositionsClaim
    | SpikeFluctuationsClaim
    | SpikedSpectraClaim,
    Field(discriminator="kind"),
]
