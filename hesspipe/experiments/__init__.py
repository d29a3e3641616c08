"""The jobs of the pipeline: each a function from files and settings to results.

- `hesspipe.experiments.loading`: from files to network, loss, data and objective, for all others
- `hesspipe.experiments.training`: one training, or a saved state in its place: checkpoints, history
- `hesspipe.experiments.spectra`: the exact spectrum at a checkpoint
- `hesspipe.experiments.matrix_free`: densities and extreme eigenpairs, from products alone
- `hesspipe.experiments.outliers`: outlier counts of the spectra of one run
- `hesspipe.experiments.decomposition`: H = G + R through one training
- `hesspipe.experiments.directions`: leading eigenvectors against class-mean gradients
- `hesspipe.experiments.landscape`: lines, planes and aligned networks between checkpoints
- `hesspipe.experiments.linear_models`: linear models and their spectra (Examples 1 and 2)
- `hesspipe.experiments.laws`: predicted against computed spectra (Figure 10)
- `hesspipe.experiments.spiked_models`: spiked sample covariances (Theorems 1 and 2)
- `hesspipe.experiments.curves`: smoothed densities for the figures
"""
