"""Claims in a configuration: statements, the results that test them, and the criteria."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from hesspipe.config.readers import (
    OfExperiment,
    OfExperiments,
    OfRun,
    OfSources,
    Reader,
    last_directions,
    line,
    outliers,
    spectra,
)
from hesspipe.config.results import ResultKey
from hesspipe.config.types import (
    MOST_PAIRS,
    Distinct,
    NumPairs,
    Positive,
    Seed,
    Seeds,
    Share,
    Step,
    Text,
)
from hesspipe.curvature.matrix import Matrix
from hesspipe.outliers import OutlierRule

if TYPE_CHECKING:
    from hesspipe.config.schema import Config


class _Claim(Reader):
    # Of the paper, where the statement is made.
    section: Text


class _OfOneSeed(_Claim, OfExperiments):
    seed: Seed
    step: Step

    def reads(self, config: Config) -> list[ResultKey]:
        """List the Hessian's spectrum of each experiment."""
        return spectra(self.experiments, [self.seed], [self.step])


class _OfSeveralSeeds(_Claim, OfExperiments):
    matrices: ClassVar[tuple[Matrix, ...]] = (Matrix.HESSIAN,)

    seeds: Seeds
    step: Step

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra by experiment, seed and matrix."""
        return spectra(self.experiments, self.seeds, [self.step], self.matrices)


class FlatnessClaim(_OfOneSeed):
    """Most eigenvalues lie near zero."""

    kind: Literal["flatness"]
    max_magnitude: Share
    min_share: Share


class CountsMatchClaim(_OfOneSeed):
    """There are as many outliers as classes."""

    needs_classes = True

    kind: Literal["counts_match"]
    rule: OutlierRule
    max_difference: int = Field(ge=0, le=MOST_PAIRS)
    min_share: Share

    def reads(self, config: Config) -> list[ResultKey]:
        """List the Hessian's spectrum of each experiment, then its outliers."""
        return super().reads(config) + outliers(self.experiments, [self.seed])


class CountsGrowClaim(_Claim):
    """Within a group of experiments, in the order given, the number of outliers grows."""

    kind: Literal["counts_grow"]
    groups: list[Annotated[list[str], Field(min_length=2)]] = Field(min_length=1)
    seed: Seed
    step: Step
    rule: OutlierRule

    def owners(self) -> list[str]:
        """Name every experiment of every group."""
        return [name for group in self.groups for name in group]

    def reads(self, config: Config) -> list[ResultKey]:
        """List the Hessian's spectrum of each experiment, then its outliers."""
        names = self.owners()
        return spectra(names, [self.seed], [self.step]) + outliers(names, [self.seed])


class NegativePartClaim(_OfOneSeed):
    """Negative eigenvalues remain, and are much smaller than the largest positive ones."""

    kind: Literal["negative_part"]
    max_magnitude: Share


class _Comparison(_OfSeveralSeeds):
    experiments: Annotated[list[str], Distinct] = Field(min_length=2)


class EdgeUnchangedClaim(_Comparison):
    """The largest eigenvalues are the same in all experiments, up to a factor."""

    kind: Literal["edge_unchanged"]
    num_compared: NumPairs
    max_ratio: Positive


class ShareUnchangedClaim(_Comparison):
    """The share of negative eigenvalues is the same in all experiments, up to a factor."""

    kind: Literal["share_unchanged"]
    max_ratio: Positive


class FirstIsLargerClaim(_Comparison):
    """The first of two experiments has the larger outliers."""

    kind: Literal["first_is_larger"]
    num_compared: NumPairs


class CountsEqualClaim(_Comparison):
    """Two experiments have the same number of outliers."""

    kind: Literal["counts_equal"]
    rule: OutlierRule
    max_difference: int = Field(ge=0, le=MOST_PAIRS)

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra by experiment and seed, then the outliers."""
        return super().reads(config) + outliers(self.experiments, self.seeds)


class ResidualIsSmallClaim(_OfSeveralSeeds):
    """The residual is a small part of the Hessian at the end of training."""

    matrices = (Matrix.HESSIAN, Matrix.RESIDUAL)

    kind: Literal["residual_is_small"]
    max_ratio: Positive


class TrivialZerosClaim(_OfSeveralSeeds):
    """G has at least P - N zero eigenvalues."""

    matrices = (Matrix.GGN,)

    kind: Literal["trivial_zeros"]


class ResidualFadesClaim(_Claim, OfRun):
    """The share of the residual in the Hessian shrinks through training."""

    kind: Literal["residual_fades"]
    max_ratio: Positive

    def reads(self, config: Config) -> list[ResultKey]:
        """List the spectra of H and R at every step that has spectra."""
        steps = config.experiments[self.experiment].spectrum_steps
        # Without any, the end, so that the missing spectra are reported.
        steps = steps or [config.experiments[self.experiment].last_step]
        return spectra([self.experiment], [self.seed], steps, (Matrix.HESSIAN, Matrix.RESIDUAL))


class DirectionsClaim(_Claim, OfExperiments):
    """The leading eigenvectors lie in the span of class-mean gradients of the outputs."""

    needs_classes = True

    kind: Literal["outliers_are_class_means"]
    seed: Seed
    min_overlap: Share

    def reads(self, config: Config) -> list[ResultKey]:
        """List the directions at the end of each training."""
        return last_directions(self.experiments, self.seed, config)


class _OnTheLine(_Claim, OfExperiment):
    needs_start = True

    seeds: Seeds

    def reads(self, config: Config) -> list[ResultKey]:
        """List the line of each seed."""
        return [line(self.experiment, seed) for seed in self.seeds]


class NoBarrierClaim(_OnTheLine):
    """No barrier on the line between the ends of two parts of a training."""

    kind: Literal["no_barrier"]
    max_rise: Share


class SecondEndIsBetterClaim(_OnTheLine):
    """The second part of a training ends at a higher test accuracy."""

    kind: Literal["second_end_is_better"]


class _OnSources(_Claim, OfSources):
    part: ClassVar[str]

    def reads(self, config: Config) -> list[ResultKey]:
        """List one part of the results of each source, in the order of their names."""
        return sorted(self.parts(self.part))


class LawsClaim(_OnSources):
    """Linear models' spectra follow a law."""

    source_kind = "linear_model"
    part = "law"

    kind: Literal["plain_law", "generalized_law"]
    max_distance: Share


class LargeOutlierClaim(_OnSources):
    """Each of several linear models has one outlier far above the bulk, where it is predicted."""

    source_kind = "linear_model"
    part = "outliers"

    kind: Literal["large_outlier"]
    max_error: Share


class SpikePositionsClaim(_OnSources):
    """Theorem 1: the position of the largest eigenvalue, for each size."""

    source_kind = "spikes"
    part = "positions"

    kind: Literal["spike_positions"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    min_distance: Positive
    max_errors: Positive


class SpikeFluctuationsClaim(_OnSources):
    """Theorem 1: the fluctuations of the largest eigenvalue, at the largest size."""

    source_kind = "spikes"
    part = "positions"

    kind: Literal["spike_fluctuations"]
    sources: Annotated[list[str], Distinct] = Field(min_length=1, max_length=1)
    min_distance: Positive
    min_p_value: Share


class SpikedSpectraClaim(_OnSources):
    """Theorem 2: zeros, bulk and outliers."""

    source_kind = "spiked_spectra"
    part = "parts"

    kind: Literal["spectrum_parts"]
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
