"""Models and vectors of which each process of a `torch.distributed` group holds a part.

layout             Which entries of each parameter a process holds: `Piece`
space              Norms, inner products and random vectors over processes: `ShardedSpace`
gathering          Whole parameters inside the graph, and no longer than they are needed
structure          A copy of a model that gathers a parameter where it is read
reads              What was read of a parameter, for derivatives by it: `Reads`
model              The model as a function of a part of theta: `ShardedModel`
same_function      Whether all processes compute the same loss of the same samples
jumps              Losses that jump at divided parameters: `refuse_jump_together`
shares             What each process has of the data, and its share of the loss
memory             Arrays that return to the system once they are freed
objective          The loss as a function of a part of theta: `ShardedObjective`
"""
