"""Numerical linear algebra on symmetric operators, matrix-free.

Nothing here knows of networks or objectives: an operator is any object with `shape`, `dtype` and
`@`. For the matrices of an objective, use the functions of the same names in
`hesspipe.curvature.spectra`.

Eigenvalues
    eigenpairs         Extreme eigenpairs with multiplicities: `eigenpairs`
    density            Spectral density by stochastic Lanczos quadrature: `density`
    spectral_density   What it is, and counts, curves and moments from it: `Density`
    tracking           Eigenpairs from those before a change of the operator: `track_eigenpairs`
    trace              Trace and Frobenius norm with standard errors: `estimate_norms`
    inertia            Counts of signs by L D L^T, an independent check: `count_signs`
    spectrum           All eigenvalues of a dense matrix, and their signs: `matrix_spectrum`

Building blocks
    arguments          Numbers that callers pass: `require_integer`, `require_number`
    vector_space       Vectors in this process or parts of them: norms, inner products, random ones
    operator           Operators as products with a vector: `symmetric_product`, `random_unit`
    orthogonalization  Gram-Schmidt, repeated until nothing is left: `orthogonalize`
    lanczos            Tridiagonalization with full reorthogonalization: `tridiagonalize`
    lanczos_basis      Its basis, whole or rounded: `LanczosBasis`, `RoundedBasis`

Parts of the density
    radau              Bounds on the distribution function of a quadrature: `Rules`
    counts             Numbers of eigenvalues as intervals that hold: `Count`
    means              Bounds on the mean of a function of the eigenvalues
    intervals          What a density tells, as intervals: `Curve`, `Distribution`, `Moment`

Parts of the tracking
    ritz_space         A growing space, its products and Ritz pairs: `RitzSpace`
    hidden             How far the ends may lie beyond what was seen: `RandomRun`, `upper_bounds`

Parts of the eigenpair search
    krylov             The basis: extended, restarted, deflated
    thick_restart      The search, and when it is complete
    ritz               Eigenpairs with true residual norms: `Eigenpairs`
    search_state       An interrupted search, saved and resumed
"""
