"""The accelerators that programs can be compiled for without having one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

GIB = 1024**3


@dataclasses.dataclass(frozen=True)
class Machine:
    """One kind of accelerator.

    Attributes:
      backend: as JAX names it.
      extras: JAX's extras that name the compiler's package; the first that this version of JAX has is taken.
      memory: bytes of each device that a program may take.
      devices: how many there may be.
      topology: a number of devices -> arguments of JAX's description of the machine.
      environment: variables that the compiler needs before JAX starts.
      host_memory: whether the description knows the host's memory (`engine.models=host`).
    """

    backend: str
    extras: tuple[str, ...]
    memory: int
    devices: tuple[int, ...]
    topology: Callable[[int], dict[str, str]]
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    host_memory: bool = False

    def of(self, count: int) -> tuple[Any, ...]:
        """JAX's descriptions of `count` devices; JAX must have been started with the compiler's package."""
        from jax.experimental import topologies

        return tuple(topologies.get_topology_desc(**self.topology(count)).devices[:count])


def _gpu(name: str, memory: int, bandwidth: int) -> Machine:
    """A card of NVIDIA's Hopper generation with SXM5: 132 multiprocessors, 50 MiB of L2.

    Args:
      memory: bytes.
      bandwidth: bytes/s.
    """
    text = f"""
        gpu_device_info {{
          cuda_compute_capability {{ major: 9 feature_extension: ACCELERATED_FEATURES }}
          core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
          device_memory_size: {memory} memory_bandwidth: {bandwidth} l2_cache_size: {50 * 1024**2}
          shared_memory_per_core: {228 * 1024} shared_memory_per_block: {48 * 1024}
          shared_memory_per_block_optin: {227 * 1024}
          registers_per_core_limit: {64 * 1024} registers_per_block_limit: {64 * 1024}
          threads_per_warp: 32 threads_per_block_limit: 1024 threads_per_core_limit: 2048
          thread_dim_limit_x: 1024 thread_dim_limit_y: 1024 thread_dim_limit_z: 64
          block_dim_limit_x: {2**31 - 1} block_dim_limit_y: {2**16 - 1} block_dim_limit_z: {2**16 - 1}
          device_address_bits: 64 device_vendor: "NVIDIA Corporation" name: "{name}"
          driver_version: "13.0.0" runtime_version: "12.8.0" compile_time_toolkit_version: "12.8.0"
          dnn_version: "9.10.0"
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        device_description_str: "{name}"
    """

    def topology(count: int) -> dict[str, str]:
        return {"platform": "cuda", "topology_name": name, "topology": f"1x1x{count}", "target_config": text}

    extras = ("cuda12-local", "cuda13-local")
    return Machine("gpu", extras, memory, (1, 2, 4, 8), topology)


def _tpu(generation: str, accelerator_type: str, memory: int) -> Machine:
    """A TPU of up to four chips with one core each."""

    def topology(count: int) -> dict[str, str]:
        return {"platform": "tpu", "topology_name": f"{generation}:2x2"}

    environment = {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": accelerator_type,
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_WORKER_ID": "0",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }
    return Machine("tpu", ("tpu",), memory, (1, 2, 4), topology, environment, host_memory=True)


# of a TPU the memory is what its compiler allows a program, a little less than the chip has
TARGETS = {
    "v5e": _tpu("v5e", "v5litepod-4", int(15.75 * GIB)),
    "v6e": _tpu("v6e", "v6e-4", int(31.25 * GIB)),
    "h100": _gpu("NVIDIA H100 80GB HBM3", 84_942_979_072, 3_352_320_000_000),
    "h200": _gpu("NVIDIA H200 141GB HBM3e", 151_397_597_184, 4_800_000_000_000),
}
