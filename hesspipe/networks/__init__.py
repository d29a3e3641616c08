"""Networks: built, trained, evaluated, stored.

- `hesspipe.networks.architectures`: the paper's networks and their random initial points
- `hesspipe.networks.build`: the network and loss of an experiment, from its entry in config.yaml
- `hesspipe.networks.training`: descent with a constant step, resumed after a kill
- `hesspipe.networks.evaluation`: loss, accuracy and gradient norm over a whole set
- `hesspipe.networks.pooling`: max-pooling for evaluations without derivatives
- `hesspipe.networks.checkpoints`: `Checkpoint`, a point in parameter space and its file
- `hesspipe.networks.saved_states`: state dicts that other programs saved
"""
