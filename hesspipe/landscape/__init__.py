"""The loss between solutions.

- `hesspipe.landscape.paths`: the loss on straight lines and planes through solutions
- `hesspipe.landscape.alignment`: hidden units permuted to match another network's
- `hesspipe.landscape.losses`: what is found there, to be drawn and kept
- `hesspipe.landscape.barriers`: how far the loss rises on a line
"""
