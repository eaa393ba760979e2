"""Equal layers, one after the other, as one loop over stacked parameters.

Measured on 2 CPU cores, 24 November 2026: at the authors' sizes the train step
is a program of 9,840 lines, of 13,889 with the loops unrolled; XLA compiles it
in 35 against 61 s of CPU time. A step of 12 BERT layers takes the same time,
one of the default run's 2 layers 3-4 % longer than unrolled.
"""

import flax.linen as nn


def run_layers(layer, count, x, *args, unroll, remat=False):
  """Applies `count` layers of one kind: x = layer(x, *args), each time.

  `layer` is traced and compiled once. Its parameters have a leading axis of
  `count`, and row i is layer i's. Each layer has a dropout key of its own.

  Args:
    layer: a module; its result has the shape and dtype of its input.
    count: number of layers; with 0 there are no parameters.
    x: the first layer's input.
    *args: the same for all layers.
    unroll: layers in a round of the loop, 0 = all. It changes the program,
      not the parameters.
    remat: in the backward pass, compute a layer again from its input alone.
  """

  def apply(layer, x):
    return layer(x, *args), None

  loop = nn.scan(
    nn.remat(apply) if remat else apply,
    variable_axes={"params": 0},
    split_rngs={"params": True, "dropout": True},
    length=count,
    unroll=unroll,
    check_constancy_invariants=False,  # would trace the layer once more
  )
  return loop(layer, x)[0] if count else x
