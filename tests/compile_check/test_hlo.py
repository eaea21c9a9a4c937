"""What a compiled program does, read from its text: by hand on small texts, and beside XLA's own count on this CPU."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax

from prfl_jax.compile_check.hlo import Cost, Program

LOOP = """HloModule jit_f

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%write (p0: f32[100,256], p1: f32[256], p2: s32[]) -> f32[100,256] {
  %p0 = f32[100,256]{1,0} parameter(0)
  %p1 = f32[256]{0} parameter(1)
  %row = f32[1,256]{1,0} bitcast(%p1)
  %p2 = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %written = f32[100,256]{1,0} dynamic-update-slice(%p0, %row, %p2, %zero)
}

%step (arg: (s32[]{:T(128)}, f32[256]{0:T(256)})) -> (s32[], f32[256]) {
  %arg = (s32[]{:T(128)}, f32[256]{0:T(256)}) parameter(0)
  %x = f32[256]{0:T(256)} get-tuple-element(%arg), index=1
  %n = s32[]{:T(128)} get-tuple-element(%arg), index=0
  %y = f32[256]{0:T(256)} multiply(%x, %x), backend_config={"window_config":{"estimated_cycles":"100"}}
  ROOT %both = (s32[]{:T(128)}, f32[256]{0:T(256)}) tuple(%n, %y)
}

%test (arg.1: (s32[], f32[256])) -> pred[] {
  %arg.1 = (s32[]{:T(128)}, f32[256]{0:T(256)}) parameter(0)
  %turn = s32[]{:T(128)} get-tuple-element(%arg.1), index=0
  %end = s32[]{:T(128)} constant(5)
  ROOT %less = pred[]{:T(512)} compare(%turn, %end), direction=LT
}

%open (arg.2: (s32[], f32[256])) -> pred[] {
  %arg.2 = (s32[], f32[256]{0}) parameter(0)
  %turn.1 = s32[] get-tuple-element(%arg.2), index=0
  ROOT %less.1 = pred[] compare(%turn.1, %turn.1), direction=LT
}

%cheap (c: f32[256]) -> f32[256] {
  ROOT %c = f32[256]{0} parameter(0)
}

%dear (d: f32[256]) -> f32[256] {
  %d = f32[256]{0} parameter(0)
  ROOT %negative = f32[256]{0} negate(%d)
}

ENTRY %main (stack: f32[100,256], x.1: f32[256], k: s32[], flag: pred[]) -> f32[100,256] {
  %stack = f32[100,256]{1,0} parameter(0)
  %x.1 = f32[256]{0} parameter(1)
  %k = s32[] parameter(2)
  %flag = pred[] parameter(3)
  %init = (s32[], /*index=1*/f32[256]{0}) tuple(%k, %x.1)
  %known = (s32[], /*index=1*/f32[256]{0}) while(%init), condition=%test, body=%step
  %unknown = (s32[], /*index=1*/f32[256]{0}) while(%known), condition=%open, body=%step
  %z = f32[256]{0} get-tuple-element(%unknown), index=1
  %chosen = f32[256]{0} conditional(%flag, %z, %z), true_computation=%dear, false_computation=%cheap
  ROOT %out = f32[100,256]{1,0} fusion(%stack, %chosen, %k), kind=kLoop, calls=%write
}
"""
ROW = 256 * 4


def test_loops_branches_and_slices():
    """Five turns and one of a step of 3 rows (x twice, y); a branch of 2; a row written into a stack that stays."""
    found = Program(LOOP).cost()
    assert found.operations == 5 + 1 + 1 + 1
    assert found.cycles == 600
    assert found.moved == 6 * 3 * ROW + 2 * ROW + (ROW + 4 + ROW)
    assert Program(LOOP).named("while") == 2


def test_costs_add_up():
    assert Cost(1, 2, 3) + Cost(4, 5, 6) == Cost(5, 7, 9) and Cost(1, 2, 3).times(3) == Cost(3, 6, 9)


def test_a_real_program():
    """A scan of seven products is counted seven times, whatever the version of XLA writes around it."""

    def f(x, w):
        return lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=7)[0]

    shapes = jax.ShapeDtypeStruct((64, 64), jnp.float32), jax.ShapeDtypeStruct((64, 64), jnp.float32)
    found = Program(jax.jit(f).lower(*shapes).compile().as_text()).cost()
    matrix = 64 * 64 * 4
    assert 7 * 3 * matrix <= found.moved <= 7 * 8 * matrix
    assert found.operations >= 7
