"""Meshes: the same numbers on any, and large parameters really split."""

import functools
import math
import re

import jax
import numpy as np
import pytest

from mner_jax import checkpoint, pretrained, sharding
from mner_jax.benchmark import aot, train
from mner_jax.config import Config, MeshConfig, UserError, replace, to_json
from mner_jax.data import files
from mner_jax.training import step as stepping
from tests import conftest
from tests.conftest import LONG, PLAIN_TEXT, named, random_state, total_size

STEPS = 2
# A softmax does not see what all its keys share; over one key it is 1.
NO_GRADIENT = r"key/bias|fusion/resnet/attention/(query|key)"
MAF = {"model.fusion": "maf", "model.vit.enabled": False}


def make_mesh(shape):
  devices = jax.devices()[: math.prod(shape)]
  return sharding.make_mesh(MeshConfig(*shape), devices)


@functools.cache
def program(config, shape, rows):
  """The compiled step on a mesh of that shape."""
  traced, _ = train.trace_step(config, make_mesh(shape), rows, 16)
  return traced.lower().compile()


def run(config, shape, batch, state=None):
  """Losses of STEPS updates and the state after them; consumes `state`."""
  size, mesh, losses = len(batch["weight"]), make_mesh(shape), []
  state = state or random_state(config)
  state = jax.device_put(state, sharding.shardings(state, mesh))
  for _ in range(STEPS):
    placed = sharding.put_batch(batch, size, mesh)
    state, metrics = program(config, shape, size)(state, placed)
    losses.append(float(metrics["loss"]))
  return losses, state


def assert_same_params(got, want, rtol=1e-4, atol=2e-5):
  """Of two {path: array}."""
  assert got.keys() == want.keys()
  for name, x in got.items():
    # Where the gradient is 0 by mathematics, Adam takes the sign of noise.
    if not re.search(NO_GRADIENT, name):
      np.testing.assert_allclose(x, want[name], rtol, atol, err_msg=name)


@pytest.fixture(scope="module")
def tiny(tiny):
  """With one block in its ResNet: less to compile."""
  yield replace(tiny, {"model.resnet.stages": (1,)})
  program.cache_clear()


@pytest.fixture(scope="module")
def one_device(tiny, random_batch):
  batch = random_batch(tiny, 16, 16)
  return batch, *run(tiny, (1, 1, 1), batch)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), LONG((2, 4, 1))])
def test_a_mesh_computes_what_one_device_does(tiny, one_device, shape):
  batch, want_losses, want = one_device
  losses, state = run(tiny, shape, batch)
  np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
  assert_same_params(named(state.params), named(want.params))
  parts = {
    name: x.size // x.addressable_shards[0].data.size
    for name, x in named(state).items()
  }
  split = r"(query|intermediate|output)/kernel|word_emb"
  for name, count in parts.items():
    if re.search(split, name) and "/count" not in name:
      assert count == shape[1] * shape[2], name
    # The optimizer's moments are split like their parameter.
    assert count == parts[re.sub(r".*/(mu|nu)/", "params/", name)], name
  assert any("/mu/" in name for name in parts)


# Where arrays lie on several devices, Orbax compiles how to cut each.
MOVES = [((1, 1, 1), [(2, 2, 2)]), LONG((2, 2, 2), [(2, 4, 1), (1, 1, 1)])]


@pytest.mark.parametrize("first, then", MOVES)
def test_a_run_continues_on_any_mesh(tiny, one_device, tmp_path, first, then):
  batch, _, _ = one_device
  _, state = run(tiny, first, batch)
  (tmp_path / "config.json").write_text(to_json(tiny))
  files.write(tmp_path / "tokenizer" / "tokenizer.json", "{}")
  saver = checkpoint.Saver(tmp_path)
  saver.save(STEPS, state)
  saver.seal()
  saved, abstract = jax.tree.map(np.array, state), conftest.abstract_state(tiny)
  want_losses, _ = run(tiny, first, batch, state)
  for shape in then:
    there = sharding.shardings(abstract, make_mesh(shape))
    placed = jax.tree.map(lambda x, s: x.update(sharding=s), abstract, there)
    restored = checkpoint.restore(tmp_path, STEPS, placed)
    jax.tree.map(np.testing.assert_array_equal, restored, saved)
    assert jax.tree.map(lambda x: x.sharding, restored) == there
    losses, _ = run(tiny, shape, batch, restored)
    np.testing.assert_allclose(losses, want_losses, rtol=1e-5)


def test_frozen_parameters_have_no_state_and_do_not_move(tiny, one_device):
  _, _, state = one_device
  moments = [name for name in named(state.opt_state) if "/mu/" in name]
  assert moments and not any("/mu/resnet/" in name for name in moments)
  before = random_state(tiny).params
  same = named(jax.tree.map(np.array_equal, state.params, before))
  assert all(same[name] for name in same if name.startswith("resnet/"))
  assert not same["vit/class_embedding"]


def test_mesh_shapes_are_checked():
  devices = jax.devices()
  assert sharding.make_mesh(MeshConfig(-1, 2, 2), devices).shape["data"] == 2
  for shape in [(3, 1, 1), (-1, -1, 1), (-1, 3, 1), (0, 1, 1)]:
    with pytest.raises(UserError, match="mesh"):
      sharding.make_mesh(MeshConfig(*shape), devices)
  with pytest.raises(UserError, match="batch_size"):
    sharding.check_batch_size(12, make_mesh((1, 8, 1)))


# What a mesh does not split: message.
UNSPLIT = {
  ("text/pooler/kernel", (12, 8), (1, 8, 1)): "8 devices do not divide",
  ("new/table", (4096, 512), (2, 2, 2)): "no rule of .* splits",
}


def test_what_cannot_be_split_is_listed():
  for (name, size, shape), message in UNSPLIT.items():
    tree = {name: jax.ShapeDtypeStruct(size, "f4")}
    sharding.shardings(tree, make_mesh((8, 1, 1)))
    listed = f"{message} {name} {re.escape(str(size))}"
    with pytest.raises(UserError, match=listed):
      sharding.shardings(tree, make_mesh(shape))


@pytest.mark.slow
def test_bf16_computes_nearly_the_same(tiny, one_device):
  batch, want_losses, _ = one_device
  losses, state = run(replace(tiny, {"dtype": "bfloat16"}), (8, 1, 1), batch)
  np.testing.assert_allclose(losses, want_losses, rtol=0.02)
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_maf_swaps_the_same_pictures_on_any_mesh(tiny, random_batch):
  """Rows of one device get the pictures of another's."""
  fields = MAF | {"model.text.num_layers": 1, "model.resnet.stages": (1,)}
  config = replace(tiny, fields | {"loss.contrastive": "clip"})
  batch = random_batch(config, 16, 16)
  want, _ = run(config, (1, 1, 1), batch)
  losses, _ = run(config, (2, 2, 2), batch)
  np.testing.assert_allclose(losses, want, rtol=1e-5)


def share_of_whole(tree, shape):
  """The part of a tree's bytes that one device of a mesh holds."""
  placed = sharding.shardings(tree, make_mesh(shape))
  part = jax.tree.map(
    lambda x, s: x.update(shape=s.shard_shape(x.shape)), tree, placed
  )
  return total_size(part) / total_size(tree)


def full_size(**fields):
  """The abstract state at the authors' sizes and four entity types."""
  fields["data.labels"] = ("LOC", "MISC", "ORG", "PER")
  config = pretrained.fill_sizes(replace(Config(), fields))
  return conftest.abstract_state(config)


def test_fsdp_divides_parameters_and_moments_at_full_size():
  state = full_size()
  assert share_of_whole(state, (1, 8, 1)) < 1 / 7.9
  assert share_of_whole(state, (2, 4, 1)) < 1 / 3.95
  for fusion in ("umt", "maf"):
    params = full_size(**MAF | {"model.fusion": fusion}).params
    fusion_params = {"fusion": params["fusion"]}
    assert share_of_whole(fusion_params, (2, 2, 2)) < 1 / 3.95


def sent(compiled, kind):
  """Bytes that a device sends in collectives of a kind."""
  found = aot.collectives(compiled.as_text())
  return sum(size for other, size, _ in found if other == kind)


# Settings, the mesh to compare with, and rows.
SAVINGS = [(PLAIN_TEXT, (1, 1, 1), 32), LONG({}, (8, 1, 1), 16)]


@pytest.mark.parametrize("fields, shape, rows", SAVINGS)
def test_fsdp_saves_memory_and_gathers_all_once(tiny, fields, shape, rows):
  """What the compiler reports of the program that runs."""
  tiny = replace(tiny, fields)
  whole, split = program(tiny, shape, rows), program(tiny, (2, 4, 1), rows)
  held = [x.memory_analysis().argument_size_in_bytes for x in (split, whole)]
  assert held[0] < held[1] / 2.5  # biases are whole
  params = conftest.abstract_state(tiny).params
  if not tiny.model.multimodal:  # nothing reads what is pooled
    text = {k: x for k, x in params["text"].items() if k != "pooler"}
    params = params | {"text": text}
  missing = 1 - share_of_whole(params, (2, 4, 1))
  want = missing * 4 * total_size(params)
  more = sent(split, "all-gather") - sent(whole, "all-gather")
  assert more == pytest.approx(want, rel=0.01)


@pytest.mark.parametrize("form", ["nt_xent", LONG("clip")])
def test_data_parallelism_costs_the_gradients_and_one_gather(tiny, form):
  """What may travel between a pod's devices."""
  config = replace(tiny, {"loss.contrastive": form})
  compiled = program(config, (8, 1, 1), 16)
  # The vectors of one side, 4 bytes each; a device sends all but its own part.
  largest = 16 * config.model.text.hidden_size * 4
  loops, entry = map(aot.collectives, compiled.as_text().split("\nENTRY "))
  for kind, size, line in entry:
    assert kind in ("all-reduce", "all-gather", "reduce-scatter"), line
    assert kind == "all-reduce" or size <= largest, line
  reduced = sum(size for kind, size, _ in entry if kind == "all-reduce")
  for kind, size, line in loops:  # a layer's gradient, in every round
    assert kind == "all-reduce" and "/text/while/" in line, line
    reduced += config.model.text.num_layers * size
  params = conftest.abstract_state(config).params
  trainable, _ = stepping.split_frozen(params, config.optim.frozen)
  # A ring sends 2 (n - 1) / n of the gradient (rows of positions that no
  # sentence reaches have none); little comes on top.
  ring = 2 * 7 / 8 * 4 * total_size(trainable)
  assert 0.95 <= reduced / ring < 1.15


def test_the_description_of_a_compiled_step(tiny):
  chip = aot.CHIPS["v5e"]
  compiled = program(tiny, (8, 1, 1), 16)
  row = aot.memory(compiled, chip) | aot.work(compiled, chip, 16)
  assert 0 < row["arguments_gb"] < row["total_gb"] and row["fits"]
  assert "all-reduce" in row["collectives"]
  seconds = row["estimated_ms"] / 1e3
  assert seconds > row["sent_gb"] * 1e9 / chip.link_rate > 0
  assert row["estimated_examples_per_second"] == pytest.approx(16 / seconds)
  full = chip._replace(hbm=row["total_gb"] * 1e9)
  assert not aot.memory(compiled, full)["fits"]


def test_accumulation_is_one_batch_to_the_crf(tiny, random_batch):
  """Without pictures and dropout the parts make up the whole exactly."""
  text = replace(tiny, PLAIN_TEXT)
  batch = random_batch(text, 32, 16)
  batch["weight"][[0, 5, 31]] = 0  # padding, not the same in every part
  want_losses, want = run(text, (1, 1, 1), batch)
  parts = replace(text, {"train.batch_size": 32, "train.accumulate": 4})
  losses, state = run(parts, (2, 2, 2), batch)
  np.testing.assert_allclose(losses, want_losses, rtol=1e-5)
  assert_same_params(named(state.params), named(want.params))


@pytest.mark.parametrize("options", stepping.COMPILER_OPTIONS.values())
def test_compiler_options_are_known_to_this_jax(options):
  """An unknown one would end every run on its platform."""
  assert jax.jit(lambda x: x, compiler_options=options)(1) == 1
