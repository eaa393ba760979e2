import jax
import jax.numpy as jnp
import pytest

from mner_jax.benchmark import aot, traffic


def test_a_product_reads_and_writes_each_array_once():
  x, y = jnp.ones((64, 32)), jnp.ones((32, 16))
  compiled = jax.jit(jnp.matmul).lower(x, y).compile()
  moved = traffic.hbm_bytes(compiled.as_text(), trips=1)
  want = 4 * (64 * 32 + 32 * 16 + 64 * 16)
  assert moved.total() == want == compiled.cost_analysis()["bytes accessed"]


def test_a_loop_counts_as_often_as_it_goes_round():
  def repeat(x, y):
    return jax.lax.fori_loop(0, 10, lambda _, x: x @ y, x)

  x, y = jnp.ones((64, 32)), jnp.ones((32, 32))
  text = jax.jit(repeat).lower(x, y).compile().as_text()
  ten, eleven = (traffic.hbm_bytes(text, n).total() for n in (10, 11))
  once = 4 * (2 * 64 * 32 + 32 * 32)
  # A CPU also copies what goes round.
  assert once <= eleven - ten < 2 * once
  assert 10 * once <= ten < 21 * once


# As the TPU's compiler writes them: S(1) is VMEM, T(8,128) how it is tiled.
TPU = """
%fused (p: f32[9,256]) -> f32[9,256] {
  %p = f32[9,256]{1,0} parameter(0)
  ROOT %n = f32[9,256]{1,0} negate(%p)
}

ENTRY %main (a: f32[9,256], b: bf16[100]) -> f32[9,256] {
  %a = f32[9,256]{1,0:T(8,128)} parameter(0)
  %b = bf16[100]{0:T(1024)(128)(2,1)} parameter(1)
  %s = (f32[9,256]{1,0:T(8,128)S(1)}, f32[9,256]{1,0:T(8,128)}, u32[]{:S(2)}) \
copy-start(%a)
  %v = f32[9,256]{1,0:T(8,128)S(1)} copy-done(%s)
  %f = f32[9,256]{1,0:T(8,128)S(1)} fusion(%v, /*index=1*/%b), calls=%fused
  ROOT %c = f32[9,256]{0,1:T(8,128)} copy(%f), metadata={op_name="%a"}
}
"""


def test_vmem_is_free_and_padding_is_not():
  moved = traffic.hbm_bytes(TPU, trips=1)
  assert moved == {
    "copy-start": 4 * 16 * 256,  # out of HBM; 9 rows take 16
    "fusion": 2 * 1024,  # of its operands only %b is in HBM
    "copy": 4 * 128 * 256,  # of 9 columns now, that take 128
  }


def test_a_slice_counts_what_it_brings():
  text = TPU.replace("copy-", "slice-").replace(
    "(f32[9,256]{1,0:T(8,128)S(1)}, f32[9,256]{1,0:T(8,128)}, u32",
    "((f32[9,256]{1,0:T(8,128)}), f32[8,256]{1,0:T(8,128)S(1)}, s32",
  )
  assert traffic.hbm_bytes(text, 1)["slice-start"] == 4 * 8 * 256


@pytest.mark.parametrize("space, counts", [("S(5)", 0), ("S(0)", 1), ("", 1)])
def test_other_memories_are_free(space, counts):
  text = TPU.replace("bf16[100]{0:T(1024)(128)(2,1)}",
                     f"bf16[100]{{0:T(1024)(128)(2,1){space}}}")  # fmt: skip
  assert traffic.hbm_bytes(text, 1)["fusion"] == counts * 2048


def test_a_fusion_that_slices_reads_the_slice():
  text = """
%inner (q: f32[64,256]) -> f32[8,256] {
  %q = f32[64,256]{1,0:T(8,128)} parameter(0)
  ROOT %t = f32[8,256]{1,0:T(8,128)} slice(%q), slice={[8:16], [0:256]}
}

%fused (p: f32[64,256], r: f32[8,256]) -> f32[8,256] {
  %p = f32[64,256]{1,0:T(8,128)} parameter(0)
  %r = f32[8,256]{1,0:T(8,128)} parameter(1)
  %u = f32[8,256]{1,0:T(8,128)} fusion(%p), kind=kLoop, calls=%inner
  ROOT %n = f32[8,256]{1,0:T(8,128)} add(%u, %r)
}

ENTRY %main (a: f32[64,256], b: f32[8,256]) -> f32[8,256] {
  %a = f32[64,256]{1,0:T(8,128)} parameter(0)
  %b = f32[8,256]{1,0:T(8,128)} parameter(1)
  ROOT %f = f32[8,256]{1,0:T(8,128)} fusion(%a, %b), calls=%fused
}
"""
  assert traffic.hbm_bytes(text, 1)["fusion"] == 3 * 4 * 8 * 256
  whole = text.replace("add(%u, %r)", "add(%u, %r, %p)")
  assert traffic.hbm_bytes(whole, 1)["fusion"] == (64 + 2 * 8) * 4 * 256


def test_an_exchange_in_the_background_is_one():
  """It begins, is taken along by a product, and ends: one gather."""
  text = """
%begin (p: bf16[8,256]) -> (bf16[8,256], bf16[64,256]) {
  %p = bf16[8,256]{1,0} parameter(0)
  %g = bf16[64,256]{1,0} all-gather(%p), channel_id=4, \
replica_groups={{0,1,2,3,4,5,6,7}}
  ROOT %t = (bf16[8,256]{1,0}, bf16[64,256]{1,0}) custom-call(%g), \
custom_call_target="AsyncCollectiveStart"
}

%step (p: bf16[8,256], q: bf16[64,256], r: f32[8,256]) -> (f32[8,256], \
bf16[8,256], bf16[64,256]) {
  %p = bf16[8,256]{1,0} parameter(0)
  %q = bf16[64,256]{1,0} parameter(1)
  %r = f32[8,256]{1,0} parameter(2)
  %g = bf16[64,256]{1,0} all-gather(%p), channel_id=4, \
replica_groups={{0,1,2,3,4,5,6,7}}
  %n = f32[8,256]{1,0} negate(%r)
  ROOT %t = (f32[8,256]{1,0}, bf16[8,256]{1,0}, bf16[64,256]{1,0}) \
tuple(%n, %p, %q)
}

ENTRY %main (a: bf16[8,256], b: f32[8,256]) -> f32[8,256] {
  %a = bf16[8,256]{1,0} parameter(0)
  %b = f32[8,256]{1,0} parameter(1)
  %s = (bf16[8,256]{1,0}, bf16[64,256]{1,0}) fusion(%a), \
output_to_operand_aliasing={{0}: (0, {})}, calls=%begin
  %x = bf16[8,256]{1,0} get-tuple-element(%s), index=0
  %y = bf16[64,256]{1,0} get-tuple-element(%s), index=1
  %f = (f32[8,256]{1,0}, bf16[8,256]{1,0}, bf16[64,256]{1,0}) \
fusion(%x, %y, %b), output_to_operand_aliasing={{1}: (0, {}), {2}: (1, {})}, \
calls=%step
  ROOT %z = f32[8,256]{1,0} get-tuple-element(%f), index=0
}
"""
  sent = aot.collectives(text)
  assert [x[:2] for x in sent] == [("all-gather", 7 / 8 * 2 * 64 * 256)]
  gathered, taken_along = 2 * 64 * 256, 2 * 4 * 8 * 256
  assert traffic.hbm_bytes(text, 1)["fusion"] == gathered + taken_along
