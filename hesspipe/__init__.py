"""Exact Hessian, Gauss-Newton and residual spectra of neural networks.

At the parameters theta of a network, with the loss L and the outputs f,

    H = d2L/dtheta2,   G = sum_n J_n^T S_n J_n,   R = sum_n sum_c e_nc d2f_nc/dtheta2,   H = G + R

are computed exactly, as dense matrices, as spectra, or as operators for large networks::

    objective = hesspipe.Objective(model, loss_fn, (inputs, targets))
    hesspipe.spectrum(objective).eigenvalues

Objectives
----------
Objective                L(theta): a model, a loss and data
ShardedObjective         L(theta) of a model that is divided among processes (FSDP2, DTensor)

Matrices
--------
Matrix                   The names "hessian", "ggn" and "residual"
hessian_matrix           H, dense
ggn_matrix               G, dense
residual_matrix          R, dense, from its own formula

Operators
---------
HessianOperator          H as a symmetric operator: products without the matrix
GGNOperator              G
ResidualOperator         R
DiagonalBlock            Rows and columns of an operator: the curvature of one layer

Spectra
-------
spectrum                 All eigenvalues, and the number of negative, zero and positive ones
spectra                  Those of H, G and R, with what they share computed once
eigenpairs               Extreme eigenpairs, with multiplicities and true residual norms
density                  Spectral density by stochastic Lanczos quadrature, with standard errors
estimate_norms           Trace and Frobenius norm, with standard errors
Spectrum, Eigenpairs     Results of `spectrum` and `eigenpairs`
Density, NormEstimates   Results of `density` and `estimate_norms`
Estimate                 A value and its standard error
layer_spectra            Spectra, densities or extreme eigenpairs of every layer's block
LayerSpectra             Result of `layer_spectra`

Training
--------
Monitor                  Curvature through a training: a record every so many steps

Outliers
--------
count_outliers           Eigenvalues above the bulk, by gap, ratio or elbow

Files
-----
save, load               A result as one Parquet file, which the pipeline's figures take

Errors
------
HesspipeError                  Base class of all errors
TooLargeError                  More memory is needed than is available
InUseError                     Another process works on the same unfinished work
NotTwiceDifferentiableError    The model or the loss has no correct second derivative
NotASumOverSamplesError        The loss couples samples
ChangedDataError               Data that are read again have changed
NotConvergedError              Some eigenpairs did not converge
InconsistentMatrixError        A result failed a consistency check
NoSolutionError                The equation of a limiting law was not solved
DivergedError                  A training diverged
ConfigError                    The configuration has errors
DamagedFileError               A result is damaged or of another kind
UnreadableFileError            A file cannot be read, e.g. for lack of permission
UnwritableFileError            A file cannot be written, e.g. on a full disk
RankError                      One of several processes failed; raised in all of them
LostRankError                  One of several processes ended without a word
ForeignStateError              A state belongs to another search
DigitsFileError                A file is not MNIST's
CIFAR10FileError               A file is not CIFAR-10's

Subpackages
-----------
The library:

linalg                   Symmetric operators, matrix-free: Lanczos, eigenpairs, density, trace
objective                The loss as a function of one parameter vector, and checks of the model
sharded                  Models and vectors that are divided among processes
curvature                H, G and R: formulas, products, dense and factored forms
random_matrices          Limiting laws of random matrix theory
ranks                    Processes that raise errors and decide together
outliers                 Rules that separate outliers from the bulk
plots                    What `plot` methods and figures draw in common

The pipeline, with ``pip install 'hesspipe[workflow]'``:

config                   config.yaml as typed, checked settings
data                     Datasets
networks                 Architectures, training, checkpoints
landscape                Lines and planes between solutions
experiments              What one job computes, from files to results
monitor                  Curvature through a training loop of your own
tables                   Results as tables with provenance
saving                   Results of the library as such tables: `save`, `load`
claims                   The paper's statements, checked against results
figures                  Figures from results
workflow                 Snakemake and DVC
"""

import lazy_loader

# Public names are looked up at first use: a script that draws a figure need not load torch.
# They are listed in __init__.pyi, for this module and for type checkers alike.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
