"""The Hessian H, the generalized Gauss-Newton matrix G and the residual R of an objective.

    H = d2L/dtheta2,   G = sum_n J_n^T S_n J_n,   R = sum_n sum_c e_nc d2f_c/dtheta2,   H = G + R

Matrices and spectra
    dense              H, G and R as matrices, by the fastest method that applies: `hessian_matrix`
    spectra            Eigenvalues, extreme eigenpairs, densities and norms: `spectrum`
    joint_spectra      All eigenvalues of all three, H as G + R: `spectra`
    operators          H v, G v and R v, without the matrix: `HessianOperator`
    diagonal_blocks    The block of some of the parameters: `DiagonalBlock`
    blocks_of_objectives  Its matrix with the other parameters constant
    layer_spectra      Spectra of the blocks of all layers: `layer_spectra`
    vectors            What operators multiply: vectors of torch or NumPy, checked
    class_means        Mean gradients of the outputs by class, and their span
    matrix             The names of the three: `Matrix`

Derivatives
    loss_derivatives   Slopes e_n and curvatures S_n of the loss in the outputs
    products           H v, G v and R v on one batch, by reverse-mode differentiation

Methods for matrices
    columns            Any network: column by column
    linear             Linear layers: products of per-sample blocks
    convolutional      Conv2d and Linear layers, piecewise linear: products of patches
    tangents           Its passes from one layer to a later one
    layers             Which layers a network has, and what enters them: `find_layers`

Spectra without the matrix
    sampled            G of any network, from the Jacobians of samples or of batches
    outer_products     The parts of it by weights, without the Jacobians
    directions         The columns of A, applied by differentiation
    whole_outputs      S of all outputs for a batch, of any shape, and its factors
    factors            Parts of H, G and R of Linear layers
    gram               A^T A of G = A A^T, computed without A
    factored           Spectra from matrices smaller than P x P, with error bounds
    compression        H, G and R in a subspace that contains their range
"""
