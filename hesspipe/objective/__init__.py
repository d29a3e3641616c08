"""The loss L(theta) of a model over data, as a function of one flat parameter vector.

The objective
    objective          A model, a loss and data: `Objective`
    flat_model         The model as a function of theta: `FlatModel`
    functions          Functions of theta as models: `FunctionOfTheta`
    model_kinds        Models that can be used: `require_usable`
    padding            Embeddings with `padding_idx`: `PaddedLookup`, `constant_rows`
    norms              Normalization with correct third derivatives: `layer_norm`
    kernels            Kernels with second derivatives: `twice_differentiable_kernels`
    chosen_parameters  Parameters that patterns of names choose
    copies             Copies of models and losses with all that they hide: `Copier`
    flattening         Named tensors as one vector, and back: `flatten`, `unflatten`
    batches            The data, read once: `Batch`, `read_batches`
    whole_batches      Batches of any type, neither sliced nor joined: `WholeBatch`
    whole_losses       `loss(model, batch)`, or outputs and a loss of them: `adopt_functions`
    training_steps     Losses taken from a training step: `NoBackward`, `without_steps`
    weights            Shares, losses and layouts of the batches: `Weighing`, `Layouts`
    data_forms         The forms of data, each read in one way: `iterate_batches`
    pytrees            Inputs and outputs of several tensors: `Fields`, `join_outputs`
    reductions         Denominators of mean losses over several batches: `known_denominator`
    distributed        Data spread over several processes: `part_of_whole`
    descriptions       What is compared between them, as text: `described`

Checks of the model and the loss
    checks_on_data     All of them on all the data, in order: `ChecksOnData`
    explanations       Errors of torch in one clear line: `explained`
    determinism        Deterministic, finite, in full precision
    rare_draws         Results that random numbers seldom change: `at_extremes`
    nearby             All but second derivatives of the model, batch by batch: `NearbyChecks`
    screening          Most of these, by one comparison: `Screen`
    separability       Samples independent in the model: `ModelCheck`
    loss_parts         What the loss divides by, whole and in parts: `LossCheck`
    dependence         How samples depend on each other: `Dependence`
    target_shapes      Targets that are not broadcast over samples
    differentiability  Correct first and second derivatives
    loss_graphs        Products with H, and what graphs of losses contain: `GraphSurvey`
    operation_kinds    Which operations of torch round numbers: `kind_of`
    restructured       An objective with the structure of another model
    whole_numbers      Whole numbers in floating point, whose sums are exact
    symmetry           Second derivatives that are symmetric: `refuse_asymmetry`
    loss_of_outputs    Losses of the outputs alone, by which G is defined
    finiteness         Matrices that are finite: `require_finite_matrix`
    finite_differences First and second derivatives of every sample against differences
    directional_derivatives  Derivatives along one direction, in parts
    special_points     Second derivatives that are wrong at one point only
    jumps              Losses that jump at the parameters: `refuse_jump`
    ties               Tied selections behind a gate of zeros: `refuse_tie`
    samples            The loss on some of the samples: `first_samples`
    pieces             Samples that are checked at once: `Piece`, `Division`
    joined_pieces      Samples of several batches in one piece: `joined`
"""
