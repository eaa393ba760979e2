"""Equal layers, one after the other, as one loop over stacked parameters.

Measured on 2 CPU cores, 27 November 2026: at the authors' sizes the train step
is a program of 9,989 lines, of 13,141 with the loops unrolled; XLA compiles it
in 9 against 27 s. The default run's step of 2 layers takes the same time in loops.
"""

import flax.linen as nn
import jax


def run_layers(layer, count, x, *args, unroll, remat=False):
  """Applies `count` layers of one kind: x = layer(x, *args), each time.

  `layer` is traced and compiled once. Its parameters have a leading axis of
  `count`, and row i is layer i's. Each layer has a dropout key of its own.

  The backward pass keeps the layers' matrix products and computes the rest
  again: a loop would keep three times as much (14.5 in place of 4.3 GB for 256
  sentences with pictures at the authors' sizes, bf16), and take no less time.

  Args:
    layer: a module; its result has the shape and dtype of its input.
    count: number of layers; with 0 there are no parameters.
    x: the first layer's input.
    *args: the same for all layers.
    unroll: layers in a round of the loop, 0 = all. It changes the program,
      not the parameters.
    remat: keep the layers' inputs only, and compute all of it again.
  """

  def apply(layer, x):
    return layer(x, *args), None

  policy = None if remat else jax.checkpoint_policies.dots_saveable
  loop = nn.scan(
    nn.remat(apply, policy=policy, prevent_cse=remat),
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    length=count,
    unroll=unroll,
    check_constancy_invariants=False,  # would trace the layer once more
  )
  return loop(layer, x)[0] if count else x
