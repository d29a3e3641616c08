from .curvature.dense import ggn_matrix as ggn_matrix
from .curvature.dense import hessian_matrix as hessian_matrix
from .curvature.dense import residual_matrix as residual_matrix
from .curvature.diagonal_blocks import DiagonalBlock as DiagonalBlock
from .curvature.operators import GGNOperator as GGNOperator
from .curvature.operators import HessianOperator as HessianOperator
from .curvature.operators import ResidualOperator as ResidualOperator
from .curvature.spectra import Spectrum as Spectrum
from .curvature.spectra import spectrum as spectrum
from .linalg.density import Density as Density
from .linalg.density import density as density
from .linalg.eigenpairs import Eigenpairs as Eigenpairs
from .linalg.eigenpairs import NotConvergedError as NotConvergedError
from .linalg.eigenpairs import eigenpairs as eigenpairs
from .linalg.trace import estimate_norms as estimate_norms
from .objective.objective import Objective as Objective
from .outliers import count_outliers as count_outliers

__version__: str
